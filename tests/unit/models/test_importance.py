"""Permutation importance and the cost of an export, of a SavedModel whose formula is known."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.objectives import PAIRWISE, PROBABILITY
from feature_repo.contracts.signatures import (
    ONE_USER_SIGNATURE,
    ROWS_SIGNATURE,
    SCORE,
    ModelInput,
    Scope,
    Signature,
)
from models.dataset import Split
from models.evaluation import export_cost as export_cost_module
from models.evaluation.export_cost import CANDIDATES, export_cost
from models.evaluation.importance import permutation_importance
from models.evaluation.metrics import auc
from models.evaluation.plots import importance_figure
from models.inputs import tensor_specs
from models.saved_model_loader import SavedModel

SCOPES = {"strong": Scope.ITEM, "weak": Scope.ITEM, "unread": Scope.ITEM, "user_level": Scope.USER}
ROWS = 1500


def _signature(objective=PROBABILITY):
    inputs = (
        ModelInput(Column(name, Dtype.FLOAT32, "a number", missing=-9.0), scope) for name, scope in SCOPES.items()
    )
    return Signature("ranking", tuple(inputs), SCORE, objective)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    def score(strong, weak, unread, user_level):
        return {"score": tf.sigmoid(2.0 * strong + 0.5 * weak + user_level + 0.0 * unread)}

    directory = tmp_path_factory.mktemp("known") / "saved_model"
    functions = {
        name: tf.function(score).get_concrete_function(**tensor_specs(_signature(), name))
        for name in (ROWS_SIGNATURE, ONE_USER_SIGNATURE)
    }
    tf.saved_model.save(tf.Module(), str(directory), signatures=functions)
    return directory


@pytest.fixture(scope="module")
def test_rows():
    random = np.random.default_rng(8)
    features = {name: random.normal(size=ROWS).astype(np.float32) for name in SCOPES}
    users = random.integers(0, 40, ROWS)
    features["user_level"] = random.normal(size=40).astype(np.float32)[users]
    logit = 2 * features["strong"] + 0.5 * features["weak"] + features["user_level"]
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return Split("test", features, labels, np.ones(ROWS, np.float32), users, {})


def _importance(saved, split, objective=PROBABILITY, **options):
    given = {"rows": 10_000, "repeats": 3, "seed": 4} | options
    return permutation_importance(SavedModel(saved), split, _signature(objective), **given)


def test_what_is_read_more_costs_more_and_what_is_not_read_costs_nothing(saved, test_rows):
    found = _importance(saved, test_rows)
    drops = {each["feature"]: each["drop"] for each in found["features"]}
    assert list(drops) == ["strong", "user_level", "weak", "unread"]
    assert drops["strong"] > 3 * drops["weak"] > 0
    assert drops["unread"] == 0.0
    scores = SavedModel(saved).predict(test_rows.features)
    assert found["figure"] == pytest.approx(auc(test_rows.labels, scores))
    assert (found["metric"], found["rows"], found["repeats"]) == ("auc", ROWS, 3)


def test_a_drop_is_that_of_a_column_that_somebody_else_permutes(saved, test_rows):
    random = np.random.default_rng(99)
    features = test_rows.features | {"strong": random.permutation(test_rows.features["strong"])}
    model = SavedModel(saved)
    expected = auc(test_rows.labels, model.predict(test_rows.features)) - auc(test_rows.labels, model.predict(features))
    (strong, *_) = _importance(saved, test_rows)["features"]
    assert strong["drop"] == pytest.approx(expected, abs=0.03)


def test_where_a_users_rows_alone_are_compared_what_is_the_users_own_hardly_counts(saved, test_rows):
    found = _importance(saved, test_rows, PAIRWISE)
    assert found["metric"] == "gauc"
    drops = {each["feature"]: each["drop"] for each in found["features"]}
    assert drops["strong"] > 0.15
    by_auc = {each["feature"]: each["drop"] for each in _importance(saved, test_rows)["features"]}
    assert drops["user_level"] < by_auc["user_level"] + 0.05


def test_the_same_seed_gives_the_same_and_few_rows_are_drawn(saved, test_rows):
    assert _importance(saved, test_rows, rows=200) == _importance(saved, test_rows, rows=200)
    assert _importance(saved, test_rows, rows=200)["rows"] == 200
    assert _importance(saved, test_rows, rows=200) != _importance(saved, test_rows, rows=200, seed=5)


def test_gauc_is_of_users_with_all_their_rows_however_few_are_drawn(saved, test_rows):
    """A user has two rows, one of each class: of rows that were drawn one by one, hardly two would be of one user."""
    pairs = test_rows.take(np.argsort(test_rows.labels, kind="stable")[-2 * (ROWS // 5) :])
    order = np.arange(pairs.rows)
    labels = (order % 2).astype(np.int64)
    features = pairs.features | {"strong": np.where(labels == 1, 1.0, -1.0).astype(np.float32)}
    users = np.random.default_rng(2).permutation(pairs.rows // 2).repeat(2)
    split = replace(pairs, labels=labels, users=users, features=features)
    found = _importance(saved, split, PAIRWISE, rows=20)
    assert (found["rows"], found["features"][0]["feature"]) == (20, "strong")


@pytest.mark.parametrize("objective", [PROBABILITY, PAIRWISE])
def test_rows_of_one_class_have_no_importance_and_a_picture_all_the_same(saved, test_rows, objective):
    found = _importance(saved, replace(test_rows, labels=np.ones(ROWS, np.int64)), objective)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["figure"] is None
    assert {each["drop"] for each in found["features"]} == {None}
    plt.close(importance_figure(found))


def test_what_others_do_to_the_machine_costs_the_model_nothing(saved, test_rows, monkeypatch):
    ticks = count()
    monkeypatch.setattr(export_cost_module.time, "perf_counter", lambda: next(ticks) * 1.0)  # a second for each look
    cost = export_cost(saved, SavedModel(saved), test_rows, _signature(), seed=1)
    assert cost["p50_ms"] < 500


def test_the_cost_is_of_all_files_and_of_as_many_candidates_as_are_ranked(saved, test_rows):
    cost = export_cost(saved, SavedModel(saved), test_rows, _signature(), seed=1)
    assert cost["bytes"] == sum(path.stat().st_size for path in saved.glob("**/*") if path.is_file())
    assert cost["candidates"] == CANDIDATES
    assert 0 < cost["p50_ms"] <= cost["p99_ms"]
