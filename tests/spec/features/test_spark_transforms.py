"""Encodings fitted by Spark are those that NumPy and DuckDB fit, whatever the values and however they are parted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding
from pipelines.training.transforms import fit_transforms

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

WORDS = Column("words", Dtype.STRING, "", length=2, missing="", encoding=Encoding.VOCABULARY, vocabulary="word")
WORD = Column("word", Dtype.STRING, "", missing="", encoding=Encoding.VOCABULARY, vocabulary="word")
COUNT = Column("count", Dtype.INT64, "", missing=0, encoding=Encoding.STANDARD, curve=Curve.LOG)
NUMBER = Column("number", Dtype.FLOAT32, "", missing=-1.0, encoding=Encoding.STANDARD)
UNSAID = Column("unsaid", Dtype.FLOAT32, "", missing=-1.0, encoding=Encoding.STANDARD)
FITTED = (Encoding.STANDARD, Encoding.MIN_MAX, Encoding.ROBUST, Encoding.QUANTILES)


def rows(count: int, seed: int) -> pa.Table:
    """Return values with ties, missing, infinite and undefined ones among them, and a column without any."""
    dice = np.random.default_rng(seed)
    words = np.array(["é", "a", "b", "ab", "", "z"])
    numbers = np.round(dice.normal(5, 20, count), 1).astype(np.float32)
    numbers[:: max(count // 7, 1)] = np.resize([-1.0, np.nan, np.inf, -np.inf], len(numbers[:: max(count // 7, 1)]))
    return pa.table(
        {
            "words": pa.array(words[dice.integers(0, 6, (count, 2))].tolist(), pa.list_(pa.string())),
            "word": pa.array(words[dice.integers(0, 6, count)].tolist(), pa.string()),
            "count": pa.array(dice.integers(0, 9, count), pa.int64()),
            "number": pa.array(numbers),
            "unsaid": pa.array(np.full(count, -1.0, dtype=np.float32)),
        }
    )


def assert_alike(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_alike(found[name], value)
    elif isinstance(expected, float) or (isinstance(expected, list) and expected and isinstance(expected[0], float)):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    else:
        assert found == expected


@pytest.mark.parametrize("curve", list(Curve))
@pytest.mark.parametrize("count", [1, 2, 400])
def test_every_encoding_is_fitted_alike(spark: SparkSession, tmp_path: Path, curve: Curve, count: int) -> None:
    from pipelines.training.spark_transforms import fit_transforms_on_spark

    train = tmp_path / ".made.part" / "train.parquet"  # as it lies while a training set is built
    train.parent.mkdir()
    pq.write_table(rows(count, 3), train, row_group_size=50)
    for encoding in FITTED:
        buckets = 7 if encoding is Encoding.QUANTILES else 0
        changed = [replace(one, encoding=encoding, curve=curve, buckets=buckets) for one in (NUMBER, UNSAID)]
        columns = [WORDS, WORD, COUNT, *changed]
        assert_alike(fit_transforms_on_spark(spark, train, columns), fit_transforms(train, columns))


def test_how_the_rows_are_parted_changes_no_bit(spark: SparkSession, tmp_path: Path) -> None:
    from pipelines.training.spark_transforms import fit_transforms_on_spark

    table = rows(400, 5)
    found = []
    for name, size in (("one", 400), ("many", 13)):
        (tmp_path / name).mkdir()
        for start in range(0, 400, size):
            pq.write_table(table.slice(start, size), tmp_path / name / f"part-{start}.parquet")
        found.append(fit_transforms_on_spark(spark, tmp_path / name, [WORDS, WORD, COUNT, NUMBER]))
    assert found[0] == found[1]
