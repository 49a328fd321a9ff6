"""Items and users as they were known at a time: the last version before it, or what the source states for all time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import EVENT_TIME
from pipelines.io.sql_text import identifier, parquet

if TYPE_CHECKING:
    from feature_repo.contracts.datasets import Dataset
    from pipelines.io.lake import Snapshot


def newest_sql(versions: str, dataset: Dataset) -> str:
    """Return a DuckDB query of the last version of each item or user, as rows of the undated dataset."""
    columns = ", ".join(identifier(name) for name in dataset.column_names)
    return (
        f"SELECT {columns} FROM {versions} QUALIFY row_number() OVER "  # noqa: S608 - quoted
        f"(PARTITION BY {dataset.key[0]} ORDER BY {EVENT_TIME.name} DESC) = 1"
    )


def known_sql(snapshot: Snapshot, dataset: Dataset) -> str:
    """Return a DuckDB query of what a snapshot knows of items or users, as rows of the undated dataset.

    `snapshot` is of that dataset, or of its versions of the days before a cutoff: then the last of them count.
    """
    files = parquet(snapshot.files)
    columns = ", ".join(identifier(name) for name in dataset.column_names)
    return f"SELECT {columns} FROM {files}" if snapshot.dataset == dataset else newest_sql(files, dataset)  # noqa: S608 - quoted
