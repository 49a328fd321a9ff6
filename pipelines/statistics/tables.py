"""Bring the daily statistics tables up to date: only the days whose events, or whose newcomers, have changed."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feature_repo.contracts.columns import definition_hash
from feature_repo.contracts.publishing import CorruptRecordError, read_json, remove_abandoned, write_json
from feature_repo.contracts.statistics import DAILY_ACTIVITY, DAILY_STATISTICS, DAY
from feature_repo.locks import exclusive
from pipelines.errors import JobError
from pipelines.io.arrow import arrow_schema
from pipelines.io.days import by_day
from pipelines.io.duck import create_view, create_view_of_files, duckdb_session
from pipelines.io.lake import StoredTable, partition_file, partition_name
from pipelines.statistics.queries import FIRST_DAYS, counted_terms, daily_queries, is_positive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot

_MEMORY = "1GB"
_EVENTS_AT_ONCE = 2_000_000
"""Days are computed together up to so many events, which bounds the memory."""
_SOURCES = "_sources.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DaySource:
    """What a day's rows were computed from; when it changes, so may they."""

    events: str
    """SHA-256 of the day's events."""
    new_users: int
    new_items: int


@dataclass(frozen=True, slots=True)
class Sources:
    """What the tables were computed from."""

    definition: str
    """Changes with the tables' columns, the attributes and what counts as positive."""
    items: str
    users: str
    days: dict[str, DaySource]
    """Partition → its source."""


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update did."""

    changed_partitions: int
    """Of all tables together, written or removed."""
    days_computed: int


def statistics_table(place: Namespace, dataset: Dataset) -> StoredTable:
    """Return one of the daily statistics tables."""
    return StoredTable(
        dataset,
        place.statistics / dataset.name,
        place.locks / f"statistics-{dataset.name}.lock",
        f"python -m pipelines statistics --namespace {place.name}",
    )


def update_statistics(place: Namespace, schema: Schema, events: Snapshot, items: Snapshot, users: Snapshot) -> Updated:
    """Make the tables say what the lake holds.

    Args:
        place: the namespace.
        schema: the data set's: which attributes have terms, and what counts as positive.
        events: all events of the lake, whatever the cutoff of the run: a day's figures depend on no later event.
        items: the items.
        users: the users.

    Raises:
        LockedError: another job is writing the tables.
    """
    positive, queries = is_positive(schema), daily_queries(counted_terms(schema))
    with (
        exclusive(place.locks / "statistics.lock", f"statistics of namespace {place.name}"),
        duckdb_session(_MEMORY) as database,
    ):
        remove_abandoned(place.statistics)
        create_view(database, "items", items)
        create_view(database, "users", users)
        create_view(database, "stored_events", events)
        database.execute(
            f"CREATE VIEW events AS SELECT *, day_of(event_time) AS day, ({positive}) AS positive FROM stored_events"  # noqa: S608 - of the schema, whose names are checked
        )
        wanted = Sources(
            definition_hash({"queries": queries, "positive": positive}),
            items.checksum,
            users.checksum,
            _day_sources(database, events),
        )
        recorded = _recorded(place)
        stale = _stale(recorded, wanted)
        gone = recorded.days.keys() - wanted.days.keys() if recorded else set()
        rows = _compute(database, events, sorted(stale), queries, wanted.days)
        changed = _write(place, rows, stale | gone, everything=recorded is None)
        if recorded != wanted:
            write_json(place.statistics / _SOURCES, asdict(wanted))
    return Updated(changed, len(stale))


def _day_sources(database: duckdb.DuckDBPyConnection, events: Snapshot) -> dict[str, DaySource]:
    found = database.execute(FIRST_DAYS).fetchall()
    firsts = {partition_name(day.date()): (users, items) for day, users, items in found}
    return {name: DaySource(part.sha256, *firsts.get(name, (0, 0))) for name, part in events.partitions.items()}


def _stale(recorded: Sources | None, wanted: Sources) -> set[str]:
    """Return the partitions that must be computed."""
    if recorded is None or _without_days(recorded) != _without_days(wanted):
        return set(wanted.days)
    return {name for name, source in wanted.days.items() if recorded.days.get(name) != source}


def _without_days(sources: Sources) -> tuple[str, str, str]:
    return sources.definition, sources.items, sources.users


def _recorded(place: Namespace) -> Sources | None:
    """Return what the tables were computed from; None where they are not whole, so that all is computed anew."""
    try:
        for dataset in DAILY_STATISTICS:
            statistics_table(place, dataset).snapshot()
        record: dict[str, Any] = dict(read_json(place.statistics / _SOURCES))
        days = {name: DaySource(**source) for name, source in record.pop("days").items()}
        return Sources(**record, days=days)
    except (FileNotFoundError, JobError, CorruptRecordError, TypeError, KeyError, AttributeError) as error:
        _log.info("all days are computed: %s", error)
        return None


def _compute(
    database: duckdb.DuckDBPyConnection,
    events: Snapshot,
    names: Sequence[str],
    queries: Mapping[str, str],
    days: Mapping[str, DaySource],
) -> dict[str, pa.Table]:
    """Return table name → rows of the named days, in their order."""
    found: dict[str, list[pa.Table]] = {dataset.name: [] for dataset in DAILY_STATISTICS}
    for chunk in _chunks(events, names):
        files = [partition_file(events.folder, name) for name in chunk]
        create_view_of_files(database, "stored_events", events.dataset, files)
        for dataset in DAILY_STATISTICS:
            rows = database.sql(f"SELECT * FROM ({queries[dataset.name]}) ORDER BY day").to_arrow_table()  # noqa: S608 - built from contracts
            if dataset is DAILY_ACTIVITY:
                rows = _with_newcomers(rows, [days[name] for name in chunk])
            schema = arrow_schema(dataset)
            found[dataset.name].append(rows.select(schema.names).cast(schema))
    return {
        dataset.name: pa.concat_tables([arrow_schema(dataset).empty_table(), *found[dataset.name]])
        for dataset in DAILY_STATISTICS
    }


def _with_newcomers(activity: pa.Table, days: Sequence[DaySource]) -> pa.Table:
    """Add the newcomers to one row per day; both are in order of the days."""
    users = pa.array([day.new_users for day in days], pa.int64())
    items = pa.array([day.new_items for day in days], pa.int64())
    return activity.append_column("new_users", users).append_column("new_items", items)


def _chunks(events: Snapshot, names: Sequence[str]) -> Iterator[list[str]]:
    """Cut days into runs of at most so many events, and at least one day."""
    chunk: list[str] = []
    rows = 0
    for name in names:
        if chunk and rows + events.partitions[name].rows > _EVENTS_AT_ONCE:
            yield chunk
            chunk, rows = [], 0
        chunk.append(name)
        rows += events.partitions[name].rows
    if chunk:
        yield chunk


def _write(place: Namespace, rows: Mapping[str, pa.Table], replaced: set[str], *, everything: bool) -> int:
    """Write the days of every table; return how many partitions were written or removed."""
    changed = 0
    for dataset in DAILY_STATISTICS:
        with statistics_table(place, dataset).rewriting(lambda name: everything or name in replaced) as writer:
            batches = (batch for batch in rows[dataset.name].to_batches() if batch.num_rows)
            for day, day_rows in by_day(batches, DAY.name):
                writer.add(partition_name(day), day_rows)
        changed += len(writer.changed)
    return changed
