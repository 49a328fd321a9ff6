"""Landed events into the lake: each event once, with the value that came last, in the partition of its day.

Two tables. `streamed` holds what came by the stream, each event with its position, so that a correction wins over what
it corrects in whatever order and however often files arrive. `events` is what a source's file says with the streamed
events over it: an ingestion of the whole source takes none of them away. A streamed event that the data set no longer
has a meaning for (its item left the catalogue, its type the schema) waits in `streamed` alone until it has one again.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contracts.columns import FLOAT32_ERROR, float32
from feature_repo.contracts.datasets import (
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    ITEM_ID,
    USER_ID,
    VALUE,
    items_dataset,
    users_dataset,
)
from feature_repo.contracts.events import LANDED, POSITION_HIGH, POSITION_LOW
from feature_repo.contracts.schemas import read_schema
from pipelines.errors import CorruptDatasetError
from pipelines.io.arrow import arrow_schema
from pipelines.io.days import by_day
from pipelines.io.lake import UNDIVIDED, StoredTable, partition_file, partition_name, stored_dataset
from pipelines.io.merging import upserted, with_unknown_users
from pipelines.stream.landing import landed_files, read_landing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema

_FILES_AT_A_TIME = 200
"""Of 10,000 events at most: so many fit in memory."""
_KEY = list(EVENTS.key)
_NOWHERE_ELSE = (
    "if a write was interrupted, `python -m pipelines land` finishes it; otherwise restore the file from a backup, or, "
    "without one, remove its folder and its entry in the manifest: `events` keeps that day's streamed events until the "
    "next ingestion of the whole source"
)
"""What came by the stream is in no source: nothing writes it anew."""


@dataclass(slots=True)
class Merged:
    """What a merge did."""

    events: int = 0
    """Rows of the landing files, repeated ones included."""
    files: int = 0
    partitions: set[str] = field(default_factory=set)
    """Partitions of the events table that changed."""
    new_users: int = 0
    left_out: int = 0
    """Streamed events of the same days that the data set has no meaning for."""


def _nothing(_: str) -> bool:
    return False


def merge_landed(place: Namespace, mends: Callable[[str], bool] = _nothing) -> Merged:
    """Bring every landing file into the lake, and remove it when the lake's manifest has what it holds.

    The caller holds the namespace's ingestion lock. Killed at any moment, the next call ends with the same lake.

    Args:
        place: The namespace.
        mends: Which partitions of `events` and `users` the caller writes next, streamed events included: a damaged one
            of them is left to it.

    Raises:
        CorruptDatasetError: A landing file or another partition is damaged; nothing of it was changed.
        LockedError: Somebody writes one of the tables.
    """
    merged = Merged()
    files = landed_files(place)
    known = _known(place, mends) if files and stored_dataset(place, EVENTS).exists else None
    for start in range(0, len(files), _FILES_AT_A_TIME):
        _merge_files(place, files[start : start + _FILES_AT_A_TIME], merged, known, mends)
    return merged


def _merge_files(
    place: Namespace, files: Sequence[Path], merged: Merged, known: Known | None, mends: Callable[[str], bool]
) -> None:
    landed = read_landing(files).sort_by(EVENT_TIME.name)
    days = {partition_name(day): rows for day, rows in by_day(landed.to_batches(), EVENT_TIME.name)}
    with streamed_table(place).rewriting(days.__contains__) as writer:
        for name, rows in days.items():
            writer.add(name, latest(pa.concat_tables([writer.current(name), rows])))
    events = stored_dataset(place, EVENTS)
    if events.exists:
        written: set[str] = set()
        with streamed_over(place) as everything, events.rewriting(written.__contains__) as writer:
            written |= {name for name in days if not (mends(name) and writer.is_damaged(name))}
            streamed = everything.among(known, written)
            for name in sorted(written):
                if (rows := streamed.over(name, writer.current(name))).num_rows:
                    writer.add(name, rows)
            merged.left_out += streamed.left_out.num_rows
        merged.partitions |= set(writer.changed)
        merged.new_users += _add_users(place, streamed.users(written), mends)
    for file in files:
        file.unlink()
    merged.events += landed.num_rows
    merged.files += len(files)


def streamed_table(place: Namespace) -> StoredTable:
    """Return the table of what came by the stream."""
    return StoredTable(
        LANDED,
        place.dataset(LANDED.name),
        place.locks / f"lake-{LANDED.name}.lock",
        "python -m pipelines land",
        _NOWHERE_ELSE,
        "restore it from a backup, and leave the files beside it alone: nothing else has what came by the stream",
    )


def forget_streamed(place: Namespace) -> None:
    """Let nothing be left of what came by the stream: it was of a data set that another one takes the place of."""
    table = streamed_table(place)
    if table.exists:
        with table.rewriting():
            pass  # nothing is added


def latest(rows: pa.Table) -> pa.Table:
    """Return one row for each event: that at the last position."""
    order = [*_KEY, POSITION_HIGH.name, POSITION_LOW.name]
    rows = rows.sort_by([(name, "ascending") for name in order]).combine_chunks()
    if rows.num_rows < 2:  # noqa: PLR2004 - one row has no neighbour
        return rows
    differs = np.zeros(rows.num_rows - 1, dtype=bool)
    for name in _KEY:
        values = rows.column(name).chunk(0)
        differs |= pc.not_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(np.append(differs, [True])))


@contextmanager
def streamed_over(place: Namespace) -> Iterator[Streamed]:
    """Give what came by the stream to whoever writes the events table; DatasetChangedError if it changed meanwhile."""
    table = streamed_table(place)
    if not table.exists:
        yield Streamed(table.folder, ())
        return
    with table.reading() as snapshot:
        yield Streamed(table.folder, tuple(snapshot.partitions))


@dataclass(frozen=True, slots=True)
class Known:
    """What the data set has a meaning for."""

    items: pa.ChunkedArray
    """Ids."""
    schema: Schema

    def without_meaning(self, events: pa.Table) -> pa.Table:
        """Return the events whose item, type or value is none of what there may be."""
        if not events.num_rows:
            return events
        # All the items are looked at once, and not for each event.
        met = events.column(ITEM_ID.name).unique()
        known = met.filter(pc.is_in(met, self.items))
        value, allowed = events.column(VALUE.name), self.schema.value
        off = pc.abs(pc.subtract(value, pc.multiply(pc.round(pc.divide(value, allowed.step)), allowed.step)))
        conditions = (
            pc.is_in(events.column(ITEM_ID.name), known),
            pc.is_in(events.column(EVENT_TYPE.name), pa.array([each.name for each in self.schema.event_types])),
            pc.and_(pc.greater_equal(value, float32(allowed.minimum)), pc.less_equal(value, float32(allowed.maximum))),
            pc.less_equal(off, pc.multiply(pc.abs(value), FLOAT32_ERROR)),
        )
        return events.filter(pc.invert(reduce(pc.and_, conditions)))


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came by the stream, as it lies in the lake."""

    folder: Path
    names: tuple[str, ...]
    """Partitions that have any."""
    left_out: pa.Table = field(default_factory=lambda: arrow_schema(EVENTS).empty_table())
    """Events that nothing shows, as the data set has no meaning for them."""

    def among(self, known: Known | None, names: Collection[str] | None = None) -> Streamed:
        """Return the same without what has no meaning for `known`, looked for in `names` (default: everywhere)."""
        if known is None:
            return self
        found = (known.without_meaning(self._stored(name)) for name in sorted(self.names if names is None else names))
        return replace(self, left_out=pa.concat_tables([self.left_out, *found]))

    def rows(self, name: str) -> pa.Table:
        """Return a partition's streamed events, as rows of the events dataset."""
        return self._without_left_out(self._stored(name))

    def over(self, name: str, rows: pa.Table) -> pa.Table:
        """Return a partition's `rows` with the streamed events in place of, or beside them.

        Events that are left out go from `rows`, too, where they were shown once.
        """
        return upserted(self.rows(name), self._without_left_out(rows), EVENTS)

    def users(self, names: Collection[str] | None = None) -> set[str]:
        """Return everybody who has a streamed event in `names` (default: everywhere)."""
        parts = map(self.rows, self.names if names is None else names)
        return {user for rows in parts for user in rows.column(USER_ID.name).unique().to_pylist()}

    def _stored(self, name: str) -> pa.Table:
        schema = arrow_schema(EVENTS)
        if name not in self.names:
            return schema.empty_table()
        file = pq.ParquetFile(partition_file(self.folder, name))
        return file.read(columns=list(EVENTS.column_names)).select(EVENTS.column_names).cast(schema)

    def _without_left_out(self, rows: pa.Table) -> pa.Table:
        if not self.left_out.num_rows or not rows.num_rows:
            return rows
        columns = list(EVENTS.column_names)
        return rows.select(columns).join(self.left_out, keys=columns, join_type="left anti").select(columns)

    def last_time(self, until: datetime) -> datetime | None:
        """Return the time of the last streamed event before `until`; None if there is none."""
        for name in reversed(self.names):
            times = self.rows(name).column(EVENT_TIME.name)
            last: datetime | None = pc.max(times.filter(pc.less(times, pa.scalar(until, times.type)))).as_py()
            if last is not None:
                return last
        return None


def _known(place: Namespace, mends: Callable[[str], bool]) -> Known | None:
    """Return what the lake knows; None where its items are damaged, and the caller writes them anew."""
    schema = read_schema(place)
    items = stored_dataset(place, items_dataset(schema))
    items.finish()
    try:
        files = items.snapshot().files
    except CorruptDatasetError:
        if mends(UNDIVIDED):
            return None
        raise
    return Known(pq.read_table(files, columns=[ITEM_ID.name], partitioning=None).column(0), schema)


def _add_users(place: Namespace, seen: Collection[str], mends: Callable[[str], bool]) -> int:
    """Give everybody in `seen` whom the users table does not have a row that says nothing of them; return how many."""
    dataset = users_dataset(read_schema(place))
    left: set[str] = set()
    with stored_dataset(place, dataset).rewriting(lambda name: name not in left) as writer:
        try:
            users = writer.current(UNDIVIDED)
        except CorruptDatasetError:
            if not mends(UNDIVIDED):
                raise
            left.add(UNDIVIDED)
            return 0
        everybody = with_unknown_users(users, seen)
        writer.add(UNDIVIDED, everybody)
    return int(everybody.num_rows - users.num_rows)
