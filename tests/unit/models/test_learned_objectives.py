"""Every objective from the fit to what is served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, ranking, read_signature
from models.dataset import TEST
from models.evaluation.golden import golden_requests
from models.evaluation.metrics import auc, gauc, of_scores
from models.export import export, weights_sha256
from models.ranking.catalogue import RANKING_MODELS
from models.saved_model_loader import SavedModel
from models.training.batches import GroupBatches
from models.training.fit import fit
from tests.movielens import MOVIELENS
from tests.saved_model_session import answers
from tests.small_models import SHORT

LR = RANKING_MODELS["lr"]
QUICK = LR.config_class(fit=SHORT.model_copy(update={"epochs": 5, "batch_size": 256, "learning_rate": 3e-2}))
FEW = ("user_event_count", "user_value_mean", "item_event_count", "item_value_mean", "user_top_genres")
"""Features enough for the toy's labels: a small graph is traced and restored soon."""


def _for(dataset, name):
    """Return the data set for an objective; one with two heads has rows that were drawn, and so not taken."""
    splits = dataset.splits
    if OBJECTIVES[name].heads:
        splits = {each: _with_drawn(split) for each, split in splits.items()}
    return replace(dataset, signature=ranking(MOVIELENS, FEW, OBJECTIVES[name]), splits=splits)


def _with_drawn(split):
    """Return the rows of which those of few events were not taken."""
    few = split.features["item_event_count"] < 60
    targets = split.targets | {"is_drawn": few.astype(np.int64)}
    return replace(split, labels=np.where(few, 0, split.labels), targets=targets)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_fitted_is_what_both_signatures_serve(name, dataset, tmp_path):
    some = _for(dataset, name)
    fitted = fit(LR(QUICK), some, seed=1)
    export(fitted, some.signature, tmp_path)
    assert read_signature(tmp_path).objective == OBJECTIVES[name]
    saved_model, test = SavedModel(tmp_path), some[TEST]
    served = saved_model.predict(test.features)
    assert auc(test.labels, served) > 0.7
    assert np.isfinite(served).all()
    assert (not OBJECTIVES[name].probability) or ((served > 0) & (served < 1)).all()
    assert set(of_scores(test, served, OBJECTIVES[name].metrics, 10)) >= set(OBJECTIVES[name].metrics)
    golden = golden_requests(saved_model, test, some.signature, rows=9, users=2, candidates=30, seed=1)
    asked = list(answers(tmp_path, golden["requests"]))
    assert {request["signature_name"] for request, _ in asked} == {ROWS_SIGNATURE, ONE_USER_SIGNATURE}
    for request, scores in asked:
        np.testing.assert_allclose(scores, request["score"], rtol=1e-5, atol=1e-6)
    if OBJECTIVES[name].grouped:
        assert weights_sha256(fit(LR(QUICK), some, seed=1).scorer) == weights_sha256(fitted.scorer)


def test_served_watch_time_is_on_average_what_is_watched(dataset, tmp_path):
    some = _for(dataset, "watch_time")
    seconds = {
        name: replace(split, targets=split.targets | {"value": np.where(split.labels == 1, 40.0, 0.0)})
        for name, split in some.splits.items()
    }
    some = replace(some, splits=seconds)
    export(fit(LR(QUICK), some, seed=1), some.signature, tmp_path)
    served, labels = SavedModel(tmp_path).predict(some["train"].features), some["train"].labels
    likely = labels.mean() / (1 - labels.mean())
    assert np.median(served) == pytest.approx(40 * likely, rel=0.5), "odds times seconds: e^(w.x+b)"
    assert served.max() > 60, "no probability"


def test_predicted_values_are_nearer_than_the_mean(dataset, tmp_path):
    some = _for(dataset, "regression")
    export(fit(LR(QUICK), some, seed=1), some.signature, tmp_path)
    served, values = SavedModel(tmp_path).predict(some[TEST].features), some[TEST].targets["value"]
    assert np.mean((served - values) ** 2) < 0.8 * np.var(values)


@pytest.mark.parametrize("name", ["pairwise", "listwise"])
def test_order_is_learned_within_groups_alone(name, dataset, tmp_path):
    """A group's level is worth nothing: with labels that follow the level, and not the item, nothing is learned."""
    some = _for(dataset, name)
    export(fit(LR(QUICK), some, seed=1), some.signature, tmp_path)
    served = SavedModel(tmp_path).predict(some[TEST].features)
    assert gauc(some[TEST].labels, served, some[TEST].users) > 0.65


def test_batches_part_no_group_and_lose_no_row():
    random = np.random.default_rng(5)
    groups = random.integers(0, 90, 1000) * 7
    rows = np.arange(1000)
    targets, weights = rows[:, None].astype(np.float32), np.ones(1000, np.float32)
    batches = GroupBatches({"row": rows}, targets, weights, groups, 64, seed=1)
    seen = [batches[number] for number in range(len(batches))]
    own = [set(groups[inputs["row"]]) for inputs, _, _ in seen]
    assert sorted(np.concatenate([inputs["row"] for inputs, _, _ in seen])) == rows.tolist()
    assert sum(map(len, own)) == len(set(groups)), "no group in two batches"
    assert max(len(weights) for _, _, weights in seen) < 64 + np.bincount(groups).max()
    assert all((inputs["row"] == targets[:, 0]).all() for inputs, targets, _ in seen)


def test_one_large_group_is_one_batch():
    batches = GroupBatches({"row": np.arange(50)}, np.zeros((50, 2)), np.ones(50), np.zeros(50, np.int64), 8, seed=1)
    assert [len(batches[number][2]) for number in range(len(batches))] == [50]
