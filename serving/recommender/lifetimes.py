"""Item features that are older than their group's `ttl_days`, on the platform's clock, are missing.

Users' rows carry their event times in Redis. Items lie in memory between two refreshes, so the catalogue carries the
event time of each group that grows old, and what has grown old is left out request by request.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts.columns import Column, Dtype
from serving.recommender.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from feature_repo.contracts.features import FeatureGroup

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ALWAYS_KNOWN = np.iinfo(np.int64).max
"""For an item without a row: its features are missing as they stand."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How old the items' features of one group are, and how old they may be."""

    columns: tuple[Column, ...]
    as_of_us: NDArray[np.int64]
    """Event time of each item's row, `[items]`, in microseconds since 1970."""
    ttl_us: int

    def expire(self, inputs: dict[str, NDArray[Any]], candidates: NDArray[np.intp], now: datetime) -> None:
        """Put `missing` in place of what is too old at `now`. `inputs` are the candidates' own copies."""
        oldest = (now - _EPOCH) // _MICROSECOND - self.ttl_us
        old = self.as_of_us[candidates] < oldest
        if not old.any():
            return
        for column in self.columns:
            if column.name in inputs:
                missing = str(column.missing).encode() if column.dtype is Dtype.STRING else column.missing
                inputs[column.name][old] = missing


def item_lifetimes(table: pa.Table, groups: Iterable[FeatureGroup], source: str) -> tuple[Lifetime, ...]:
    """Read the event times of the groups that grow old from a catalogue's table, in its order.

    Raises:
        SnapshotError: The table does not have them. `source` names the file.
    """
    lifetimes = []
    for group in groups:
        if not group.ttl_days:
            continue
        column = group.time_column
        if column.name not in table.column_names:
            msg = f"{source}: expected the column {column.name}, because {group.name} grows old; publish again"
            raise SnapshotError(msg)
        times = pc.cast(table.column(column.name), pa.timestamp("us", tz="UTC")).cast(pa.int64())
        as_of = pc.fill_null(times, _ALWAYS_KNOWN).to_numpy()
        lifetimes.append(Lifetime(group.features, as_of, group.ttl_days * (timedelta(days=1) // _MICROSECOND)))
    return tuple(lifetimes)
