"""DuckDB over stored tables: bounded memory, a scratch folder for what does not fit, time in UTC."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from pipelines.io.arrow import arrow_schema
from pipelines.io.scratch import scratch_folder
from pipelines.io.sql_text import parquet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset
    from pipelines.io.lake import Snapshot

_MICROSECONDS_PER_DAY = 86_400_000_000


@contextmanager
def duckdb_session(memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give an empty DuckDB that keeps within `memory_limit` (such as '1GB') and spills the rest to a passing folder.

    It has one macro: `day_of(time)`, the midnight in UTC before a time.
    """
    with (
        scratch_folder() as spill,
        duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": str(spill)}) as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE MACRO day_of(moment) AS "
            f"make_timestamptz(epoch_us(moment) // {_MICROSECONDS_PER_DAY} * {_MICROSECONDS_PER_DAY})"
        )
        yield connection


def create_view(connection: duckdb.DuckDBPyConnection, name: str, snapshot: Snapshot) -> None:
    """Make the files of a snapshot, and no others, readable under `name`."""
    create_view_of_files(connection, name, snapshot.dataset, snapshot.files)


def create_view_of_files(connection: duckdb.DuckDBPyConnection, name: str, dataset: Dataset, files: list[Path]) -> None:
    """Make some files of a dataset readable under `name`, in place of what had that name before."""
    if files:
        connection.sql(f"SELECT * FROM {parquet(files)}").create_view(name, replace=True)  # noqa: S608 - quoted
    else:
        connection.register(name, arrow_schema(dataset).empty_table())
