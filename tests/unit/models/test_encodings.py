"""Every encoding from raw columns through an exported SavedModel, against formulas written out in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding
from feature_repo.contracts.publishing import write_json
from feature_repo.contracts.signatures import ModelInput, Scope, Signature
from tests.movielens import RANKING


def _number(name: str, encoding: Encoding, curve: Curve = Curve.LINEAR, **options: Any) -> Column:
    return Column(name, Dtype.FLOAT32, "", missing=-1.0, encoding=encoding, curve=curve, **options)


def _term(name: str, encoding: Encoding, **options: Any) -> Column:
    return Column(name, Dtype.STRING, "", missing="", encoding=encoding, **options)


COLUMNS = (
    _term("term", Encoding.VOCABULARY, vocabulary="plain"),
    _term("bucketed", Encoding.VOCABULARY, vocabulary="bucketed", buckets=3),
    _term("hashed", Encoding.HASHED, buckets=5),
    _term("one_hot", Encoding.ONE_HOT, vocabulary="one_hot"),
    _term("multi_hot", Encoding.MULTI_HOT, vocabulary="multi_hot", length=3),
    *(_number(f"standard_{curve.value}", Encoding.STANDARD, curve) for curve in Curve),
    _number("min_max", Encoding.MIN_MAX),
    _number("robust", Encoding.ROBUST, Curve.LOG),
    _number("quantiles", Encoding.QUANTILES, Curve.SQRT, buckets=4),
    _number("constant", Encoding.STANDARD),
    _number("constant_min_max", Encoding.MIN_MAX),
    _number("constant_robust", Encoding.ROBUST),
    _number("constant_quantiles", Encoding.QUANTILES, buckets=4),
    _number("absent", Encoding.ROBUST),
    *(_number(f"norm_{order}", Encoding.NORM, length=3, norm=float(order)) for order in (1, 2, "inf")),
)
TRAIN_ROWS = 400


def _train() -> dict[str, list[Any]]:
    random = np.random.default_rng(3)
    terms = random.choice(["", "a", "b", "c", "d"], TRAIN_ROWS)
    lists = [[*random.choice(["a", "b", "c"], 2), ""] for _ in range(TRAIN_ROWS)]
    numbers = random.gamma(2.0, 2.0, TRAIN_ROWS).astype(np.float32)
    numbers[::7] = -1.0
    drawn: dict[str, list[Any]] = {}
    for column in COLUMNS:
        if column.dtype is Dtype.STRING:
            drawn[column.name] = lists if column.length else list(terms)
        elif column.length:
            drawn[column.name] = random.normal(0, 3, (TRAIN_ROWS, 3)).astype(np.float32).tolist()
        else:
            drawn[column.name] = list(numbers)
    for name in (column.name for column in COLUMNS if column.name.startswith("constant")):
        drawn[name] = [4.0] * TRAIN_ROWS
    drawn["absent"] = [-1.0] * TRAIN_ROWS
    return drawn


NUMBERS = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 9.0, 50.0, -1.0, np.nan, np.inf], np.float32)
TERMS = np.array(["a", "b", "c", "d", "", "never seen", "é", "x", "y", "z"], object)
LISTS = np.array([["a", "", ""], ["b", "a", "a"], ["", "", ""], ["?", "c", ""], ["?", "!", "a"]] * 2, object)
VECTORS = np.array([[3, -4, 0], [0, 0, 0], [-1, -1, -1], [1e20, 1e20, 0], [np.nan, 2, 0]] * 2, np.float32)


def _requests() -> dict[str, Any]:
    """Return rows with known, unknown, missing, wild and broken values for every column."""
    rows = {}
    for column in COLUMNS:
        text = column.dtype is Dtype.STRING
        rows[column.name] = (LISTS if text else VECTORS) if column.length else (TERMS if text else NUMBERS)
    return rows


@dataclass(frozen=True)
class Export:
    """What was fitted, and the two functions that the SavedModel has."""

    fitted: dict[str, Any]
    train: dict[str, list[Any]]
    encoded: dict[str, Any]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    import keras
    import tensorflow as tf

    from models.encoding import build_encoder
    from models.transforms import read_transforms
    from pipelines.io.arrow import arrow_type
    from pipelines.io.spark import session_at_hand
    from pipelines.settings import Settings
    from pipelines.training.transforms import fit_transforms

    folder = tmp_path_factory.mktemp("encodings")
    train = _train()
    pq.write_table(
        pa.table({column.name: pa.array(train[column.name], arrow_type(column)) for column in COLUMNS}),
        folder / "train",
    )
    with session_at_hand(Settings(state=folder), "encodings") as spark:
        fitted = fit_transforms(spark, folder / "train", COLUMNS)
    write_json(folder / "transforms.json", fitted)
    signature = Signature(
        "encodings",
        tuple(ModelInput(column, Scope.ITEM) for column in COLUMNS),
        RANKING.output,
        RANKING.objective,
    )
    encoder = build_encoder(signature, read_transforms(folder / "transforms.json", signature, 3.5))
    archive = keras.export.ExportArchive()
    archive.track(encoder.model)
    dtypes = {Dtype.STRING: tf.string, Dtype.FLOAT32: tf.float32}
    specs = {
        column.name: tf.TensorSpec(
            (None, column.length) if column.length else (None,), dtypes[column.dtype], column.name
        )
        for column in COLUMNS
    }
    archive.add_endpoint("encode", lambda inputs: encoder.model(inputs, training=False), input_signature=[specs])
    archive.write_out(str(folder / "saved_model"), verbose=False)
    served = tf.saved_model.load(str(folder / "saved_model"))
    tensors = {column.name: tf.constant(_requests()[column.name], dtypes[column.dtype]) for column in COLUMNS}
    return Export(fitted, train, {name: value.numpy() for name, value in served.encode(tensors).items()})


def _of_train(export: Export, name: str) -> np.ndarray:
    values = np.array(export.train[name], np.float64)
    return values[values != -1.0]


def test_terms_are_looked_up(export: Export) -> None:
    vocabulary = export.fitted["vocabularies"]["plain"]
    expected = [2 + vocabulary.index(term) for term in "abcd"]
    assert export.encoded["term"].tolist() == [*expected, 0, 1, 1, 1, 1, 1]


def test_unknown_terms_share_buckets(export: Export) -> None:
    vocabulary = export.fitted["vocabularies"]["bucketed"]
    received = export.encoded["bucketed"].tolist()
    assert received[:5] == [*(2 + vocabulary.index(term) for term in "abcd"), 0]
    assert set(received[5:]) <= {1, 6, 7}
    assert len(set(received[5:])) > 1


def test_hashed_terms_need_no_vocabulary(export: Export) -> None:
    import tensorflow as tf

    expected = tf.strings.to_hash_bucket_fast(TERMS.tolist(), 5).numpy() + 2
    expected[4] = 0
    assert export.encoded["hashed"].tolist() == expected.tolist()


def test_one_hot_and_multi_hot(export: Export) -> None:
    """Place 0 is unknown, terms follow in the vocabulary's order."""
    place = {term: 1 + number for number, term in enumerate(export.fitted["vocabularies"]["one_hot"])}
    expected = np.zeros((len(TERMS), 5))
    for row, term in enumerate(TERMS):
        if term:
            expected[row, place.get(term, 0)] = 1
    np.testing.assert_array_equal(export.encoded["one_hot"], expected)
    place = {term: 1 + number for number, term in enumerate(export.fitted["vocabularies"]["multi_hot"])}
    expected = np.zeros((len(LISTS), 4))
    for row, terms in enumerate(LISTS):
        for term in filter(None, terms):
            expected[row, place.get(term, 0)] = 1
    np.testing.assert_array_equal(export.encoded["multi_hot"], expected)


CURVES = {Curve.LINEAR: lambda x: x, Curve.LOG: np.log1p, Curve.SQRT: np.sqrt, Curve.SQUARE: np.square}


@pytest.mark.parametrize("curve", list(Curve))
def test_standard_scores(export: Export, curve: Curve) -> None:
    train = CURVES[curve](_of_train(export, f"standard_{curve.value}"))
    expected = np.clip((CURVES[curve](NUMBERS[:7]) - train.mean()) / train.std(), -8, 8)
    np.testing.assert_allclose(export.encoded[f"standard_{curve.value}"][:7, 0], expected, rtol=2e-5, atol=1e-6)


def test_min_max_is_cut_to_what_train_rows_had(export: Export) -> None:
    train = _of_train(export, "min_max")
    expected = np.clip((NUMBERS[:7] - train.min()) / (train.max() - train.min()), 0, 1)
    np.testing.assert_allclose(export.encoded["min_max"][:7, 0], expected, rtol=1e-5, atol=1e-6)


def test_robust_scores(export: Export) -> None:
    train = np.log1p(_of_train(export, "robust"))
    low, median, high = np.percentile(train, (25, 50, 75))
    expected = (np.log1p(NUMBERS[:7]) - median) / (high - low)
    np.testing.assert_allclose(export.encoded["robust"][:7, 0], expected, rtol=1e-5, atol=1e-6)


def test_quantile_buckets_hold_equally_many(export: Export) -> None:
    train = np.sqrt(_of_train(export, "quantiles"))
    boundaries = np.quantile(train, (0.25, 0.5, 0.75)).astype(np.float32)
    expected = [2 + int((boundaries <= np.sqrt(number)).sum()) for number in NUMBERS[:7]]
    assert export.encoded["quantiles"].tolist() == [*expected, 0, 0, 0]
    held = np.bincount(np.searchsorted(boundaries, train.astype(np.float32), side="right"))
    assert held.max() - held.min() <= 1


@pytest.mark.parametrize("order", [1, 2, "inf"])
def test_vectors_have_length_one(export: Export, order: float) -> None:
    known = np.where(np.isfinite(VECTORS) & (VECTORS != -1), VECTORS, 0).astype(np.float64)
    norms = np.linalg.norm(known, ord=float(order), axis=1, keepdims=True)
    expected = known / np.where(norms > 0, norms, 1)
    np.testing.assert_allclose(export.encoded[f"norm_{order}"], expected, rtol=1e-5)


def test_missing_and_broken_numbers_are_zero_and_flagged(export: Export) -> None:
    for column in COLUMNS:
        received = export.encoded[column.name]
        if column.encoding in {Encoding.STANDARD, Encoding.MIN_MAX, Encoding.ROBUST}:
            assert received[7:].tolist() == [[0, 0]] * 3, column.name
            assert received[:7, 1].tolist() == [1] * 7, column.name
        assert np.isfinite(received).all(), column.name


def test_constant_and_absent_columns_are_finite_and_about_zero(export: Export) -> None:
    place = NUMBERS.tolist().index(4.0)
    for name in ("constant", "constant_min_max", "constant_robust"):
        assert export.encoded[name][place].tolist() == [0, 1], name
    assert set(export.encoded["constant_quantiles"][:7]) == {2, 3}
    assert np.abs(export.encoded["absent"]).max() <= 8


def test_what_exists_at_request_time_is_the_same_for_one_user_and_by_rows(dataset: Any) -> None:
    """The encoder takes one row of the user for many items, and gives what it gives for the user repeated."""
    from models.dataset import TEST
    from models.encoding import build_encoder
    from models.inputs import to_tensors

    encoder = build_encoder(dataset.signature, dataset.transforms)
    rows = dataset[TEST].take(np.arange(12)).features
    users = {column.name for column in RANKING.scoped(Scope.USER)}
    alone = {name: values[:1] if name in users else values for name, values in rows.items()}
    repeated = {name: np.repeat(values[:1], 12, axis=0) if name in users else values for name, values in rows.items()}
    by_user, by_rows = (
        {name: value.numpy() for name, value in encoder.model(to_tensors(columns, RANKING), training=False).items()}
        for columns in (alone, repeated)
    )
    for feature in RANKING.on_demand:
        rows_of = 1 if encoder.scopes[feature.name] is Scope.USER else 12
        assert len(by_user[feature.name]) == rows_of, feature.name
        expected = by_rows[feature.name]
        np.testing.assert_allclose(np.repeat(by_user[feature.name], 12 // rows_of, axis=0), expected, atol=1e-6)
    moment = datetime.fromtimestamp(int(rows["request_time"][0]), UTC)
    assert by_user["request_hour"].tolist() == [moment.hour + 2]
    assert by_user["request_weekday"].tolist() == [moment.weekday() + 2]
