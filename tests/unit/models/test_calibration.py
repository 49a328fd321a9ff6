"""Probabilities are as often right as they say, whatever rows a model was fitted on; no order changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from feature_repo.contracts.objectives import LISTWISE, OBJECTIVES, PROBABILITY, TAKEN_AND_LIKED
from models.dataset import TRAIN, VALID, Dataset, Split
from models.evaluation.metrics import calibration
from models.export import export
from models.objectives import BinaryHead, learned
from models.ranking.lr import LogisticRegression, LogisticRegressionConfig
from models.saved_model_loader import SavedModel
from models.training.calibration import calibrated, fit_line
from models.training.fit import FitContext, fit

QUICK = LogisticRegressionConfig().fit.model_copy(update={"epochs": 4, "batch_size": 512, "learning_rate": 5e-2})
DECILES = 10


def head(labels: np.ndarray, weights: np.ndarray | None = None) -> BinaryHead:
    return BinaryHead(labels, np.ones(len(labels), np.float32) if weights is None else weights)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.4, -3.0), (2.5, 1.5)])
def test_a_planted_line_is_found(scale, offset):
    dice = np.random.default_rng(1)
    logits = dice.normal(size=100_000)
    labels = (dice.random(len(logits)) < expit(scale * logits + offset)).astype(np.int64)
    assert fit_line(logits, head(labels)) == pytest.approx((scale, offset), abs=0.05)


def test_rows_count_by_their_weight():
    dice = np.random.default_rng(2)
    logits, weights = dice.normal(size=4000), dice.integers(0, 4, size=4000)
    labels = (dice.random(4000) < expit(logits - 1)).astype(np.int64)
    repeated = (np.repeat(each, weights) for each in (logits, labels))
    weighted = fit_line(logits, head(labels, weights.astype(np.float32)))
    assert weighted == pytest.approx(fit_line(next(repeated), head(next(repeated))), abs=1e-3)


def test_the_order_stays_where_validation_says_the_opposite():
    logits = np.linspace(-2, 2, 500)
    scale, _ = fit_line(logits, head((logits < 0).astype(np.int64)))
    assert scale > 0


@pytest.mark.parametrize("labels", [np.zeros(9), np.ones(9), np.empty(0)])
def test_nothing_is_changed_where_there_is_nothing_to_be_right_about(labels):
    assert fit_line(np.arange(float(len(labels))), head(labels)) == (1.0, 0.0)


@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.booleans()), max_size=30))
def test_a_line_is_finite_and_rises(rows):
    logits, labels = (np.array([row[place] for row in rows], dtype=np.float64) for place in (0, 1))
    scale, offset = fit_line(logits, head(labels))
    assert 0 < scale < np.inf
    assert np.isfinite(offset)


def planted(dataset: Dataset, rows: int, seed: int) -> Split:
    """Return natural rows: one in ten or so is positive, by a number that is known of the item."""
    dice = np.random.default_rng(seed)
    whole = dataset[TRAIN].take(dice.integers(0, dataset[TRAIN].rows, size=rows))
    count = whole.features["item_event_count"].astype(np.float64)
    standard = (np.log1p(count) - np.log1p(count).mean()) / (np.log1p(count).std() + 1e-9)
    labels = (dice.random(rows) < expit(1.2 * standard - 2.6)).astype(np.int64)
    return replace(whole, labels=labels, weights=np.ones(rows, dtype=np.float32))


@pytest.mark.parametrize("weighted", [False, True], ids=["as drawn", "each stands for those left out"])
def test_observed_over_expected_is_right_on_rows_to_come_though_train_was_drawn(dataset, tmp_path, weighted):
    natural, valid, later = (planted(dataset, rows, seed) for seed, rows in enumerate((20_000, 20_000, 40_000)))
    kept = (natural.labels == 1) | (np.arange(natural.rows) % 5 == 0)
    drawn = natural.take(np.flatnonzero(kept))
    drawn = replace(drawn, weights=np.where(drawn.labels == 1, 1, 5 if weighted else 1).astype(np.float32))
    given_rows = replace(dataset, splits={TRAIN: drawn, VALID: replace(valid, name=VALID)})
    fitted = fit(LogisticRegression(LogisticRegressionConfig(fit=QUICK)), given_rows, seed=1)
    export(fitted, dataset.signature, tmp_path / "model")
    scores = SavedModel(tmp_path / "model").predict(later.features)
    found = calibration(later.labels, scores, DECILES)
    assert found.observed_over_expected == pytest.approx(1, abs=0.1)
    assert found.observed / found.predicted == pytest.approx(np.ones(DECILES), abs=0.2)


def test_every_head_of_a_probability_is_calibrated_and_no_other_score_is(dataset):
    for objective in OBJECTIVES.values():
        heads = learned(objective).binary_heads(dataset[VALID])
        assert len(heads) == (max(1, len(objective.heads)) if objective.probability else 0), objective.name
    signature = replace(dataset.signature, objective=LISTWISE)
    context = FitContext(signature, dataset.transforms, dataset[TRAIN], dataset[VALID], seed=1)
    fitted = LogisticRegression(LogisticRegressionConfig(fit=QUICK)).fit(
        replace(context, signature=replace(signature, objective=PROBABILITY))
    )
    assert calibrated(fitted, context) is fitted


def test_two_heads_have_a_line_each(dataset):
    dice = np.random.default_rng(3)
    splits = {}
    for name in (TRAIN, VALID):
        rows = dataset[name]
        drawn = (dice.random(rows.rows) < 0.7).astype(np.int64)
        splits[name] = replace(rows, labels=rows.labels * (1 - drawn), targets=rows.targets | {"is_drawn": drawn})
    signature = replace(dataset.signature, objective=TAKEN_AND_LIKED)
    given_rows = replace(dataset, splits=splits, signature=signature)
    fitted = fit(LogisticRegression(LogisticRegressionConfig(fit=QUICK)), given_rows, seed=1)
    assert {
        f"calibration_{what}_{name}" for what in ("scale", "offset") for name in TAKEN_AND_LIKED.heads
    } <= fitted.params.keys()
    logits = fitted.scorer.predict(fitted.encoded.run(splits[VALID].features, signature), verbose=0)
    taken = splits[VALID].targets["is_drawn"] == 0
    assert expit(logits[:, 0]).mean() == pytest.approx(taken.mean(), abs=0.02)
    assert expit(logits[taken, 1]).mean() == pytest.approx(splits[VALID].labels[taken].mean(), abs=0.02)
