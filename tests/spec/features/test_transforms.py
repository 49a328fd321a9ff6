"""Encodings are fitted as NumPy and scikit-learn fit them, whatever the values and however the rows are parted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding
from feature_repo.contracts.manifests import TRANSFORMS_VERSION
from pipelines.training.transforms import fit_transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

WORDS = Column("words", Dtype.STRING, "", length=2, missing="", encoding=Encoding.VOCABULARY, vocabulary="word")
WORD = Column("word", Dtype.STRING, "", missing="", encoding=Encoding.VOCABULARY, vocabulary="word")
COUNT = Column("count", Dtype.INT64, "", missing=0, encoding=Encoding.STANDARD, curve=Curve.LOG)
BUCKETS = 7
CURVES: dict[Curve, Callable[[np.ndarray], np.ndarray]] = {
    Curve.LINEAR: np.copy,
    Curve.LOG: lambda numbers: np.log1p(np.maximum(numbers, 0)),
    Curve.SQRT: lambda numbers: np.maximum(numbers, 0) ** 0.5,
    Curve.SQUARE: lambda numbers: numbers * numbers,
}


def number(name: str, encoding: Encoding, curve: Curve = Curve.LINEAR) -> Column:
    buckets = BUCKETS if encoding is Encoding.QUANTILES else 0
    return Column(name, Dtype.FLOAT32, "", missing=-1.0, encoding=encoding, curve=curve, buckets=buckets)


def fit(spark: SparkSession, folder: Path, table: pa.Table, columns: Sequence[Column]) -> dict[str, Any]:
    train = folder / ".made.part" / "train.parquet"  # as it lies while a training set is built
    train.parent.mkdir(exist_ok=True)
    pq.write_table(table, train, row_group_size=50)
    return fit_transforms(spark, train, columns)


def oracle(values: np.ndarray) -> dict[Encoding, dict[str, Any]]:
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    rows = values.reshape(-1, 1)
    standard, low_high, robust = StandardScaler().fit(rows), MinMaxScaler().fit(rows), RobustScaler().fit(rows)
    return {
        Encoding.STANDARD: {"mean": standard.mean_[0], "std": standard.scale_[0]},
        Encoding.MIN_MAX: {"min": low_high.data_min_[0], "max": low_high.data_max_[0]},
        Encoding.ROBUST: {"median": robust.center_[0], "iqr": robust.scale_[0]},
        Encoding.QUANTILES: {"boundaries": list(np.quantile(values, np.arange(1, BUCKETS) / BUCKETS))},
    }


def words_of(count: int, seed: int) -> pa.Table:
    dice = np.random.default_rng(seed)
    words = np.array(["é", "a", "b", "ab", "", "z"])
    return pa.table(
        {
            "words": pa.array(words[dice.integers(0, 6, (count, 2))].tolist(), pa.list_(pa.string())),
            "word": pa.array(words[dice.integers(0, 6, count)].tolist(), pa.string()),
            "count": pa.array(dice.integers(0, 9, count), pa.int64()),
        }
    )


def test_a_training_set_s_columns_are_fitted_as_the_contract_says(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table(
        {
            "words": [["b", "a"], ["b", ""], ["c", "é"]],
            "word": ["c", "", "b"],
            "count": pa.array([0, 1, 3], pa.int64()),
            "mean": pa.array([-1.0, 2.0, 4.0], pa.float32()),
        }
    )
    logs = np.log1p([1.0, 3.0])
    assert fit(spark, tmp_path, table, [WORDS, WORD, COUNT, number("mean", Encoding.STANDARD)]) == {
        "version": TRANSFORMS_VERSION,
        "vocabularies": {"word": ["b", "c", "a", "é"]},
        "columns": {
            "words": {"encoding": "vocabulary", "vocabulary": "word"},
            "word": {"encoding": "vocabulary", "vocabulary": "word"},
            "count": {
                "encoding": "standard",
                "curve": "log",
                "mean": pytest.approx(logs.mean(), rel=1e-14),
                "std": pytest.approx(logs.std(), rel=1e-14),
            },
            "mean": {"encoding": "standard", "mean": 3.0, "std": 1.0},
        },
    }


def test_terms_stand_in_falling_frequency_with_ties_by_name(spark: SparkSession, tmp_path: Path) -> None:
    table = words_of(400, 3)
    counted = Counter([*table["word"].to_pylist(), *(word for pair in table["words"].to_pylist() for word in pair)])
    del counted[""]
    expected = sorted(counted, key=lambda term: (-counted[term], term))
    assert fit(spark, tmp_path, table, [WORDS, WORD])["vocabularies"] == {"word": expected}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e12])
def test_numbers_are_fitted_as_scikit_learn_fits_them(spark: SparkSession, tmp_path: Path, scale: float) -> None:
    """Every encoding after every curve in one go, with missing, infinite and undefined values between the others."""
    values = (np.random.default_rng(5).gamma(2.0, 3.0, 999) * scale).astype(np.float32)
    gapped = np.insert(values, [0, 10, 500, 600], np.array([-1.0, np.inf, np.nan, -np.inf], np.float32))
    columns = [
        number(f"{encoding}_{curve}", encoding, curve)
        for encoding in (Encoding.STANDARD, Encoding.MIN_MAX, Encoding.ROBUST, Encoding.QUANTILES)
        for curve in Curve
    ]
    table = pa.table({column.name: pa.array(gapped) for column in columns})
    fitted = fit(spark, tmp_path, table, columns)["columns"]
    for column in columns:
        expected = oracle(CURVES[column.curve](values.astype(np.float64)))[column.encoding]
        found = {name: fitted[column.name][name] for name in expected}
        # Boundaries are float32; NumPy and Java agree on logarithms to the last digit but one.
        tolerance = 1e-6 if column.encoding is Encoding.QUANTILES else 1e-9
        for name, figure in expected.items():
            assert found[name] == pytest.approx(figure, rel=tolerance, abs=0), (column.name, name)


@pytest.mark.parametrize(
    ("encoding", "values", "fitted"),
    [
        (Encoding.STANDARD, [], {"mean": 0.0, "std": 1.0}),
        (Encoding.STANDARD, [-1.0], {"mean": 0.0, "std": 1.0}),
        (Encoding.STANDARD, [2.0, 2.0, np.nan], {"mean": 2.0, "std": 1.0}),
        (Encoding.MIN_MAX, [], {"min": 0.0, "max": 0.0}),
        (Encoding.MIN_MAX, [3.0, 3.0], {"min": 3.0, "max": 3.0}),
        (Encoding.ROBUST, [], {"median": 0.0, "iqr": 1.0}),
        (Encoding.ROBUST, [5.0, 5.0, 5.0, np.inf], {"median": 5.0, "iqr": 1.0}),
        (Encoding.QUANTILES, [], {"boundaries": []}),
        (Encoding.QUANTILES, [7.0, 7.0, 7.0], {"boundaries": [7.0]}),
    ],
)
def test_a_column_without_values_or_spread_divides_by_one(
    spark: SparkSession, tmp_path: Path, encoding: Encoding, values: list[float], fitted: dict[str, object]
) -> None:
    column = number("mean", encoding)
    found = fit(spark, tmp_path, pa.table({"mean": pa.array(values, pa.float32())}), [column])
    assert found["columns"]["mean"] == {**column.encoding_definition, **fitted}


def test_how_the_rows_are_parted_and_ordered_changes_no_bit(spark: SparkSession, tmp_path: Path) -> None:
    dice = np.random.default_rng(5)
    table = words_of(400, 5).append_column("mean", pa.array(dice.normal(5, 20, 400).astype(np.float32)))
    shuffled = table.take(dice.permutation(400))
    found = []
    for name, rows, size in (("one", table, 400), ("many", table, 13), ("shuffled", shuffled, 29)):
        (tmp_path / name).mkdir()
        for start in range(0, 400, size):
            pq.write_table(rows.slice(start, size), tmp_path / name / f"part-{start}.parquet")
        columns = [WORDS, WORD, COUNT, number("mean", Encoding.STANDARD)]
        found.append(fit_transforms(spark, tmp_path / name, columns))
    assert found[0] == found[1] == found[2]


def test_columns_that_share_a_vocabulary_share_its_buckets(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"vocabulary word: expected the same number of buckets.*'words': 0, 'word': 3"
    ):
        fit_transforms(spark, tmp_path / "unread.parquet", [WORDS, replace(WORD, buckets=3)])
