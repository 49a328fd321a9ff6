"""The last events after each event: 250 values a row, of which all but five are in the row before.

So Spark never makes them. It sorts each user's events and numbers them; the rows are gathered from the sorted columns
by their places, a block at a time (`SortedEvents.rows`): on executors where a data frame is wanted (`user_sequence`),
and in the job that stores them from what Spark wrote, a day at a time (`days`). There they lie in files that are mapped
into memory, not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.features import SEQUENCE_ITEMS
from pipelines.errors import JobError
from pipelines.features.activity import ends_moment
from pipelines.features.sessions import begins_session
from pipelines.features.tables import feature_dataset
from pipelines.io.arrow import arrow_schema, arrow_type
from pipelines.io.spark import spark_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.features import FeatureGroup

_SECOND_US, _DAY_US = 1_000_000, 86_400_000_000
_EPOCH, _TIME = date(1970, 1, 1), pa.timestamp("us", tz="UTC")
_BLOCK_ROWS = 1 << 14
"""So many rows are gathered at once: their places take 400 bytes each."""
_TEXTS = ("user_id", "item_id", "event_type")
_ENDS = "ends"
_SOURCES = {
    "user_sequence_items": "item_id",
    "user_sequence_times": "event_time",
    "user_sequence_types": "event_type",
    "user_sequence_values": "value",
    "user_sequence_sessions": "session",
}
"""Feature → column of events."""
_PARTED = (
    "events of one user: expected all of them one after another in one partition and one file, in order of time, found "
    "others between them; KESTREL_SPARK_OPTIONS must not make Spark part files (spark.sql.files.maxRecordsPerFile)"
)


def numbered_events(events: DataFrame) -> DataFrame:
    """Return each user's events in order, as no partition and no file parts them: with number, session, `ends_moment`.

    Args:
        events: those that are counted, as in the events dataset.
    """
    order = Window.partitionBy("user_id").orderBy(F.asc("event_time"), F.desc("item_id"), F.desc("event_type"))
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return (
        events.select("*", begins_session(order))
        .withColumn("session", F.count(F.when(F.col("begins"), 1)).over(so_far))
        .withColumn("number", F.row_number().over(order))
        .select("user_id", "event_time", "item_id", "event_type", "value", "session", "number", ends_moment(order))
    )


def user_sequence(group: FeatureGroup, events: DataFrame) -> DataFrame:
    """Return the features of the group `user_sequence`, one row per (user, moment); `events` as above."""
    return numbered_events(events).mapInArrow(partial(_rows, group), spark_schema(feature_dataset(group)))


def _rows(group: FeatureGroup, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a partition, of which a batch may begin within a user: the events before it go with it."""
    before: list[pa.RecordBatch] = []
    for batch in batches:
        table = pa.Table.from_batches([*before, batch])
        events = SortedEvents.of(table)
        new = events.ends[events.ends >= table.num_rows - batch.num_rows]
        for places in _blocks(new):
            yield from events.rows(places, group).to_batches()
        before = table.slice(max(table.num_rows - SEQUENCE_ITEMS + 1, 0)).to_batches()


def days(group: FeatureGroup, start: datetime | None, folder: Path) -> Iterator[tuple[date, pa.Table]]:
    """Yield each UTC day's rows from what Spark wrote of `numbered_events`; those from `start` on, where there is one.

    No more is in memory than one day and the ids, and before that one of Spark's files at a time: the columns are
    written beside them, and mapped.

    Raises:
        JobError: A user's events are parted.
    """
    parts = _mapped(
        (
            SortedEvents.of(pq.read_table(file, partitioning=None))
            for file in sorted(folder.glob("part-*.parquet"))
            if pq.ParquetFile(file).metadata.num_rows
        ),
        folder / "columns",
    )
    ends = [part.ends_by_day() for part in parts]
    for day in sorted({day for each in ends for day in each}):
        if start is None or day >= start.date():
            found = ((part, each[day]) for part, each in zip(parts, ends, strict=True) if day in each)
            yield day, pa.concat_tables([part.rows(block, group) for part, own in found for block in _blocks(own)])


def _blocks(places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(places), _BLOCK_ROWS):
        yield places[start : start + _BLOCK_ROWS]


@dataclass(frozen=True, slots=True)
class SortedEvents:
    """Columns of `numbered_events`, of which texts are codes."""

    columns: Mapping[str, NDArray[Any]]
    """Name → `[events]`."""
    texts: Mapping[str, pa.Array]
    """Name → what the codes of the column stand for."""
    ends: NDArray[np.int64]
    """`[rows]`, the places of the events that end their moment, in order of time."""

    @classmethod
    def of(cls, events: pa.Table) -> Self:
        """Return the columns of a table; JobError where its events are in another order."""
        numbers = events.column("number").to_numpy()
        if not ((np.diff(numbers) == 1) | (numbers[1:] == 1)).all():
            raise JobError(_PARTED)
        coded = {name: _coded(events.column(name)) for name in _TEXTS}
        columns = {name: codes for name, (codes, _) in coded.items()}
        columns |= {name: events.column(name).to_numpy() for name in ("value", "session", "number")}
        columns["event_time"] = (
            events.column("event_time").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        )
        ends = np.flatnonzero(events.column("ends_moment").to_numpy())
        in_order = np.argsort(columns["event_time"][ends], kind="stable")
        return cls(columns, {name: terms for name, (_, terms) in coded.items()}, ends[in_order])

    def ends_by_day(self) -> dict[date, NDArray[np.int64]]:
        """Return UTC day → those of `ends` that lie in it."""
        days, first = np.unique(self.columns["event_time"][self.ends] // _DAY_US, return_index=True)
        parts = np.split(self.ends, first[1:])
        return {_EPOCH + timedelta(days=day): ends for day, ends in zip(days.tolist(), parts, strict=True)}

    def rows(self, places: NDArray[np.int64], group: FeatureGroup) -> pa.Table:
        """Return the rows of the group `user_sequence` after the events at `places`, `[rows]`.

        Raises:
            JobError: Events of the same user are missing before one of them.
        """
        back = np.arange(SEQUENCE_ITEMS)
        is_there = back < self.columns["number"][places][:, None]
        at = places[:, None] - back
        if (at[is_there] < 0).any():
            raise JobError(_PARTED)
        at = np.where(is_there, at, 0)
        times = pa.array(self.columns["event_time"][places]).cast(_TIME)
        lists = [self._list(column, at, is_there) for column in group.features]
        users = self.texts["user_id"].take(pa.array(self.columns["user_id"][places]))
        return pa.Table.from_arrays([users, times, *lists], schema=arrow_schema(feature_dataset(group)))

    def _list(self, column: Column, at: NDArray[np.int64], is_there: NDArray[np.bool_]) -> pa.Array:
        source = _SOURCES[column.name]
        found = self.columns[source][at.ravel()]
        if source == "event_time":
            found //= _SECOND_US
        if source in self.texts:
            known = self.texts[source]
            codes = np.where(is_there.ravel(), found, np.int32(len(known)))
            flat = pa.concat_arrays([known, pa.array([column.missing], known.type)]).take(pa.array(codes))
        else:
            flat = pa.array(np.where(is_there.ravel(), found, found.dtype.type(column.missing)))
        offsets = np.arange(0, len(flat) + 1, SEQUENCE_ITEMS, dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), flat).cast(arrow_type(column))


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Return `[rows]` codes of a column of texts, and what they stand for."""
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    return coded.indices.to_numpy(), coded.dictionary


def _mapped(parts: Iterable[SortedEvents], folder: Path) -> list[SortedEvents]:
    """Return the same from files in a new folder, mapped into memory.

    A column of all parts is one file: a file that is mapped stays open, and a process may not have many.
    """
    folder.mkdir()
    texts: list[Mapping[str, pa.Array]] = []
    kinds: dict[str, np.dtype[Any]] = {}
    counts: dict[str, list[int]] = {}
    for part in parts:
        texts.append(part.texts)
        for name, column in {**part.columns, _ENDS: part.ends}.items():
            with (folder / name).open("ab") as file:
                column.tofile(file)
            kinds[name] = column.dtype
            counts.setdefault(name, []).append(len(column))
    columns = {
        name: np.split(np.memmap(folder / name, kind, "r"), np.cumsum(counts[name])[:-1])
        for name, kind in kinds.items()
    }
    ends = columns.pop(_ENDS, [])
    return [
        SortedEvents({name: column[number] for name, column in columns.items()}, texts[number], ends[number])
        for number in range(len(texts))
    ]
