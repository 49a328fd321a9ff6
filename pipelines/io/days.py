"""Cut a stream of rows, ordered by time, into one table per day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EPOCH = date(1970, 1, 1)
_MICROSECONDS_PER_DAY = 86_400_000_000


def by_day(batches: Iterable[pa.RecordBatch], time_column: str) -> Iterator[tuple[date, pa.Table]]:
    """Yield each UTC day's rows. `batches` come in order of their days; no more than one day is held in memory."""
    day, pending = 0, list[pa.RecordBatch]()
    for batch in batches:
        for start, stop, next_day in _runs(batch.column(time_column)):
            if pending and next_day != day:
                yield _EPOCH + timedelta(days=day), pa.Table.from_batches(pending)
                pending = []
            day = next_day
            pending.append(batch.slice(start, stop - start))
    if pending:
        yield _EPOCH + timedelta(days=day), pa.Table.from_batches(pending)


def _runs(times: pa.Array) -> Iterator[tuple[int, int, int]]:
    """Yield start, stop and day number of every run of rows of one day."""
    microseconds = pc.cast(pc.cast(times, pa.timestamp("us", tz="UTC")), pa.int64()).to_numpy()
    days = microseconds // _MICROSECONDS_PER_DAY
    starts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    for start, stop in zip(starts, [*starts[1:], len(days)], strict=True):
        yield int(start), int(stop), int(days[start])
