"""Compute every feature group from the events before a cutoff, and store what changed."""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
from pyspark.sql import Observation
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.datasets import (
    EVENT_TIME,
    EVENTS,
    known_items_dataset,
    known_users_dataset,
    relation_datasets,
)
from feature_repo.contracts.features import FeatureGroup, Freshness, declared
from feature_repo.contracts.intervals import check_start, format_cutoff
from feature_repo.contracts.schemas import read_schema
from feature_repo.locks import exclusive
from pipelines.errors import JobError
from pipelines.feast_store.online_cutoff import online_cutoff
from pipelines.features import sequences
from pipelines.features.groups import Inputs, compute
from pipelines.features.tables import feature_table
from pipelines.io.days import by_day
from pipelines.io.lake import (
    UNDIVIDED,
    Writer,
    is_before,
    partition_name,
    partitions_sha256,
    stored_dataset,
)
from pipelines.io.spark import read_snapshot, spark_session
from pipelines.io.sql_text import parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from datetime import date, datetime
    from pathlib import Path

    import pyarrow as pa
    from pyspark.sql import DataFrame

    from feature_repo.contracts.features import Declared
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings

_SORT_MEMORY = "1GB"
_BATCH_ROWS = 1 << 17
_WRITERS = 2
"""So many days are written at once; one more is in memory."""
_log = logging.getLogger(__name__)


def run(settings: Settings, place: Namespace, cutoff: datetime, start: datetime | None) -> Mapping[str, object]:
    """Write the partitions of [start, cutoff) of every feature group.

    Groups that are not divided are written whole, and so are tables that were never written.

    Raises:
        JobError: nothing was ingested, nothing lies before the cutoff, or `start` is not before it.
        TransientError: another job is writing the lake or the features.
    """
    if start is not None:
        try:
            check_start(start, cutoff)
        except ValueError as error:
            raise JobError(str(error)) from error
    views: dict[str, dict[str, object]] = {}
    changed = 0
    schema = read_schema(place)
    with _scratch(place) as scratch, ExitStack() as stack:
        snapshots = [
            stack.enter_context(stored_dataset(place, dataset).reading(before=cutoff))
            for dataset in (
                EVENTS,
                known_items_dataset(schema),
                known_users_dataset(schema),
                *relation_datasets(schema),
            )
        ]
        if not snapshots[0].rows:
            end = format_cutoff(cutoff)
            msg = f"namespace {place.name}: expected events before {end}, the lake has none; ingest them"
            raise JobError(msg)
        spark = stack.enter_context(spark_session(settings, f"features {place.name}", rows=snapshots[0].rows))
        events, items, users, *relations = (read_snapshot(spark, snapshot) for snapshot in snapshots)
        inputs = Inputs(schema, events, items, users, cutoff, start, *relations)
        for group in _groups(place, declared(schema), cutoff):
            began = time.monotonic()
            # A table that is new, as after a change of the schema, has nothing before the start that could stay.
            since = start if feature_table(place, group).exists else None
            staged = _staged(group, replace(inputs, start=since))
            writer = _store(group, staged, place, scratch / group.name, since, cutoff)
            stored = {name: part for name, part in writer.partitions.items() if is_before(name, cutoff)}
            rows = sum(part.rows for part in stored.values())
            views[group.view_name] = {"rows": rows, "checksum": partitions_sha256(stored)}
            changed += len(writer.changed)
            _log.info(
                "%s: %d rows, %d changed partitions, %.1f s",
                group.view_name,
                rows,
                len(writer.changed),
                time.monotonic() - began,
            )
    return {"views": views, "changed_partitions": changed}


def _groups(place: Namespace, features: Declared, cutoff: datetime) -> list[FeatureGroup]:
    """Return the groups to compute: in a backfill without those that hold the latest state only, which stays."""
    online = online_cutoff(place)
    is_backfill = online is not None and cutoff < online
    return [group for group in features.groups if not (is_backfill and group.freshness is Freshness.LATEST)]


@dataclass(frozen=True, slots=True)
class _Staged:
    """What Spark writes of a group, and how its rows are read from there, a day at a time."""

    rows: DataFrame
    days: Callable[[Path], Iterator[tuple[date, pa.Table]]]


def _staged(group: FeatureGroup, inputs: Inputs) -> _Staged:
    if group.name == "user_sequence":
        # Whatever is asked for, it begins with the events before.
        return _Staged(sequences.numbered_events(inputs.counted), partial(sequences.days, group, inputs.start))
    rows = compute(group, inputs)
    if group.by_date and inputs.start is not None:
        rows = rows.where(F.col(EVENT_TIME.name) >= F.lit(inputs.start))
    return _Staged(rows, lambda folder: by_day(_in_order_of_time(folder), EVENT_TIME.name))


def _store(  # noqa: PLR0917 - what, from where, to where, for which interval
    group: FeatureGroup, staged: _Staged, place: Namespace, staging: Path, start: datetime | None, cutoff: datetime
) -> Writer:
    """Have Spark write a group's rows beside their place, or what they are made of, and store them from there."""
    table = feature_table(place, group)
    if not group.by_date:
        _write_whole(staged.rows.coalesce(1), staging)
        with table.rewriting() as writer:
            writer.add(UNDIVIDED, pq.read_table(staging, partitioning=None))
        return writer
    _write_whole(staged.rows, staging)
    with table.rewriting(
        lambda name: is_before(name, cutoff) and (start is None or not is_before(name, start))
    ) as writer:
        _add(writer, staged.days(staging))
    return writer


def _add(writer: Writer, days: Iterable[tuple[date, pa.Table]]) -> None:
    """Add every day's rows: hashed and compressed by two threads, as Arrow leaves the interpreter to the next day's."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        pending: deque[Future[None]] = deque()
        for day, rows in days:
            pending.append(pool.submit(writer.add, partition_name(day), rows))
            if len(pending) > _WRITERS:
                pending.popleft().result()
        for each in pending:
            each.result()


def _write_whole(rows: DataFrame, staging: Path) -> None:
    """Have the executors write rows to a folder, and JobError unless this process sees all of them there."""
    seen = Observation()
    rows.observe(seen, F.count(F.lit(1)).alias("rows")).write.parquet(str(staging))
    check_shared(staging, int(seen.get["rows"]))


def check_shared(folder: Path, rows: int) -> None:
    """JobError unless a folder that the executors wrote holds `rows` rows: else they have another file system."""
    found = sum(pq.ParquetFile(file).metadata.num_rows for file in folder.glob("part-*.parquet"))
    if found != rows:
        msg = (
            f"{folder}: expected the {rows} rows that Spark's executors wrote, found {found}; the state folder "
            "(KESTREL_STATE) must be one file system under one path for the driver and all executors"
        )
        raise JobError(msg)


def _in_order_of_time(folder: Path) -> Iterator[pa.RecordBatch]:
    """Yield what Spark wrote, in order of time.

    DuckDB sorts on the disk. Spark would have to shuffle once more, and to compute everything twice: its range
    partitioner takes a sample first.
    """
    options = {"memory_limit": _SORT_MEMORY, "temp_directory": str(folder / "spill")}
    with duckdb.connect(config=options) as database:
        rows = parquet(folder.glob("part-*.parquet"))
        query = f"SELECT * FROM {rows} ORDER BY {EVENT_TIME.name}"  # noqa: S608 - quoted
        yield from database.sql(query).to_arrow_reader(_BATCH_ROWS)


@contextmanager
def _scratch(place: Namespace) -> Iterator[Path]:
    """Give a folder for what Spark writes; one job at a time, which removes what a killed one left."""
    folder = place.root / ".features"
    with exclusive(place.locks / "features.lock", f"features of namespace {place.name}"):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
