"""Landed events into the lake: each event once, with the value that came last, in the partition of its day.

Two tables. `streamed` holds what came by the stream, each event with its position, so that a correction wins over what
it corrects in whatever order and however often files arrive. `events` is what a source's file says with the streamed
events over it: an ingestion of the whole source takes none of them away. A streamed event that the data set no longer
has a meaning for (its item left the catalogue, its type the schema) waits in `streamed` alone until it has one again.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
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
        DatasetLockedError: Somebody writes one of the tables.
    """
    merged = Merged()
    files = landed_files(place)
    for start in range(0, len(files), _FILES_AT_A_TIME):
        _merge_files(place, files[start : start + _FILES_AT_A_TIME], merged, mends)
    return merged


def _merge_files(place: Namespace, files: Sequence[Path], merged: Merged, mends: Callable[[str], bool]) -> None:
    landed = read_landing(files).sort_by(EVENT_TIME.name)
    days = {partition_name(day): rows for day, rows in by_day(landed.to_batches(), EVENT_TIME.name)}
    with streamed_table(place).rewriting(days.__contains__) as writer:
        for name, rows in days.items():
            writer.add(name, latest(pa.concat_tables([writer.current(name), rows])))
    events = stored_dataset(place, EVENTS)
    if events.exists:
        written: set[str] = set()
        known = _known(place, mends)
        with streamed_over(place, known) as streamed, events.rewriting(written.__contains__) as writer:
            written |= {name for name in days if not (mends(name) and writer.is_damaged(name))}
            for name in sorted(written):
                if (rows := streamed.over(name, writer.current(name))).num_rows:
                    writer.add(name, rows)
            merged.left_out += streamed.left_out(written).num_rows
        merged.partitions |= set(writer.changed)
        merged.new_users += _add_users(place, set(landed.column(USER_ID.name).to_pylist()), mends)
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
def streamed_over(place: Namespace, known: Known | None = None) -> Iterator[Streamed]:
    """Give what came by the stream to whoever writes the events table; DatasetChangedError if it changed meanwhile."""
    table = streamed_table(place)
    if not table.exists:
        yield Streamed(table.folder, (), known)
        return
    with table.reading() as snapshot:
        yield Streamed(table.folder, tuple(snapshot.partitions), known)


@dataclass(frozen=True, slots=True)
class Known:
    """What the data set has a meaning for."""

    items: pa.ChunkedArray
    """Ids."""
    schema: Schema

    def fits(self, events: pa.Table) -> pa.ChunkedArray:
        """Tell of each event whether its item, its type and its value are among what there may be."""
        value, allowed = events.column(VALUE.name), self.schema.value
        types = pa.array([event_type.name for event_type in self.schema.event_types])
        off = pc.abs(pc.subtract(value, pc.multiply(pc.round(pc.divide(value, allowed.step)), allowed.step)))
        conditions = (
            pc.is_in(events.column(ITEM_ID.name), self.items),
            pc.is_in(events.column(EVENT_TYPE.name), types),
            pc.and_(pc.greater_equal(value, float32(allowed.minimum)), pc.less_equal(value, float32(allowed.maximum))),
            pc.less_equal(off, pc.multiply(pc.abs(value), FLOAT32_ERROR)),
        )
        return reduce(pc.and_, conditions)


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came by the stream, as it lies in the lake."""

    folder: Path
    names: tuple[str, ...]
    """Partitions that have any."""
    known: Known | None = None
    """What may be shown of it; None: everything."""

    def rows(self, name: str) -> pa.Table:
        """Return a partition's streamed events, as rows of the events dataset, as far as they have a meaning."""
        rows = self._all_rows(name)
        return rows.filter(self.known.fits(rows)) if self.known else rows

    def left_out(self, names: Collection[str]) -> pa.Table:
        """Return the streamed events of these partitions that have no meaning."""
        nothing = arrow_schema(EVENTS).empty_table()
        if self.known is None:
            return nothing
        parts = map(self._all_rows, sorted(names))
        return pa.concat_tables([nothing, *(rows.filter(pc.invert(self.known.fits(rows))) for rows in parts)])

    def _all_rows(self, name: str) -> pa.Table:
        schema = arrow_schema(EVENTS)
        if name not in self.names:
            return schema.empty_table()
        file = pq.ParquetFile(partition_file(self.folder, name))
        return file.read(columns=list(EVENTS.column_names)).select(EVENTS.column_names).cast(schema)

    def over(self, name: str, rows: pa.Table) -> pa.Table:
        """Return a partition's `rows` with the streamed events in place of, or beside them."""
        return upserted(self.rows(name), rows, EVENTS)

    def users(self) -> set[str]:
        """Return everybody who has a streamed event."""
        return {user for name in self.names for user in self.rows(name).column(USER_ID.name).to_pylist()}

    def last_time(self, until: datetime) -> datetime | None:
        """Return the time of the last streamed event before `until`; None if there is none."""
        for name in reversed(self.names):
            times = self.rows(name).column(EVENT_TIME.name)
            last: datetime | None = pc.max(times.filter(pc.less(times, pa.scalar(until, times.type)))).as_py()
            if last is not None:
                return last
        return None


def _known(place: Namespace, mends: Callable[[str], bool]) -> Known | None:
    """Return what the lake knows; None where its items are damaged, and the caller writes them and all events anew."""
    schema = read_schema(place)
    items = stored_dataset(place, items_dataset(schema))
    items.finish()
    try:
        return Known(items.snapshot().read().column(ITEM_ID.name), schema)
    except CorruptDatasetError:
        if mends(UNDIVIDED):
            return None
        raise


def _add_users(place: Namespace, seen: Collection[str], mends: Callable[[str], bool]) -> int:
    """Give everybody in `seen` whom the users table does not have a row that says nothing of them; return how many."""
    dataset = users_dataset(read_schema(place))
    left: set[str] = set()
    with stored_dataset(place, dataset).rewriting(lambda name: name not in left) as writer:
        if mends(UNDIVIDED) and writer.is_damaged(UNDIVIDED):
            left.add(UNDIVIDED)
            return 0
        users = writer.current(UNDIVIDED)
        everybody = with_unknown_users(users, seen)
        writer.add(UNDIVIDED, everybody)
    return int(everybody.num_rows - users.num_rows)
