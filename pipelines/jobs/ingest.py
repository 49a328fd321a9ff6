"""Check a source and write its events before the cutoff, its items, its users and what was refused to the lake."""

from __future__ import annotations

import shutil
from contextlib import closing, contextmanager
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from feature_repo.contracts.datasets import EVENT_TIME, EVENTS, QUARANTINE, items_dataset, users_dataset
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.schemas import write_schema
from pipelines.checks.events import CheckedEvents
from pipelines.checks.refusals import check_limit, refusal_table
from pipelines.checks.small_tables import check_items, check_users
from pipelines.checks.whole_file import check_head
from pipelines.errors import SourceError
from pipelines.io.arrow import arrow_schema
from pipelines.io.days import by_day
from pipelines.io.lake import UNDIVIDED, exclusive, is_before, partition_name, partitions_sha256, stored_dataset
from pipelines.sources.detection import Source, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings


def run(
    settings: Settings, place: Namespace, path: Path, cutoff: datetime | None, clock: datetime | None
) -> Mapping[str, object]:
    """Ingest the source at `path`. Items, users and refusals are those of the whole source, whatever the cutoff.

    With a cutoff, partitions of days from it on belong to later intervals and stay as they are; without one, the source
    is all there is, and the lake holds nothing else afterwards.

    Raises:
        SourceError: the source as a whole cannot be read, or holds no event before the cutoff.
        QuarantineLimitError: too many rows of a file were refused; nothing is written.
        DatasetLockedError: another ingestion of the namespace is at work.
    """
    source = open_source(path)
    schema = source.layout.schema
    _check_heads(source)
    now = clock or datetime.now(UTC)
    with _scratch(place) as scratch:
        items = check_items(source.items, source.layout.items, source.layout.item, schema)
        check_limit(source.items.name, items.rows, items.refused, settings.quarantine_limit)
        users, refused_users = _read_users(source, settings.quarantine_limit)
        events = CheckedEvents(scratch, source.events, source.layout.events, schema.value)
        with closing(events):
            events.load(items.accepted, now)
            refused_events = events.refused()
            check_limit(source.events.name, events.rows, refused_events, settings.quarantine_limit)
            end = _end(place, events.span(), cutoff)
            quarantine = pa.concat_tables([items.refused, refused_users, refused_events])
            small = (
                (QUARANTINE, quarantine),
                (items_dataset(schema), items.accepted),
                (users_dataset(schema), _with_unknown(users, events.users())),
            )
            write_schema(place, schema)
            changed = [name for dataset, rows in small for name in _write_small(place, dataset, rows)]
            return _write_events(place, events, end, changed, keeps_later=cutoff is not None) | {
                "items": items.accepted.num_rows,
                "users": small[2][1].num_rows,
                "quarantined": quarantine.num_rows,
            }


def _write_events(
    place: Namespace, events: CheckedEvents, cutoff: datetime, changed: list[str], *, keeps_later: bool
) -> dict[str, object]:
    with stored_dataset(place, EVENTS).rewriting(lambda name: not keeps_later or is_before(name, cutoff)) as writer:
        for day, rows in by_day(events.before(cutoff), EVENT_TIME.name):
            writer.add(partition_name(day), rows)
    written = {name: partition for name, partition in writer.partitions.items() if is_before(name, cutoff)}
    return {
        "cutoff": format_cutoff(cutoff),
        "events": sum(partition.rows for partition in written.values()),
        "checksum": partitions_sha256(written),
        "changed_partitions": len(changed) + len(writer.changed),
    }


def _write_small(place: Namespace, dataset: Dataset, rows: pa.Table) -> list[str]:
    with stored_dataset(place, dataset).rewriting() as writer:
        writer.add(UNDIVIDED, rows)
    return writer.changed


def _check_heads(source: Source) -> None:
    check_head(source.events, source.layout.events)
    check_head(source.items, source.layout.items)
    if source.users and source.layout.users:
        check_head(source.users, source.layout.users)


def _read_users(source: Source, limit: float) -> tuple[pa.Table, pa.Table]:
    """Return the users that the source describes, and the refused lines; both empty where it describes none."""
    if source.users is None or source.layout.users is None:
        return arrow_schema(users_dataset(source.layout.schema)).empty_table(), refusal_table([])
    users = check_users(source.users, source.layout.users, source.layout.user, source.layout.schema)
    check_limit(source.users.name, users.rows, users.refused, limit)
    return users.accepted, users.refused


def _with_unknown(users: pa.Table, seen: list[str]) -> pa.Table:
    """Add a row of nulls for every user who has an event but no description."""
    unknown = sorted(set(seen) - set(users.column("user_id").to_pylist()))
    rows = pa.Table.from_pylist([{"user_id": user} for user in unknown], schema=users.schema)
    return pa.concat_tables([users, rows])


def _end(place: Namespace, span: tuple[int, int] | None, cutoff: datetime | None) -> datetime:
    """Return the cutoff, by default the midnight after the last event. SourceError where no event lies before it."""
    if span is None:
        msg = f"namespace {place.name}: expected at least one event that passes the checks, the source has none"
        raise SourceError(msg)
    first, last = (datetime.fromtimestamp(second, UTC) for second in span)
    end = cutoff or datetime.combine(last.date() + timedelta(days=1), time(), UTC)
    if first >= end:
        msg = (
            f"namespace {place.name}: expected events before the cutoff {format_cutoff(end)}, the source's first "
            f"one is of {first:%Y-%m-%d %H:%M:%S} UTC; choose a later cutoff"
        )
        raise SourceError(msg)
    return end


@contextmanager
def _scratch(place: Namespace) -> Iterator[Path]:
    """Give a folder for the checks' database; under the lock, what lies there is a dead job's and is removed."""
    place.locks.mkdir(parents=True, exist_ok=True)
    folder = place.root / ".ingest"
    with exclusive(place.locks / "ingest.lock", f"ingestion of namespace {place.name}"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
