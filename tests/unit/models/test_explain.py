"""Contributions: they add up, are Shapley's where inputs act in pairs, and are 0 of what a model does not read."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import tensorflow as tf

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.objectives import PAIRWISE, PROBABILITY
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.signatures import EXPLAIN_SIGNATURE, ROWS_SIGNATURE, SCORE, ModelInput, Scope, Signature
from models.dataset import TEST
from models.encoding import build_encoder
from models.explain import explain
from models.export import export, signature_differences
from models.inputs import tensor_specs, to_tensors
from models.ranking.deepfm import DeepFM
from models.saved_model_loader import SavedModel
from models.training.fit import Fitted
from serving.model_server.inference import predict
from serving.model_server.servable import Loading, Servable, session_options
from serving.rollout.saved_models import check_signatures

NUMBERS = ("a", "b", "c", "d")
COLUMNS = (
    *(Column(name, Dtype.FLOAT32, "a number", missing=-1.0) for name in NUMBERS),
    Column("town", Dtype.STRING, "a term", length=2, missing=""),
    REQUEST_TIME,
)
ROWS = {
    "a": np.array([0.5, 0.1], np.float32),
    "b": np.array([2.0, -1.0], np.float32),
    "c": np.array([1.0, 3.0], np.float32),
    "d": np.array([0.3, 0.7], np.float32),
    "town": np.array([["x", ""], ["", ""]], object),
    REQUEST_TIME.name: np.array([100, 200]),
}


def _signature(objective):
    return Signature("ranking", tuple(ModelInput(column, Scope.ITEM) for column in COLUMNS), SCORE, objective)


def _logit(rows, *, of_three):
    """Return a logit of main effects and pairs, and of three inputs at once if asked for."""
    a, b, c, d = (tf.cast(rows[name], tf.float32) for name in NUMBERS)
    known = tf.cast(tf.reduce_any(tf.not_equal(rows["town"], ""), axis=1), tf.float32)
    hour = tf.cast(rows[REQUEST_TIME.name], tf.float32) / 100
    return 0.4 * a - b * c + 0.5 * c + known * a + hour * b + (a * b * d if of_three else 0.0)


def _explained(objective, *, of_three=False):
    signature = _signature(objective)

    def score(**columns):
        logit = _logit(columns, of_three=of_three)
        return {"score": tf.sigmoid(logit) if objective.probability else logit}

    traced = tf.function(score).get_concrete_function(**tensor_specs(signature, ROWS_SIGNATURE))
    found = explain(traced, signature)(**to_tensors(ROWS, signature))
    return {name: values.numpy() for name, values in found.items()}


def _shapley(*, of_three):
    """Return the Shapley values by their definition: all subsets, one after the other."""
    names = [column.name for column in COLUMNS if column.name != REQUEST_TIME.name]
    blank = {column.name: column.missing for column in COLUMNS}

    def value(there):
        rows = {
            name: values if name in there or name == REQUEST_TIME.name else np.full_like(values, blank[name])
            for name, values in ROWS.items()
        }
        return _logit(to_tensors(rows, _signature(PAIRWISE)), of_three=of_three).numpy().astype(float)

    count = len(names)
    found = []
    for name in names:
        others = [each for each in names if each != name]
        found.append(
            sum(
                factorial(size)
                * factorial(count - size - 1)
                / factorial(count)
                * (value({*chosen, name}) - value(set(chosen)))
                for size in range(count)
                for chosen in combinations(others, size)
            )
        )
    return np.array(found).T


@pytest.mark.parametrize("objective", [PROBABILITY, PAIRWISE])
def test_contributions_are_shapleys_where_inputs_act_alone_or_in_pairs(objective):
    found = _explained(objective)
    np.testing.assert_allclose(found["contributions"][:, :-1], _shapley(of_three=False), atol=2e-4)
    assert found["contributions"][:, -1].tolist() == [0.0, 0.0], "the request's time stays"


@pytest.mark.parametrize("of_three", [False, True])
def test_they_add_up_to_the_difference_from_a_row_without_inputs(of_three):
    found = _explained(PAIRWISE, of_three=of_three)
    whole = _logit(to_tensors(ROWS, _signature(PAIRWISE)), of_three=of_three)
    np.testing.assert_allclose(found["baseline"] + found["contributions"].sum(axis=1), whole, atol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 142, 143, 900])
def test_many_rows_take_turns_and_none_are_no_error(rows):
    """Seven steps either way: 142 rows at a time."""
    signature = _signature(PAIRWISE)
    drawn = np.random.default_rng(3).integers(0, 2, rows)
    given = to_tensors({name: values[drawn] for name, values in ROWS.items()}, signature)

    def score(**columns):
        with tf.control_dependencies([tf.debugging.assert_less_equal(tf.shape(columns["a"])[0], 2000)]):
            return {"score": tf.identity(_logit(columns, of_three=True))}

    found = explain(score, signature)(**given)
    expected = _explained(PAIRWISE, of_three=True)
    assert found["contributions"].shape == (rows, len(COLUMNS))
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name][drawn], atol=1e-5)


def test_every_export_explains_its_own_scores_and_is_served_and_rolled_out_so(dataset, tmp_path):
    encoded = build_encoder(dataset.signature, dataset.transforms)
    model = DeepFM(DeepFM.config_class(hidden=(8,), embedding_size=4))
    directory = tmp_path / "saved_model"
    export(Fitted(encoded, model.build(encoded, 3)), dataset.signature, directory)
    assert signature_differences(directory, dataset.signature) == []
    rows = dataset[TEST].take(np.arange(5)).features
    saved_model = SavedModel(directory)
    found = saved_model.signature(EXPLAIN_SIGNATURE)(**to_tensors(rows, dataset.signature))
    score = saved_model.predict(rows)
    contributions = found["contributions"].numpy()
    assert contributions.shape == (5, len(dataset.signature.inputs))
    logits = found["baseline"].numpy() + contributions.sum(axis=1)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), score, atol=1e-5)
    assert np.abs(contributions).max() > 1e-4
    check_signatures(directory, dataset.signature)
    servable = Servable("toy.ranking", 1, directory, Loading(session_options(1, 1)))
    try:
        served = predict(servable, EXPLAIN_SIGNATURE, {name: rows[name] for name in saved_model.specs})
    finally:
        servable.close()
    np.testing.assert_allclose(served["contributions"], contributions, atol=1e-5)
    np.testing.assert_allclose(served["baseline"], found["baseline"], atol=1e-5)
