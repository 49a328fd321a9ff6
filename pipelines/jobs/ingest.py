"""Check a source and write its events before the cutoff, its items, its users and what was refused to the lake."""

from __future__ import annotations

import logging
import shutil
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from feature_repo.contracts.datasets import (
    EVENT_TIME,
    EVENTS,
    ITEM_ID,
    QUARANTINE,
    RELATIONS,
    item_versions_dataset,
    items_dataset,
    known_items_dataset,
    known_users_dataset,
    observations_dataset,
    user_versions_dataset,
    users_dataset,
)
from feature_repo.contracts.intervals import end_of_day, format_cutoff, last_midnight
from feature_repo.contracts.places import REPORT
from feature_repo.locks import exclusive
from pipelines.checks.events import CheckedEvents
from pipelines.checks.plausibility import implausible_attributes
from pipelines.checks.refusals import check_limit, told_of
from pipelines.checks.strays import check_not_all_of_1970
from pipelines.checks.times import micros_of_moment
from pipelines.errors import QuarantineLimitError, SourceError
from pipelines.io.arrow import arrow_schema
from pipelines.io.days import by_day
from pipelines.io.lake import (
    UNDIVIDED,
    is_before,
    partition_day,
    partition_name,
    partitions_sha256,
    stored_dataset,
)
from pipelines.io.merging import upserted, with_unknown_users
from pipelines.reports.refusals_page import TABLE, publish_refusals
from pipelines.sources.detection import open_source
from pipelines.sources.mode import Mode
from pipelines.sources.observations import read_off
from pipelines.sources.same_data_set import check_same_data_set, check_same_whole, keep_meaning
from pipelines.stream.merge import Known, Streamed, forget_streamed, merge_landed, streamed_over, streamed_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.places import Namespace
    from pipelines.io.lake import Writer
    from pipelines.settings import Settings
    from pipelines.sources.adapter import CheckedTable, Source

_log = logging.getLogger(__name__)


def run(  # noqa: PLR0917 - what, where, up to when, as what
    settings: Settings,
    place: Namespace,
    path: Path,
    cutoff: datetime | None,
    clock: datetime | None,
    mapping: Path | None = None,
    mode: Mode = Mode.WHOLE,
) -> Mapping[str, object]:
    """Ingest the source at `path`, in a published layout or as `mapping` says.

    Items, users and refusals are those of the whole source, whatever the cutoff, where it has files of them. With a
    cutoff, partitions of days from it on belong to later intervals and stay as they are; without one, the source is all
    there is. A part replaces nothing but rows of the same keys. What came by the stream stays in either case, and wins
    over what the source says of the same event (decision 0073).

    Raises:
        SourceError: the source as a whole cannot be read, holds no event before the cutoff, or is a part of another
            data set than the lake holds, or one that is read in another way.
        QuarantineLimitError: too many rows of a file were refused; the lake stays as it was. The result names the
            report, which has all of them.
        LockedError: another ingestion of the namespace is at work.
    """
    source = open_source(path, mapping, is_part=mode is Mode.PART)
    source.check()
    if mode is Mode.PART:
        check_same_data_set(place, source)
    now, limit = clock or datetime.now(UTC), settings.quarantine_limit
    told = _with_report(place, source, cutoff or last_midnight(now))

    def mends(name: str) -> bool:
        return mode is Mode.REPLACE or (mode is Mode.WHOLE and is_before(name, cutoff))

    with _scratch(place) as scratch, _streamed(place, mends, mode) as streamed, told:
        lake = _Lake(place, source, mode, cutoff, now, streamed, scratch)
        items, users, relations = source.items(), source.users(), source.relations(now)
        for table in (items, users, relations):
            if table is not None:
                check_limit(table.rows, table.refused, limit, is_mapped=source.is_mapped)
        events = CheckedEvents(scratch, source)
        with closing(events):
            events.load(lake.known_items(items), now, lake.held_days())
            refused = events.refused()
            check_limit(events.rows, refused, limit, is_mapped=source.is_mapped)
            span = _span(place, events, cutoff, may_be_quiet=mode is Mode.PART and place.schema.exists())
            if span:
                check_not_all_of_1970("events.time", source.fields.time, span)
            if mode is Mode.WHOLE:
                check_same_whole(place, source, events.passed(), streamed)
            quarantine = pa.concat_tables([refused, *(table.refused for table in (items, users, relations) if table)])
            if mode is Mode.REPLACE:
                forget_streamed(place)
            keep_meaning(place, source)
            return lake.write(events, _Tables(items, users, relations), quarantine, span)


@dataclass(frozen=True, slots=True)
class _Tables:
    """What a source has beside its events, each None where it has no file of it."""

    items: CheckedTable | None
    users: CheckedTable | None
    relations: CheckedTable | None


@dataclass(slots=True)
class _Lake:
    """Where a source goes, and how."""

    place: Namespace
    source: Source
    mode: Mode
    cutoff: datetime | None
    now: datetime
    streamed: Streamed
    scratch: Path
    changed: int = 0

    def known_items(self, items: CheckedTable | None) -> pa.Table | None:
        """Return the items that events may be of; None where items are whatever has an event."""
        if self._derives(ITEM_ID.name):
            return None
        dataset = items_dataset(self.source.schema)
        stored = self._kept(dataset)
        return stored if items is None else upserted(items.accepted, stored, dataset)

    def held_days(self) -> list[tuple[int, int]]:
        """Return when the events are that a part is added to: each day, in microseconds since 1970, and its rows."""
        days = stored_dataset(self.place, EVENTS).partitions if self._is_part else {}
        return [(micros_of_moment(partition_day(name)), day.rows) for name, day in days.items()]

    def write(
        self, events: CheckedEvents, given: _Tables, quarantine: pa.Table, span: tuple[datetime, datetime] | None
    ) -> dict[str, object]:
        """Write every table and return the job's result; `span` is None where a part has no event."""
        schema = self.source.schema
        last = span[1] if span else self._last_of_lake()
        self._write(QUARANTINE, upserted(quarantine, self._kept(QUARANTINE), QUARANTINE))
        files = self._write_observations(events, self.cutoff or end_of_day(last))
        item_rows = self._entities(items_dataset(schema), item_versions_dataset(schema), given.items, files)
        user_rows = self._entities(users_dataset(schema), user_versions_dataset(schema), given.users, files)
        related = self._relations(given.relations)
        self.streamed = self.streamed.among(Known(item_rows.column(ITEM_ID.name), schema))
        until = self.cutoff or self._end(last)
        user_rows = with_unknown_users(user_rows, {*events.users(), *self.streamed.users(), *related})
        for dataset, rows in ((items_dataset(schema), item_rows), (users_dataset(schema), user_rows)):
            self._write(dataset, rows)
        writer = self._write_days(EVENTS, events.before(until), until)
        end = self.cutoff or self._end_of_lake(writer, until)
        written = {name: partition for name, partition in writer.partitions.items() if is_before(name, end)}
        skipped = events.skipped
        left_out = self.streamed.left_out
        warnings = [
            *events.warnings(),
            *implausible_attributes(schema, item_rows, user_rows),
            *_left_out_told(left_out),
        ]
        for warning in (*told_of(quarantine, is_mapped=self.source.is_mapped), *warnings):
            _log.warning("%s", warning)
        return {
            "cutoff": format_cutoff(end),
            "events": sum(partition.rows for partition in written.values()),
            "checksum": partitions_sha256(written),
            "changed_partitions": self.changed,
            "items": item_rows.num_rows,
            "users": user_rows.num_rows,
            "quarantined": quarantine.num_rows,
            **({"streamed_left_out": left_out.num_rows} if left_out.num_rows else {}),
            **({"skipped": skipped} if skipped else {}),
            **({"warnings": warnings} if warnings else {}),
        }

    @property
    def _is_part(self) -> bool:
        return self.mode is Mode.PART

    def _end(self, last: datetime) -> datetime:
        """Return the midnight after the last event, of streamed ones of those of days that are over.

        A day that goes on is the stream's own.
        """
        last_streamed = self.streamed.last_time(last_midnight(self.now))
        return end_of_day(max(last, last_streamed) if last_streamed else last)

    def _last_of_lake(self) -> datetime:
        """Return a moment of the last day that is over and of which the lake holds events."""
        names = stored_dataset(self.place, EVENTS).snapshot(before=last_midnight(self.now)).partitions
        return max((partition_day(name) for name in names), default=last_midnight(self.now) - timedelta(days=1))

    def _end_of_lake(self, writer: Writer, until: datetime) -> datetime:
        """Return `until`, or after a part the midnight after the last day of the lake that is over, if later."""
        over = [end for name in writer.partitions if (end := end_of_day(partition_day(name))) <= self.now]
        return max(until, *over) if self._is_part and over else until

    def _derives(self, key: str) -> bool:
        """Tell whether items or users, by the name of their id, are read off the event rows."""
        if key == ITEM_ID.name:
            return self.source.derives_items
        return any(f"{each.owner}_id" == key for each in self.source.derived)

    def _write_observations(self, events: CheckedEvents, until: datetime) -> list[Path]:
        """Write what is derived from, and return all files of it that the lake holds."""
        if not (self.source.derives_items or self.source.derived):
            return []
        dataset = observations_dataset(tuple(each.column for each in self.source.derived))
        self._write_days(dataset, events.observations(until), until)
        return stored_dataset(self.place, dataset).snapshot().files

    def _stored(self, dataset: Dataset) -> pa.Table:
        """Return what the lake holds of an undivided table."""
        table = stored_dataset(self.place, dataset)
        table.finish()
        return table.snapshot().read() if table.exists else arrow_schema(dataset).empty_table()

    def _kept(self, dataset: Dataset) -> pa.Table:
        """Return what an ingestion adds to: a part to what the lake holds of an undivided table, a whole to nothing."""
        return self._stored(dataset) if self._is_part else arrow_schema(dataset).empty_table()

    def _entities(self, dataset: Dataset, versions: Dataset, given: CheckedTable | None, files: list[Path]) -> pa.Table:
        """Return the rows of items or users: read off, or the source's own, in a part over those of the lake.

        Attributes that are read off are written as versions, too, of all days that the lake has: a late row changes
        later ones. Of a title alone, a label for people, the newest is enough.
        """
        stored = self._kept(dataset)
        if self._derives(dataset.key[0]) and files:
            with read_off(files, versions, self.source.derived, self.scratch) as found:
                if versions in {known_items_dataset(self.source.schema), known_users_dataset(self.source.schema)}:
                    self._write_versions(versions, found.in_order_of_time())
                return upserted(found.newest(dataset), stored, dataset)
        return upserted(given.accepted, stored, dataset) if given else stored

    def _relations(self, given: CheckedTable | None) -> set[str]:
        """Write who follows whom, and return everybody who is among them."""
        if not self.source.schema.has_relations:
            return set()
        stored = self._kept(RELATIONS)
        rows = upserted(given.accepted, stored, RELATIONS) if given else stored
        self._write(RELATIONS, rows)
        return {user for column in RELATIONS.key for user in rows.column(column).to_pylist()}

    def _write_versions(self, dataset: Dataset, batches: Iterator[pa.RecordBatch]) -> None:
        with stored_dataset(self.place, dataset).rewriting() as writer:
            for day, rows in by_day(batches, EVENT_TIME.name):
                writer.add(partition_name(day), rows)
        self.changed += len(writer.changed)

    def _write(self, dataset: Dataset, rows: pa.Table) -> None:
        with stored_dataset(self.place, dataset).rewriting() as writer:
            writer.add(UNDIVIDED, rows)
        self.changed += len(writer.changed)

    def _write_days(self, dataset: Dataset, batches: Iterator[pa.RecordBatch], until: datetime) -> Writer:
        """Write a table of days: all of them before `until`, or those that a part has rows of.

        Of the events, other days are written again as well where what came by the stream has a meaning now, or none.
        """
        touched: set[str] = set()

        def replaces(name: str) -> bool:
            is_within = self.mode is Mode.REPLACE or self.cutoff is None or is_before(name, until)
            is_anew = not self._is_part and is_within
            return is_anew or name in touched

        with stored_dataset(self.place, dataset).rewriting(replaces) as writer:
            for day, rows in by_day(batches, EVENT_TIME.name):
                name = partition_name(day)
                rows_of_day = upserted(rows, writer.current(name), dataset) if self._is_part else rows
                touched.add(name)
                writer.add(name, self.streamed.over(name, rows_of_day) if dataset is EVENTS else rows_of_day)
            for name in self.streamed.names if dataset is EVENTS else ():
                is_kept = not replaces(name)
                if name in touched or (is_kept and writer.is_damaged(name)):
                    continue  # a damaged day is for who writes it anew
                touched.add(name)
                before = writer.current(name) if is_kept else arrow_schema(EVENTS).empty_table()
                if (rows := self.streamed.over(name, before)).num_rows:
                    writer.add(name, rows)
        self.changed += len(writer.changed)
        return writer


def _left_out_told(left_out: pa.Table) -> list[str]:
    """Say which streamed events the data set has no meaning for any more."""
    if not left_out.num_rows:
        return []
    first = left_out.slice(0, 1).to_pylist()[0]
    msg = (
        f"{left_out.num_rows:,} streamed {'event is' if left_out.num_rows == 1 else 'events are'} of an item, a type "
        f"or a value that the data set does not have, the first user {first['user_id']!r}, item {first['item_id']!r}, "
        f"{first['event_type']} of {first['value']:g}: left out of `events`, kept in `streamed`, and back with the "
        "next ingestion that has them"
    )
    return [msg]


@contextmanager
def _with_report(place: Namespace, source: Source, moment: datetime) -> Iterator[None]:
    """Show whoever gets to hear of too many refusals all of them."""
    try:
        yield
    except QuarantineLimitError as error:
        report = publish_refusals(place, source.name, moment, error)
        folder = place.reports / report
        msg = f"{error} The first of each reason: {folder / REPORT}; all refused rows: {folder / TABLE}"
        told = QuarantineLimitError(msg, error.rows, error.refused, error.limit)
        told.result = {"report": report, "quarantined": error.refused.num_rows}
        raise told from error


@contextmanager
def _streamed(place: Namespace, mends: Callable[[str], bool], mode: Mode) -> Iterator[Streamed]:
    """Give what came by the stream, merged as far as it has landed; damaged partitions that `mends` names are left.

    What takes the place of another data set has nothing of its stream.
    """
    merge_landed(place, mends)
    if mode is Mode.REPLACE:
        yield Streamed(streamed_table(place).folder, ())
        return
    with streamed_over(place) as streamed:
        yield streamed


def _span(
    place: Namespace, events: CheckedEvents, cutoff: datetime | None, *, may_be_quiet: bool
) -> tuple[datetime, datetime] | None:
    """Return the times of the first and the last event, None where none is and none need be.

    Raises:
        SourceError: none lies before the cutoff.
    """
    span = events.span()
    if span is None and may_be_quiet:
        return None
    if span is None:
        msg = f"namespace {place.name}: expected at least one event that passes the checks, the source has none"
        if left_out := {reason: rows for reason, rows in events.skipped.items() if rows}:
            msg = f"{msg}: left out were {left_out} rows by reason; is a rule of events.skip too wide?"
        raise SourceError(msg)
    if cutoff and span[0] >= cutoff:
        msg = (
            f"namespace {place.name}: expected events before the cutoff {format_cutoff(cutoff)}, the source's first "
            f"one is of {span[0]:%Y-%m-%d %H:%M:%S} UTC; choose a later cutoff"
        )
        raise SourceError(msg)
    return span


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
