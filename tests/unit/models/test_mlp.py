"""What the perceptron does beside what every model does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.contracts.channels import MISSING_RANK, MISSING_SCORE
from feature_repo.contracts.places import Namespace
from models.dataset import TRAIN, read_dataset
from models.encoding import build_encoder
from models.errors import BuildError
from models.ranking.mlp import MLP, MLPConfig
from models.training.fit import fit
from models.training.keras_loop import FitConfig
from tests.training_set_fixture import write_training_set

SCORE, RANK = "pair_item2vec_score", "pair_popular_rank"
QUICK = FitConfig(batch_size=128, epochs=12, learning_rate=2e-2)


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    namespace = Namespace(tmp_path_factory.mktemp("state"), "pairs")
    write_training_set(namespace, "pairs", rows=800, pairs=(SCORE, RANK))
    return read_dataset(
        namespace.training_sets / "pairs", features=(SCORE, RANK, "item_event_count", "user_event_count")
    )


def _logits(scorer, dataset, **changed):
    """Return the logits of a few rows, with columns changed."""
    rows = dataset[TRAIN].take(np.arange(20))
    encoded = build_encoder(dataset.signature, dataset.transforms)
    columns = rows.features | {name: np.full_like(rows.features[name], value) for name, value in changed.items()}
    return scorer(encoded.run(columns, dataset.signature)).numpy()[:, 0]


def test_without_hidden_layers_it_is_linear_in_its_numbers(paired):
    model = MLP(MLPConfig(hidden=(), embedding_size=0))
    scorer = model.build(build_encoder(paired.signature, paired.transforms), seed=1)
    low, middle, high = (_logits(scorer, paired, **{SCORE: value}) for value in (0.2, 0.5, 0.8))
    np.testing.assert_allclose(high - middle, middle - low, atol=1e-5)
    assert np.abs(high - low).min() > 0
    assert [layer.name for layer in scorer.layers if layer.weights] == ["logit"]


def test_with_embeddings_of_no_size_it_reads_numbers_alone(paired):
    encoded = build_encoder(paired.signature, paired.transforms)
    scorer = MLP(MLPConfig(embedding_size=0)).build(encoded, seed=1)
    np.testing.assert_array_equal(_logits(scorer, paired, item_id="i1"), _logits(scorer, paired, item_id="i2"))
    reading = MLP(MLPConfig()).build(encoded, seed=1)
    assert (_logits(reading, paired, item_id="i1") != _logits(reading, paired, item_id="i2")).any()


def test_nothing_to_read_is_refused(namespace):
    dataset = read_dataset(namespace.training_sets / "toy", features=("user_top_genres",))
    encoded = build_encoder(dataset.signature, dataset.transforms)
    with pytest.raises(BuildError, match="set embedding_size above 0"):
        MLP(MLPConfig(embedding_size=0)).build(encoded, seed=1)


@pytest.mark.parametrize(("name", "missing"), [(SCORE, np.float32(MISSING_SCORE)), (RANK, MISSING_RANK)])
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_missing_figure_is_told_from_the_mean_one_and_from_the_best(paired, name, missing, hidden):
    """Where a channel did not find the item is what is learned: 0 after scaling alone would be the mean."""
    splits = {
        split: replace(rows, labels=(rows.features[name] == missing).astype(np.int64))
        for split, rows in paired.splits.items()
    }
    figures = paired[TRAIN].features[name]
    known = figures[figures != missing]
    config = MLPConfig(fit=QUICK, hidden=hidden, embedding_size=0)
    scorer = fit(MLP(config), replace(paired, splits=splits), seed=1).scorer
    absent, *others = (
        _logits(scorer, paired, **{name: value}) for value in (missing, known.mean(), known.min(), known.max())
    )
    for other in others:
        assert absent.min() > other.max() + 1


def test_members_are_fitted_each_by_itself_and_score_by_the_mean_of_their_logits(paired, monkeypatch):
    monkeypatch.setattr("models.training.fit.calibrated", lambda fitted, _: fitted)
    config = MLPConfig(fit=QUICK.model_copy(update={"epochs": 2}), hidden=(8,), embedding_size=0)
    several = MLP(config.model_copy(update={"members": 2, "linear_members": 1}))
    alone, together = (fit(model, paired, seed=1) for model in (MLP(config), several))
    rows = paired[TRAIN].take(np.arange(20))
    encoded = together.encoded.run(rows.features, paired.signature)
    members = [layer for layer in together.scorer.layers if layer.name.startswith("mlp_")]
    logits = np.stack([member(encoded).numpy() for member in members])
    assert len(logits) == 3
    assert [len(member.trainable_weights) for member in members] == [4, 4, 2], "the last has no hidden layer"
    np.testing.assert_allclose(together.scorer(encoded).numpy(), logits.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(logits[0], alone.scorer(encoded).numpy(), atol=1e-6)
    assert np.abs(logits[1] - logits[0]).max() > 1e-3, "each has first weights of its own"
    assert {"best_epoch", "best_epoch_2", "best_epoch_3"} <= together.params.keys()
    again = fit(several, paired, seed=1)
    np.testing.assert_array_equal(again.scorer(encoded).numpy(), together.scorer(encoded).numpy())
