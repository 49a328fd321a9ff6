"""The perceptron that begins as a factorisation machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.signatures import ranking
from models.dataset import TRAIN, VALID
from models.encoding import build_encoder
from models.errors import BuildError
from models.ranking import fnn
from models.ranking.fnn import FNN, FNNConfig
from models.training.fit import FitContext, Fitted
from models.training.keras_loop import FitConfig, fit_by_keras
from tests.gradients import unreached
from tests.movielens import MOVIELENS

FEW = ("user_event_count", "item_value_mean", "user_top_genres", "user_last_items")
SIZE = 3
QUICK = FNNConfig(
    embedding_size=SIZE,
    hidden=(5,),
    first=FitConfig(batch_size=512, epochs=2, learning_rate=3e-2),
    fit=FitConfig(batch_size=512, epochs=1, learning_rate=3e-2),
)


def _context(dataset, name="probability"):
    splits = dataset.splits
    if OBJECTIVES[name].heads:
        splits = {each: _with_drawn(split) for each, split in splits.items()}
    signature = ranking(MOVIELENS, FEW, OBJECTIVES[name])
    return FitContext(signature, dataset.transforms, splits[TRAIN], splits[VALID], 1)


def _with_drawn(split):
    few = split.features["item_event_count"] < 60
    targets = split.targets | {"is_drawn": few.astype(np.int64)}
    return replace(split, labels=np.where(few, 0, split.labels), targets=targets)


def _weights(graph):
    return {layer.name: layer.get_weights() for layer in graph.layers if layer.weights}


@pytest.fixture
def stages(monkeypatch):
    """Before and after each stage: the weights by layer, of a graph of several heads those of the parts."""
    seen = []
    random = np.random.default_rng(3)

    def told(scorer, encoded, context, config):
        """Fit the graph of one head; of several, whose fit takes long, let any weights be what was learned."""
        heads = [f"{scorer.name}_{head}" for head in context.signature.objective.heads]
        graphs = [scorer.get_layer(each) for each in heads] or [scorer]
        before = [_weights(each) for each in graphs]
        if heads:
            scorer.set_weights([random.normal(size=each.shape) for each in scorer.get_weights()])
            fitted = Fitted(encoded, scorer, {"log_loss_of_heads": [1.0]}, {"best_epoch": 1})
        else:
            fitted = fit_by_keras(scorer, encoded, context, config)
        seen.append((scorer.name, config, before, [_weights(each) for each in graphs]))
        return fitted

    monkeypatch.setattr(fnn, "fit_by_keras", told)
    return seen


@pytest.mark.parametrize("name", ["probability", "taken_and_liked"])
def test_the_perceptron_begins_with_all_that_the_machine_has_learned(name, dataset, stages):
    fitted = FNN(QUICK).fit(_context(dataset, name))
    (first, first_config, begun, machines), (second, second_config, starts, _) = stages
    assert (first, second) == ("fm", "fnn")
    assert (first_config, second_config) == (QUICK.first, QUICK.fit)
    assert len(machines) == len(starts) == (2 if name == "taken_and_liked" else 1)
    for fresh, machine, start in zip(begun, machines, starts, strict=True):
        expected = {layer: weights for layer, weights in machine.items() if layer != "weight"}
        kernel, constant = machine["weight"]
        expected["numbers_weight"] = [kernel]
        assert {"item_embedding", "item_id_weight", "numbers_embedding", "numbers_weight"} <= expected.keys()
        assert start.keys() == expected.keys() | {"deep_0", "logit"}, "nothing else of the machine, but a constant"
        assert constant.shape == (1,)
        for layer, weights in expected.items():
            np.testing.assert_array_equal(start[layer][0], weights[0], err_msg=layer)
        for layer in ("item_embedding", "item_id_weight"):
            assert np.abs(machine[layer][0] - fresh[layer][0]).max() > 1e-2, "the first stage has learned"
    if len(starts) == 2:
        assert (starts[0]["item_embedding"][0] != starts[1]["item_embedding"][0]).any()
    loss = "log_loss_of_heads" if name == "taken_and_liked" else "log_loss"
    assert {f"fm_{loss}", loss} <= fitted.history.keys()
    assert {"best_epoch", "best_epoch_fm"} <= fitted.params.keys()


@pytest.fixture(scope="module")
def graph(dataset):
    signature = ranking(MOVIELENS, FEW)
    encoded = build_encoder(signature, dataset.transforms)
    scorer = FNN(QUICK).build(encoded, seed=1)
    random = np.random.default_rng(2)
    scorer.set_weights([random.normal(size=each.shape) for each in scorer.get_weights()])
    columns = encoded.run(dataset[TRAIN].take(np.arange(40)).features, signature)
    return encoded.reading(()), scorer, columns


def test_layers_see_each_fields_weight_and_vector(graph):
    encoded, scorer, columns = graph
    weights = _weights(scorer)
    expected = []
    for row in range(40):
        fields = []
        for column, vocabulary in encoded.categorical.items():
            terms = [index for index in np.atleast_1d(columns[column][row]) if index != 0]
            w = [weights[f"{column}_weight"][0][index] for index in terms]
            v = [weights[f"{vocabulary}_embedding"][0][index] for index in terms]
            fields.append(np.mean([np.concatenate(pair) for pair in zip(w, v, strict=True)] or [np.zeros(1 + SIZE)], 0))
        place = 0
        for column in encoded.numeric:
            field = np.zeros(1 + SIZE)
            for x in columns[column][row]:
                w, v = (weights[name][0][place] for name in ("numbers_weight", "numbers_embedding"))
                field += x * np.concatenate([w, v])
                place += 1
            fields.append(field)
        hidden = np.maximum(np.concatenate(fields) @ weights["deep_0"][0] + weights["deep_0"][1], 0)
        expected.append(hidden @ weights["logit"][0] + weights["logit"][1])
    lists = [columns[column] for column in encoded.categorical if columns[column].ndim == 2]
    assert any((each == 0).any() and (each != 0).any() for each in lists), "some lists have padding"
    np.testing.assert_allclose(scorer(columns, training=False), expected, rtol=1e-4, atol=1e-4)


def test_every_weight_is_learned(graph):
    _, scorer, columns = graph
    assert scorer.trainable_weights
    assert unreached(scorer, columns) == []


class Broken(FNN):
    def logit(self, fields):  # noqa: ARG002 - as all models have it
        raise ValueError("Keras cannot")  # noqa: EM101, TRY003 - as short as Keras's


def test_what_keras_cannot_build_is_one_sentence(dataset):
    with pytest.raises(
        BuildError, match=r"^model fnn: expected a config that gives a graph, .* Keras says: Keras cannot"
    ):
        Broken(QUICK).fit(_context(dataset))
