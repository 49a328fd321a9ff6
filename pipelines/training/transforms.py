"""Parameters of the encodings, fitted on train rows: vocabularies, means, standard deviations.

Counts are exact and sums are taken in one fixed order, so that equal rows give equal parameters to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from feature_repo.contracts.columns import Column, Encoding
from feature_repo.contracts.datasets import DRAWN
from pipelines.feast_store.tables import duckdb_session
from pipelines.io.sql_text import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_MEMORY = "1GB"


def fit_transforms(train: Path, columns: Sequence[Column]) -> dict[str, object]:
    """Fit what the encodings of `columns` need on the rows of `train`; see `contracts.manifests.TRANSFORMS_FILE`."""
    vocabularies: dict[str, list[Column]] = {}
    for column in columns:
        if column.encoding is Encoding.VOCABULARY:
            vocabularies.setdefault(column.vocabulary, []).append(column)
    numeric = [column for column in columns if column.encoding in {Encoding.STANDARD, Encoding.LOG_STANDARD}]
    return {
        "vocabularies": {name: fit_vocabulary(train, sharing) for name, sharing in sorted(vocabularies.items())},
        "numeric": {column.name: fit_moments(_values(train, column), column) for column in numeric},
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


def fit_moments(values: NDArray[np.float64], column: Column) -> dict[str, float]:
    """Return mean and population standard deviation of the values that are not missing, after log(1 + x) if encoded so.

    A column without values has mean 0; one without spread has standard deviation 1, so that nobody divides by zero.
    """
    if column.missing is not None:
        values = values[values != column.missing]
    if column.encoding is Encoding.LOG_STANDARD:
        values = np.log1p(values)
    if not len(values):
        return {"mean": 0.0, "std": 1.0}
    return {"mean": float(values.mean()), "std": float(values.std()) or 1.0}


def mean_of_events(train: Path, column: str) -> float:
    """Return the mean of a numeric column over the rows that happened; drawn ones have no value of their own."""
    table = pq.read_table(train, columns=[column, DRAWN.name])
    happened = table[DRAWN.name].to_numpy() == 0
    return float(table[column].to_numpy().astype(np.float64)[happened].mean())


def _values(train: Path, column: Column) -> NDArray[np.float64]:
    values: NDArray[np.float64] = pq.read_table(train, columns=[column.name])[column.name].to_numpy().astype(np.float64)
    return values
