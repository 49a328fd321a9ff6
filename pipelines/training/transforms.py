"""Parameters of the encodings, fitted by Spark on train rows: vocabularies, and what numbers are moved and cut by.

Counts, order statistics and sums are exact, so that equal rows give equal parameters to the last bit, however they are
parted and in whatever order their parts come in. Three passes fit all columns: one over terms, two over numbers.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.columns import Column, Curve, Encoding, vocabularies
from feature_repo.contracts.datasets import DRAWN
from feature_repo.contracts.manifests import TRANSFORMS_VERSION
from pipelines.io.spark import read_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pyspark.sql import Column as Expression
    from pyspark.sql import DataFrame, SparkSession

_QUARTILES = (0.25, 0.5, 0.75)
_DIGIT = 2**26
"""Shares are summed as two digits of 26 bits, which hold a double's precision: sums of integers know no order."""


def fit_transforms(spark: SparkSession, train: Path, columns: Sequence[Column]) -> dict[str, object]:
    """Fit what the encodings of `columns` need; see `contracts.manifests.TRANSFORMS_FILE`.

    Args:
        spark: The session that fits.
        train: Parquet with the train rows, where every executor can read it.
        columns: What to fit, each with its encoding and the curve before it. A column without known values, or without
            spread, gets parameters by which nobody divides by zero.
    """
    sharing = vocabularies(columns)
    rows = read_files(spark, [train])
    fitted = _fit_numbers(rows, [column for column in columns if column.encoding in _FITS])
    return {
        "version": TRANSFORMS_VERSION,
        "vocabularies": _fit_vocabularies(rows, sharing),
        "columns": {
            column.name: {**column.encoding_definition, **fitted.get(column.name, {})}
            for column in columns
            if column.encoding is not Encoding.NONE
        },
    }


def mean_of_events(train: Path, column: str) -> float:
    """Return the mean of a numeric column over the rows that happened; drawn ones have no value of their own."""
    table = pq.read_table(train, columns=[column, DRAWN.name], partitioning=None)
    happened = table[DRAWN.name].to_numpy() == 0
    return float(table[column].to_numpy().astype(np.float64)[happened].mean())


def _fit_vocabularies(rows: DataFrame, sharing: Mapping[str, Sequence[Column]]) -> dict[str, list[str]]:
    """Return each vocabulary's terms in falling frequency, ties by name; missing values are no terms."""
    found: dict[str, list[str]] = {name: [] for name in sharing}
    parts = [_terms(rows, name, column) for name, columns in sharing.items() for column in columns]
    if parts:
        counted = reduce(lambda one, other: one.unionAll(other), parts).groupBy("vocabulary", "term").count().toArrow()
        # Sorted here: Spark would go over the rows once more to learn where to cut its sort.
        ordered = counted.sort_by([("count", "descending"), ("term", "ascending")])
        for name, term in zip(ordered["vocabulary"].to_pylist(), ordered["term"].to_pylist(), strict=True):
            found[name].append(term)
    return found


def _terms(rows: DataFrame, vocabulary: str, column: Column) -> DataFrame:
    value = F.col(column.name)
    term = F.explode(value) if column.length else value
    terms = rows.select(F.lit(vocabulary).alias("vocabulary"), term.alias("term"))
    return terms.where(F.col("term") != str(column.missing or ""))


def _fit_numbers(rows: DataFrame, columns: Sequence[Column]) -> dict[str, dict[str, object]]:
    """Return the parameters of every column from its known values."""
    if not columns:
        return {}
    known = rows.select(*[_known(column).alias(column.name) for column in columns])
    order = (
        known.agg(*[_order_statistics(column).alias(column.name) for column in columns]).first().asDict(recursive=True)
    )
    standard = [c for c in columns if c.encoding is Encoding.STANDARD and order[c.name]["least"] is not None]
    moments = _moments(known, {column.name: order[column.name] for column in standard})
    return {
        column.name: _FITS[column.encoding](order[column.name] | moments.get(column.name, {})) for column in columns
    }


def _known(column: Column) -> Expression:
    """Return a column's values after its curve, null where they are missing, infinite or undefined."""
    number = F.col(column.name).cast("double")
    is_known = ~F.isnan(number) & (F.abs(number) < float("inf"))
    if column.missing is not None:
        is_known &= number != float(column.missing)
    positive = F.greatest(number, F.lit(0.0))
    curves = {Curve.LINEAR: number, Curve.LOG: F.log1p(positive), Curve.SQRT: F.sqrt(positive), Curve.SQUARE: number**2}
    return F.when(is_known, curves[column.curve])


def _order_statistics(column: Column) -> Expression:
    """Return least, greatest and, where the encoding asks for them, exact quantiles, between two values as NumPy's."""
    number = F.col(column.name)
    statistics = [F.min(number).alias("least"), F.max(number).alias("greatest")]
    shares = _shares(column)
    if shares:
        statistics.append(F.percentile(number, F.array(*map(F.lit, shares))).alias("quantiles"))
    return F.struct(*statistics)


def _shares(column: Column) -> Sequence[float]:
    """Return the shares of the values that lie below the quantiles that a column's encoding asks for."""
    if column.encoding is Encoding.ROBUST:
        return _QUARTILES
    return [n / column.buckets for n in range(1, column.buckets)] if column.encoding is Encoding.QUANTILES else ()


def _moments(known: DataFrame, ranges: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of columns, given their least and greatest values.

    Values are taken as shares of their range, so that neither large nor small ones lose digits.
    """
    spread = {name: of for name, of in ranges.items() if of["greatest"] > of["least"]}
    moments = {name: {"mean": of["least"], "std": 0.0} for name, of in ranges.items()}
    if not spread:
        return moments
    sums: list[Expression] = []
    for name, of in spread.items():
        share = (F.col(name) - of["least"]) / (of["greatest"] - of["least"])
        digits = [*_digits(share), *_digits(share * share)]
        sums.append(F.struct(F.count(share).alias("rows"), F.array(*map(F.sum, digits)).alias("digits")).alias(name))
    for name, total in known.agg(*sums).first().asDict().items():
        mean, square = (_of_digits(*total["digits"][at : at + 2]) / (total["rows"] * _DIGIT**2) for at in (0, 2))
        width = spread[name]["greatest"] - spread[name]["least"]
        moments[name] = {"mean": spread[name]["least"] + width * mean, "std": width * (square - mean**2) ** 0.5}
    return moments


def _digits(share: Expression) -> tuple[Expression, Expression]:
    """Return a number between 0 and 1 as two integers: its first 26 bits, and the next."""
    scaled = share * float(_DIGIT)
    first = F.floor(scaled)
    return first, F.floor((scaled - first) * float(_DIGIT))


def _of_digits(first: int, second: int) -> int:
    return first * _DIGIT + second


def _boundaries(quantiles: Sequence[float] | None) -> list[float]:
    """Return where buckets that hold equally many end; a value that fills several buckets makes them one."""
    # float32 is what the graph compares in.
    return [float(boundary) for boundary in np.unique(np.array(quantiles or [], np.float32))]


def _robust(quantiles: Sequence[float] | None) -> dict[str, object]:
    low, median, high = quantiles or (0.0, 0.0, 0.0)
    return {"median": median, "iqr": high - low or 1.0}


_FITS: dict[Encoding, Callable[[Mapping[str, Any]], dict[str, object]]] = {
    Encoding.STANDARD: lambda found: {"mean": found.get("mean", 0.0), "std": found.get("std", 0.0) or 1.0},
    Encoding.MIN_MAX: lambda found: {"min": found["least"] or 0.0, "max": found["greatest"] or 0.0},
    Encoding.ROBUST: lambda found: _robust(found["quantiles"]),
    Encoding.QUANTILES: lambda found: {"boundaries": _boundaries(found["quantiles"])},
}
"""Parameters of an encoding from what was found of a column's known values: nothing, where there are none."""
