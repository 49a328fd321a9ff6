"""Parameters of the encodings, fitted on train rows: vocabularies, and what numbers are moved, stretched and cut by.

Counts and order statistics are exact and sums are taken in one fixed order, so that equal rows give equal parameters to
the last bit. One column is in memory at a time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from feature_repo.contracts.columns import Column, Curve, Encoding, vocabularies
from feature_repo.contracts.datasets import DRAWN
from feature_repo.contracts.manifests import TRANSFORMS_VERSION
from pipelines.feast_store.tables import duckdb_session
from pipelines.io.sql_text import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_MEMORY = "1GB"


def fit_transforms(train: Path, columns: Sequence[Column]) -> dict[str, object]:
    """Fit what the encodings of `columns` need on the rows of `train`; see `contracts.manifests.TRANSFORMS_FILE`."""
    return transforms_of(columns, partial(fit_vocabulary, train), partial(_fitted, train))


def transforms_of(
    columns: Sequence[Column],
    vocabulary: Callable[[Sequence[Column]], list[str]],
    fitted: Callable[[Column], dict[str, object]],
) -> dict[str, object]:
    """Return the record of what an engine fits: the terms of columns that share them, the numbers of each column."""
    encoded = [column for column in columns if column.encoding is not Encoding.NONE]
    return {
        "version": TRANSFORMS_VERSION,
        "vocabularies": {name: vocabulary(sharing) for name, sharing in vocabularies(columns).items()},
        "columns": {column.name: {**column.encoding_definition, **fitted(column)} for column in encoded},
    }


def fit_vocabulary(train: Path, columns: Sequence[Column]) -> list[str]:
    """Return the terms of all `columns` together, in falling frequency, ties by name; missing values are no terms."""
    rows = literal(str(train))
    terms = " UNION ALL ".join(
        f"SELECT {'unnest(' * bool(column.length)}{identifier(column.name)}{')' * bool(column.length)} AS term "  # noqa: S608 - quoted
        f"FROM read_parquet({rows})"
        for column in columns
    )
    missing = ", ".join({literal(str(column.missing or "")) for column in columns})
    query = f"SELECT term FROM ({terms}) WHERE term NOT IN ({missing}) GROUP BY term ORDER BY count(*) DESC, term"  # noqa: S608 - quoted
    with duckdb_session(_MEMORY) as connection:
        return [term for (term,) in connection.execute(query).fetchall()]


def fit_numbers(values: NDArray[np.float64], column: Column) -> dict[str, object]:
    """Return the parameters of a column's encoding from the values that are there, after its curve.

    A column without values, or without spread, gets parameters by which nobody divides by zero.
    """
    known = values[np.isfinite(values)]
    if column.missing is not None:
        known = known[known != column.missing]
    return _FITS[column.encoding](bent(known, column.curve), column) if len(known) else without_values(column)


def bent(values: NDArray[np.float64], curve: Curve) -> NDArray[np.float64]:
    """Return numbers with a curve applied, as `Curve` says."""
    curves: dict[Curve, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        Curve.LINEAR: lambda numbers: numbers,
        Curve.LOG: lambda numbers: np.log1p(np.maximum(numbers, 0.0)),
        Curve.SQRT: lambda numbers: np.sqrt(np.maximum(numbers, 0.0)),
        Curve.SQUARE: np.square,
    }
    return curves[curve](values)


def mean_of_events(train: Path, column: str) -> float:
    """Return the mean of a numeric column over the rows that happened; drawn ones have no value of their own."""
    table = pq.read_table(train, columns=[column, DRAWN.name])
    happened = table[DRAWN.name].to_numpy() == 0
    return float(table[column].to_numpy().astype(np.float64)[happened].mean())


def _fitted(train: Path, column: Column) -> dict[str, object]:
    if column.encoding not in _FITS:
        return {}
    stored = pq.read_table(train, columns=[column.name])[column.name]
    return fit_numbers(stored.to_numpy().astype(np.float64), column)


def without_values(column: Column) -> dict[str, object]:
    """Return the parameters of a column of which no value is known."""
    parameters: dict[Encoding, dict[str, object]] = {
        Encoding.STANDARD: {"mean": 0.0, "std": 1.0},
        Encoding.MIN_MAX: {"min": 0.0, "max": 0.0},
        Encoding.ROBUST: {"median": 0.0, "iqr": 1.0},
        Encoding.QUANTILES: {"boundaries": []},
    }
    return parameters[column.encoding]


def standard(mean: float, deviation: float) -> dict[str, object]:
    """Return the parameters of a standard encoding."""
    return {"mean": mean, "std": deviation or 1.0}


def robust(low: float, median: float, high: float) -> dict[str, object]:
    """Return the parameters of a robust encoding from the quartiles."""
    return {"median": median, "iqr": high - low or 1.0}


def bucket_shares(column: Column) -> NDArray[np.float64]:
    """Return the shares of the values that lie below the boundaries between a column's buckets."""
    return np.arange(1, column.buckets) / column.buckets


def boundaries_at(quantiles: NDArray[np.float64]) -> dict[str, object]:
    """Return buckets that hold equally many; a value that fills several buckets makes them one."""
    # float32 is what the graph compares in.
    return {"boundaries": [float(boundary) for boundary in np.unique(quantiles.astype(np.float32))]}


_FITS: dict[Encoding, Callable[[NDArray[np.float64], Column], dict[str, object]]] = {
    Encoding.STANDARD: lambda values, _: standard(float(values.mean()), float(values.std())),
    Encoding.MIN_MAX: lambda values, _: {"min": float(values.min()), "max": float(values.max())},
    Encoding.ROBUST: lambda values, _: robust(*map(float, np.percentile(values, (25, 50, 75)))),
    Encoding.QUANTILES: lambda values, column: boundaries_at(np.quantile(values, bucket_shares(column))),
}
