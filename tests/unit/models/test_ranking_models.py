"""The suite that every ranking model passes; `make test-zoo` runs the part that fits each model several times."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from feature_repo.contracts.on_demand import Computation
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, Scope
from models.dataset import TEST, TRAIN, VALID, Dataset
from models.errors import NotFiniteError, UnknownFeatureError
from models.evaluation.golden import golden_requests
from models.evaluation.metrics import auc, log_loss
from models.export import check_signatures, export, signature_differences, weights_sha256
from models.inputs import to_tensors
from models.ranking.base import KerasModel
from models.ranking.catalogue import RANKING_MODELS
from models.saved_model_loader import SavedModel, load_saved_model
from models.training.fit import fit
from models.training.keras_loop import FitConfig
from tests.awkward_paths import AWKWARD

_SHORT = FitConfig(batch_size=256, epochs=2, learning_rate=1e-2)
"""As long as a graph needs to have weights of its own."""
_FAST = FitConfig(batch_size=256, epochs=8, learning_rate=1e-2)
_LONG = FitConfig(batch_size=128, epochs=25, patience=25, learning_rate=2e-2)
_LINEAR = {"lr"}
_NAMES = sorted(RANKING_MODELS)
_OF_HISTORIES = {name for name in _NAMES if "history" in RANKING_MODELS[name].inputs}
_ONE_BY_ONE = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in _NAMES]
"""Where processes share the tests, a model's stay together, so that it is fitted once for all of them."""


def _model(name, quick=_FAST, **config):
    """Return a model; one that fits itself has nothing to say of epochs."""
    model_class = RANKING_MODELS[name]
    epochs = {"fit": quick} if issubclass(model_class, KerasModel) else {}
    return model_class(model_class.config_class(**epochs, **config))


def _fit(name, dataset, seed=1, quick=_FAST):
    return fit(_model(name, quick), dataset, seed)


def _dataset(name, request):
    """Return the rows that a model learns from: those with sequences, where it reads histories."""
    return request.getfixturevalue("sequences" if name in _OF_HISTORIES else "dataset")


@pytest.fixture(scope="module", params=_ONE_BY_ONE)
def fitted(request):
    return request.param, _fit(request.param, _dataset(request.param, request), quick=_SHORT)


@pytest.fixture(scope="module")
def rows(fitted, request):
    """What the model was fitted to."""
    return _dataset(fitted[0], request)


one_is_enough = pytest.mark.parametrize("fitted", ["lr"], indirect=True)


@pytest.fixture(scope="module")
def exported(fitted, rows, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / AWKWARD / "saved_model"
    export(fitted[1], rows.signature, directory)
    return SavedModel(directory), directory


@pytest.fixture(scope="module")
def one_user(exported):
    """The signature of a request for one user."""
    return load_saved_model(exported[1]).signatures[ONE_USER_SIGNATURE]


def test_config_survives_a_round_trip(fitted):
    config = _model(fitted[0]).config
    config_class = type(config)
    assert config_class.model_validate(json.loads(config.model_dump_json())) == config
    with pytest.raises(ValueError, match="extra"):
        config_class.model_validate({"no_such_field": 1})


@pytest.mark.zoo
@pytest.mark.parametrize("name", [name for name in _NAMES if issubclass(RANKING_MODELS[name], KerasModel)])
def test_a_loss_that_is_no_number_ends_training(name, request):
    dataset = _dataset(name, request)
    wild = _model(name, _SHORT.model_copy(update={"learning_rate": 1e30}))
    with pytest.raises(NotFiniteError, match=rf"model {name}: .* expected a number, received .*learning_rate"):
        fit(wild, dataset, 1)


@pytest.mark.zoo
def test_every_on_demand_feature_can_be_read(fitted, rows, caplog, monkeypatch):
    once = FitConfig(batch_size=512, epochs=1)
    model = _model(fitted[0], once, on_demand=tuple(Computation))
    monkeypatch.setattr("models.training.keras_loop._TOLD_EVERY_S", 0.0)
    with caplog.at_level("INFO", "models.training.fit"):
        everything = fit(model, rows, 1)
    assert set(Computation) <= set(everything.encoded.on_demand.values())
    if isinstance(model, KerasModel):
        batches = -(-rows[TRAIN].rows // once.batch_size)
        assert f"epoch 1: {batches} of {batches} batches" in caplog.text, "a long epoch tells of itself"
        assert "epoch 1 of at most 1: " in caplog.text
        assert "val_log_loss" in caplog.text
        assert everything.scorer.count_params() > fitted[1].scorer.count_params()
    fewer = fitted[1].encoded.reading((Computation.ELAPSED,))
    assert {"user_recency", "item_recency"} <= set(fewer.numeric)
    named = set(fitted[1].encoded.reading(("user_recency",)).numeric)
    assert named & {"user_recency", "item_recency"} == {"user_recency"}
    with pytest.raises(UnknownFeatureError, match=r"\['user_recncy'\]: expected computations"):
        fitted[1].encoded.reading(("user_recncy",))
    assert not {"request_hour", "request_season"} & (fewer.categorical.keys() | fewer.vocabularies.keys())


@pytest.mark.zoo
@pytest.mark.parametrize("name", _ONE_BY_ONE)
def test_the_loss_falls_and_something_is_learned(name, request, tmp_path):
    dataset = _dataset(name, request)
    fitted = _fit(name, dataset)
    history = fitted.history
    if "log_loss" in history:
        assert history["log_loss"][-1] < history["log_loss"][0]
    export(fitted, dataset.signature, tmp_path / "saved_model")
    saved_model = SavedModel(tmp_path / "saved_model")
    valid = dataset[VALID]
    known, learned = (
        log_loss(valid.labels, scores)
        for scores in (np.full(valid.rows, valid.labels.mean()), saved_model.predict(valid.features))
    )
    assert learned < known
    assert auc(dataset[TEST].labels, saved_model.predict(dataset[TEST].features)) > 0.7


@pytest.mark.zoo
def test_the_same_seed_gives_the_same_weights_and_another_does_not(fitted, rows):
    name, first = fitted
    assert weights_sha256(_fit(name, rows, quick=_SHORT).scorer) == weights_sha256(first.scorer)
    if isinstance(_model(name), KerasModel):
        assert weights_sha256(_fit(name, rows, seed=2, quick=_SHORT).scorer) != weights_sha256(first.scorer)


def _crossed(dataset: Dataset) -> Dataset:
    """Return the same rows, liked where one of two numbers is high and the other low: each says nothing alone."""
    dice = np.random.default_rng(5)
    splits = {}
    for name in (TRAIN, VALID):
        rows = dataset[name]
        high = [
            rows.features[count] > np.median(rows.features[count]) for count in ("user_event_count", "item_event_count")
        ]
        liked = np.where(dice.random(rows.rows) < 0.95, high[0] ^ high[1], dice.random(rows.rows) < 0.5)
        splits[name] = replace(rows, labels=liked.astype(np.int64))
    return replace(dataset, splits=splits)


@pytest.mark.zoo
@pytest.mark.parametrize("name", _ONE_BY_ONE)
def test_a_planted_interaction_is_learned_by_all_but_linear_models(name, request):
    crossed = _crossed(_dataset(name, request))
    model = _model(name, _LONG, **_without_chance(name))
    fitted = fit(model, crossed, 1)
    rows = crossed[VALID]
    logits = fitted.scorer.predict(fitted.encoded.run(rows.features, crossed.signature), verbose=0)[:, 0]
    found = auc(rows.labels, logits)
    assert found < 0.6 if name in _LINEAR else found > 0.75


def _without_chance(name):
    """Return the config that makes nothing unknown and forgets nothing: two thousand rows are few."""
    fields = RANKING_MODELS[name].config_class.model_fields
    return {
        given: value for given, value in {"unknown_rate": 0.0, "dropout": 0.0, "l2": 0.0}.items() if given in fields
    }


def test_export_keeps_the_scores(fitted, exported, rows):
    encoded = fitted[1].encoded.run(rows[TEST].features, rows.signature)
    logits = fitted[1].scorer.predict(encoded, verbose=0)[:, 0]
    offline = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(exported[0].predict(rows[TEST].features), offline, atol=1e-6)


def test_export_keeps_the_contract(exported, rows):
    check_signatures(exported[1], rows.signature)
    assert signature_differences(exported[1], rows.signature) == []
    names = [path.relative_to(exported[1]).as_posix() for path in exported[1].rglob("*")]
    assert all(name.isascii() for name in names)


@pytest.mark.zoo
def test_a_session_restores_every_variable_and_no_optimiser(fitted, exported, tmp_path):
    """TensorFlow Serving restores into a session: variables that are saved twice stay uninitialised there."""
    import tensorflow as tf

    plain = tmp_path / "saved_model"  # TensorFlow's own loader takes an awkward name for a pattern
    plain.symlink_to(exported[1])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(plain))
        handles = [operation for operation in graph.get_operations() if operation.type == "VarHandleOp"]
        uninitialised = [
            operation.name
            for operation in handles
            if not session.run(tf.raw_ops.VarIsInitializedOp(resource=operation.outputs[0]))
        ]
    assert uninitialised == []
    assert len(handles) == len(fitted[1].scorer.weights) + len(fitted[1].encoded.model.weights)


def test_a_batch_scores_as_its_rows_do(exported, rows):
    whole = exported[0].predict(rows[TEST].features)
    singles = [exported[0].predict(rows[TEST].take(np.array([row])).features)[0] for row in range(5)]
    np.testing.assert_allclose(singles, whole[:5], atol=1e-6)


def test_one_user_scores_as_the_rows_do(exported, one_user, rows):
    golden = golden_requests(exported[0], rows[TEST], rows.signature, rows=20, users=2, candidates=30, seed=1)
    requests = [request for request in golden["requests"] if request["signature_name"] == ONE_USER_SIGNATURE]
    assert len(requests) == 2
    for request in requests:
        arrays = {name: np.array(values) for name, values in request["inputs"].items()}
        assert all(len(arrays[column.name]) == 1 for column in rows.signature.scoped(Scope.USER))
        scores = one_user(**to_tensors(arrays, rows.signature))["score"].numpy()
        np.testing.assert_allclose(scores, request["score"], atol=1e-6)
        assert len(np.unique(scores)) > 1


@pytest.mark.parametrize("fitted", [each for each in _ONE_BY_ONE if each.values[0] in _OF_HISTORIES], indirect=True)
def test_histories_of_every_length_are_scored(exported, one_user, rows):
    items = rows[TEST].features["user_sequence_items"]
    users = {column.name for column in rows.signature.scoped(Scope.USER)}
    for length in (0, 1, items.shape[1]):
        (those,) = np.nonzero((items != "").sum(axis=1) == length)
        candidates = rows[TEST].take(np.arange(20)).features
        user = {name: rows[TEST].features[name][those[:1]] for name in users}
        asked = one_user(**to_tensors(candidates | user, rows.signature))["score"].numpy()
        repeated = candidates | {name: np.repeat(values, 20, axis=0) for name, values in user.items()}
        np.testing.assert_allclose(asked, exported[0].predict(repeated), atol=1e-6)
        assert len(np.unique(asked)) > 1


def test_unknown_ids_and_missing_values_are_scored(exported, rows):
    row = {name: values[:1].copy() for name, values in rows[TEST].features.items()}
    for column in rows.signature.input_columns:
        row[column.name] = np.full_like(row[column.name], column.missing)
    blank = exported[0].predict(row)
    row["item_id"][:] = "never seen"
    unknown = exported[0].predict(row)
    for name, values in row.items():
        if values.dtype == np.float32:
            row[name] = np.full_like(values, np.nan)
    broken = exported[0].predict(row)
    assert np.isfinite([blank, unknown, broken]).all()
    assert ((blank > 0) & (blank < 1)).all()
    np.testing.assert_allclose(broken, unknown, atol=1e-6)


def test_what_stands_for_unknown_is_trained(fitted):
    items = fitted[1].encoded.vocabulary_sizes["item"]
    tables = [
        layer
        for layer in fitted[1].scorer.layers
        if isinstance(layer, keras.layers.Embedding) and layer.name.startswith("item_") and layer.input_dim == items
    ]
    assert tables or not isinstance(_model(fitted[0]), KerasModel)
    for table in tables:
        unknown, missing = table.get_weights()[0][1], table.get_weights()[0][0]
        assert np.abs(unknown).max() > 0
        assert not np.allclose(unknown, missing)


@one_is_enough
def test_a_frame_is_scored_like_arrays(exported, rows):
    from models.training.job import example_frame

    frame = example_frame(rows[TEST], tuple(column.name for column in rows.signature.input_columns))
    np.testing.assert_allclose(exported[0].predict(frame), exported[0].predict(rows[TEST].features)[-3:], atol=1e-6)
    with pytest.raises(ValueError, match="item_id"):
        exported[0].predict(frame.drop(columns="item_id"))


@one_is_enough
def test_a_signature_that_differs_is_named(exported, rows):
    fewer = replace(rows.signature, inputs=rows.signature.inputs[1:])
    (stored, difference, *_) = signature_differences(exported[1], fewer)
    assert "kestrel_signature.json: expected the signature of the spec" in stored
    assert "item_id" in difference
    assert "expected None" in difference
