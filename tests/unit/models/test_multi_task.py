"""Models whose heads share experts, or vectors."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.signatures import ranking
from models.dataset import TRAIN
from models.encoding import build_encoder
from models.layers.gated_experts import GatedExperts
from models.objectives import learned
from models.ranking.multi_task import ESMM, PLE, ESMMConfig, MMoE, MMoEConfig, PLEConfig
from models.training.fit import fit
from models.training.keras_loop import FitConfig
from tests.movielens import MOVIELENS

FEW = ("user_event_count", "item_event_count", "item_value_mean", "user_last_items")
HEADS = OBJECTIVES["taken_and_liked"].heads
MODELS = {
    "mmoe": MMoE(MMoEConfig(experts=3, expert_hidden=(6, 5), hidden=(4,))),
    "ple": PLE(PLEConfig(own_experts=2, shared_experts=1, expert_hidden=(5,), hidden=(4,))),
    "ple of two levels": PLE(PLEConfig(levels=2, own_experts=1, shared_experts=2, expert_hidden=(5,), hidden=(4,))),
    "esmm": ESMM(ESMMConfig(hidden=(6, 4))),
}


@pytest.fixture(scope="module")
def encoded(dataset):
    return build_encoder(ranking(MOVIELENS, FEW), dataset.transforms)


@pytest.fixture(scope="module")
def columns(dataset, encoded):
    return encoded.run(dataset[TRAIN].take(np.arange(50)).features, ranking(MOVIELENS, FEW))


def _graph(model, encoded, heads=HEADS):
    """Return a graph with weights of such a size that no part of it is negligible."""
    keras.utils.set_random_seed(3)
    scorer = model.build_heads(encoded, 1, heads)
    random = np.random.default_rng(4)
    scorer.set_weights([random.normal(size=each.shape) / np.sqrt(len(each)) for each in scorer.get_weights()])
    table = scorer.get_layer("item_embedding")
    table.set_weights([random.normal(size=table.get_weights()[0].shape)])
    return scorer


def _softmax(values):
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def _layers(scorer, name, value):
    """Return ReLU layers `name_0`, `name_1`, ... applied to one row."""
    number = 0
    while f"{name}_{number}" in {each.name for each in scorer.layers}:
        kernel, bias = scorer.get_layer(f"{name}_{number}").get_weights()
        value = np.maximum(value @ kernel + bias, 0)
        number += 1
    assert number
    return value


def _gate(scorer, name, experts, selector):
    (kernel,) = scorer.get_layer(name).get_weights()
    shares = _softmax(selector @ kernel)
    assert len(shares) == len(experts)
    return sum(share * expert for share, expert in zip(shares, experts, strict=True))


def _tower(scorer, head, value):
    kernel, bias = scorer.get_layer(f"logit_{head}").get_weights()
    return (_layers(scorer, f"tower_{head}", value) @ kernel + bias)[0]


def _mmoe(scorer, x):
    experts = [_layers(scorer, f"expert_{number}", x) for number in range(3)]
    return [_tower(scorer, head, _gate(scorer, f"gate_{head}", experts, x)) for head in HEADS]


def _ple(levels, own, shared):
    def logits(scorer, x):
        state = dict.fromkeys((*HEADS, "shared"), x)
        for level in range(levels):
            experts = {
                owner: [
                    _layers(scorer, f"expert_{level}_{owner}_{number}", state[owner])
                    for number in range(shared if owner == "shared" else own)
                ]
                for owner in state
            }
            after = {
                head: _gate(scorer, f"gate_{level}_{head}", experts[head] + experts["shared"], state[head])
                for head in HEADS
            }
            if level < levels - 1:
                everyone = experts[HEADS[0]] + experts[HEADS[1]] + experts["shared"]
                after["shared"] = _gate(scorer, f"gate_{level}_shared", everyone, state["shared"])
            state = after
        return [_tower(scorer, head, state[head]) for head in HEADS]

    return logits


def _esmm(scorer, x):
    return [_tower(scorer, head, x) for head in HEADS]


@pytest.mark.parametrize(
    ("name", "equations", "first"),
    [
        ("mmoe", _mmoe, "expert_0_0"),
        ("ple", _ple(1, 2, 1), "expert_0_taken_0_0"),
        ("ple of two levels", _ple(2, 1, 2), "expert_0_taken_0_0"),
        ("esmm", _esmm, "tower_taken_0"),
    ],
)
def test_logits_are_the_papers(name, equations, first, encoded, columns):
    scorer = _graph(MODELS[name], encoded)
    rows = np.array(keras.Model(scorer.inputs, scorer.get_layer(first).input)(columns))
    table = scorer.get_layer("item_embedding").get_weights()[0]
    numbers = np.concatenate([columns[each] for each in encoded.reading(()).numeric], axis=1)
    np.testing.assert_allclose(rows[:, -numbers.shape[1] :], numbers, atol=1e-6, err_msg="x ends in the numbers")
    place = 8 * list(encoded.categorical).index("item_id")
    np.testing.assert_allclose(rows[:, place : place + 8], table[columns["item_id"]], atol=1e-6)
    found = np.array(scorer(columns, training=False))
    assert found.shape == (50, 2)
    assert np.ptp(found, axis=0).min() > 0.1
    np.testing.assert_allclose(found, [equations(scorer, row.astype(np.float64)) for row in rows], atol=1e-4)


def test_a_gate_averages_experts_by_its_softmax():
    random = np.random.default_rng(1)
    experts, selector = (random.normal(size=shape).astype(np.float32) for shape in ((7, 3, 4), (7, 5)))
    layer = GatedExperts()
    found = np.array(layer(experts, selector))
    (kernel,) = layer.get_weights()
    assert kernel.shape == (5, 3)
    for row in range(7):
        scores = [sum(selector[row, i] * kernel[i, expert] for i in range(5)) for expert in range(3)]
        total = sum(np.exp(score) for score in scores)
        mixture = sum(np.exp(score) / total * experts[row, expert] for expert, score in enumerate(scores))
        np.testing.assert_allclose(found[row], mixture, atol=1e-5)


def _reached(scorer, columns, head):
    """Return the names of layers whose weights the loss of one head moves."""
    labels = np.arange(50) % 2
    weights = scorer.trainable_weights
    with tf.GradientTape() as tape:
        logits = scorer(columns, training=False)[:, head]
        loss = ops.mean(ops.binary_crossentropy(labels.astype(np.float32), logits, from_logits=True))
    gradients = tape.gradient(loss, [each.value for each in weights])
    return {
        weight.path.split("/")[0]
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0
    }


@pytest.mark.parametrize("name", MODELS)
def test_each_heads_loss_reaches_what_is_shared_and_not_the_others_own(name, encoded, columns):
    scorer = _graph(MODELS[name], encoded)
    taken, liked = (_reached(scorer, columns, head) for head in (0, 1))
    assert "item_embedding" in taken & liked
    tables = [layer for layer in scorer.layers if layer.name.endswith("_embedding")]
    assert len(tables) == len(encoded.reading(()).vocabularies), "one table of each vocabulary, for both heads"
    assert {"tower_taken_0", "logit_taken"} <= taken - liked
    assert {"tower_liked_if_taken_0", "logit_liked_if_taken"} <= liked - taken
    assert taken | liked == {weight.path.split("/")[0] for weight in scorer.trainable_weights}
    if name == "mmoe":
        assert {f"expert_{number}_0" for number in range(3)} <= taken & liked
        assert "gate_taken" in taken - liked
    if name == "ple":
        assert "expert_0_shared_0_0" in taken & liked
        assert {"expert_0_taken_0_0", "gate_0_taken"} <= taken - liked
    if name == "ple of two levels":
        assert {"expert_0_taken_0_0", "expert_0_liked_if_taken_0_0", "gate_0_shared"} <= taken & liked
        assert "gate_0_taken" in taken - liked, "a head's own gate is its own"
        assert "expert_1_liked_if_taken_0_0" in liked - taken
        assert "gate_1_shared" not in taken | liked


@pytest.mark.parametrize("name", MODELS)
def test_with_one_head_there_is_one_logit(name, encoded, columns):
    scorer = MODELS[name].build(encoded, 1)
    assert scorer(columns, training=False).shape == (50, 1)
    weights = {weight.path.split("/")[0] for weight in scorer.trainable_weights}
    assert _reached(scorer, columns, 0) == weights
    gates = {each for each in weights if each.startswith("gate")}
    expected = {"mmoe": {"gate_score"}, "ple": {"gate_0_score"}, "esmm": set()}
    assert gates == expected.get(name, {"gate_0_score", "gate_0_shared", "gate_1_score"})


def test_both_heads_are_learned_and_the_score_is_their_product(dataset):
    splits = {}
    for name, split in dataset.splits.items():
        drawn = split.features["item_event_count"] < 60
        targets = split.targets | {"is_drawn": drawn.astype(np.int64)}
        splits[name] = replace(split, labels=np.where(drawn, 0, split.labels), targets=targets)
    some = replace(dataset, signature=ranking(MOVIELENS, FEW, OBJECTIVES["taken_and_liked"]), splits=splits)
    quick = FitConfig(batch_size=256, epochs=8, learning_rate=1e-2)
    fitted = fit(ESMM(ESMMConfig(fit=quick)), some, seed=1)
    columns = fitted.encoded.run(some[TRAIN].features, some.signature)
    logits = np.array(fitted.scorer(columns, training=False)).astype(np.float64)
    taken, liked = (1 / (1 + np.exp(-logits[:, head])) for head in (0, 1))
    drawn, labels = some[TRAIN].targets["is_drawn"] == 1, some[TRAIN].labels
    assert taken[~drawn].mean() > taken[drawn].mean() + 0.5
    assert liked[~drawn & (labels == 1)].mean() > liked[~drawn & (labels == 0)].mean() + 0.1
    scores = learned(some.signature.objective).scores(logits)
    np.testing.assert_allclose(scores, taken * liked, rtol=1e-4)
