"""What lies in the lake against the declared row checks, dataset by dataset, in chunks of bounded size."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import ibis
import pyarrow.parquet as pq

from pipelines.checks.rows import check_rows
from pipelines.io.duck import create_view_of_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb

    from feature_repo.contracts.checks import Check
    from pipelines.checks.outcomes import Outcome
    from pipelines.io.lake import Snapshot

_ROWS_AT_ONCE = 4_000_000
_CHUNK = "chunk"


def check_lake(
    database: duckdb.DuckDBPyConnection, checks: Sequence[Check], snapshots: Mapping[str, Snapshot]
) -> list[Outcome]:
    """Judge every dataset of `snapshots` (its name → its partitions) by those of `checks` that are about it."""
    for name, snapshot in snapshots.items():
        create_view_of_files(database, name, snapshot.dataset, snapshot.files)
    outcomes = []
    with _ibis_session(database) as session:
        tables = {name: session.table(name) for name in snapshots}
        for name, snapshot in snapshots.items():
            about = [check for check in checks if check.dataset == name]
            outcomes += check_rows(about, snapshot.dataset.key, _chunks(session, snapshot), tables)
    return outcomes


@contextmanager
def _ibis_session(database: duckdb.DuckDBPyConnection) -> Iterator[ibis.backends.duckdb.Backend]:
    """Give ibis the database, also for expressions of no table: for these it would open one of its own, for good."""
    session = ibis.duckdb.from_connection(database)
    ibis.set_backend(session)
    try:
        yield session
    finally:
        ibis.options.default_backend = None


def _chunks(session: ibis.backends.duckdb.Backend, snapshot: Snapshot) -> Iterator[ibis.Table]:
    """Yield the rows in runs of whole partitions whose files have the same columns; one run is readable at a time."""
    if not snapshot.partitions:
        create_view_of_files(session.con, _CHUNK, snapshot.dataset, [])
        yield session.table(_CHUNK)
        return
    sized = zip(snapshot.files, (part.rows for part in snapshot.partitions.values()), strict=True)
    for _, alike in groupby(sized, key=lambda file: pq.read_schema(file[0]).remove_metadata().to_string()):
        for files in _runs(list(alike)):
            create_view_of_files(session.con, _CHUNK, snapshot.dataset, files)
            yield session.table(_CHUNK)


def _runs(files: Sequence[tuple[Path, int]]) -> Iterator[list[Path]]:
    run: list[Path] = []
    rows = 0
    for file, size in files:
        if run and rows + size > _ROWS_AT_ONCE:
            yield run
            run, rows = [], 0
        run.append(file)
        rows += size
    yield run
