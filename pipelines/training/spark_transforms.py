"""Parameters of the encodings, fitted by Spark: for training sets that are joined by it, too large for one machine.

They are those of `pipelines.training.transforms` to twelve decimal places. Order statistics are exact, and sums are of
decimals, so that they do not depend on how the rows are parted.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.columns import Column, Curve, Encoding
from pipelines.training.transforms import boundaries_at, bucket_shares, robust, standard, transforms_of, without_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pyspark.sql import Column as Expression
    from pyspark.sql import DataFrame, SparkSession

_X = "x"
_EXACT = "decimal(38, 12)"


def fit_transforms_on_spark(spark: SparkSession, train: Path, columns: Sequence[Column]) -> dict[str, object]:
    """Fit what the encodings of `columns` need on the rows of `train`, which every executor must be able to read."""
    rows = spark.read.parquet(str(train))
    return transforms_of(columns, partial(_vocabulary, rows), partial(_fitted, rows))


def _vocabulary(rows: DataFrame, columns: Sequence[Column]) -> list[str]:
    terms = reduce(
        lambda one, other: one.unionAll(other),
        [
            rows.select((F.explode(column.name) if column.length else F.col(column.name)).alias("term"))
            for column in columns
        ],
    )
    counted = terms.where(~F.col("term").isin([str(column.missing or "") for column in columns])).groupBy("term")
    return [row["term"] for row in counted.count().orderBy(F.desc("count"), "term").collect()]


def _fitted(rows: DataFrame, column: Column) -> dict[str, object]:
    if column.encoding not in _FITS:
        return {}
    number = F.col(column.name).cast("double")
    is_known = ~F.isnan(number) & (F.abs(number) < F.lit(float("inf")))
    if column.missing is not None:
        is_known &= number != F.lit(float(column.missing))
    known = rows.where(is_known).select(_bent(number, column.curve).alias(_X))
    return without_values(column) if known.isEmpty() else _FITS[column.encoding](known, column)


def _bent(number: Expression, curve: Curve) -> Expression:
    positive = F.greatest(number, F.lit(0.0))
    curves = {Curve.LINEAR: number, Curve.LOG: F.log1p(positive), Curve.SQRT: F.sqrt(positive), Curve.SQUARE: number**2}
    return curves[curve]


def _standard(known: DataFrame, _: Column) -> dict[str, object]:
    mean = _mean(known, F.col(_X))
    return standard(mean, _mean(known, (F.col(_X) - F.lit(mean)) ** 2) ** 0.5)


def _mean(known: DataFrame, number: Expression) -> float:
    total, count = known.agg(F.sum(number.cast(_EXACT)), F.count(F.lit(1))).first()
    return float(total) / int(count)


def _min_max(known: DataFrame, _: Column) -> dict[str, object]:
    least, greatest = known.agg(F.min(_X), F.max(_X)).first()
    return {"min": least, "max": greatest}


def _robust(known: DataFrame, _: Column) -> dict[str, object]:
    return robust(*_percentiles(known, [0.25, 0.5, 0.75]))


def _quantiles(known: DataFrame, column: Column) -> dict[str, object]:
    return boundaries_at(np.array(_percentiles(known, bucket_shares(column).tolist())))


def _percentiles(known: DataFrame, shares: list[float]) -> list[float]:
    """Return exact percentiles, interpolated between the two nearest values as NumPy does."""
    (found,) = known.agg(F.percentile(_X, F.array(*map(F.lit, shares)))).first()
    return list(found)


_FITS: dict[Encoding, Callable[[DataFrame, Column], dict[str, object]]] = {
    Encoding.STANDARD: _standard,
    Encoding.MIN_MAX: _min_max,
    Encoding.ROBUST: _robust,
    Encoding.QUANTILES: _quantiles,
}
