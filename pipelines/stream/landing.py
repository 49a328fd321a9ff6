"""Landing files: events that came by the stream, on their way to the lake. Each is there whole or not at all."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.events import LANDED, Event
from feature_repo.contracts.publishing import remove_abandoned, replacing
from feature_repo.locks import exclusive
from pipelines.errors import CorruptDatasetError
from pipelines.io.arrow import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from feature_repo.contracts.places import Namespace
    from pipelines.stream.source import EventSource, Received

_BATCH = 10_000
"""Events of one landing file, at most."""
_log = logging.getLogger(__name__)


def landing_lock(place: Namespace, wait_s: float) -> AbstractContextManager[None]:
    """Let one reader at a time land events: what is pending in its group is then a dead one's.

    LockedError if another does for longer than `wait_s`.
    """
    return exclusive(place.locks / "landing.lock", f"landing zone of namespace {place.name}", wait_s)


def drain(source: EventSource, place: Namespace) -> int:
    """Land everything that `source` has now, and only then acknowledge it; return how many events.

    Killed at any moment, the next call reads the same entries again: a file that holds some of them twice does no harm,
    because an event's position comes along and the lake keeps each event once. The caller holds the landing lock.
    """
    remove_abandoned(place.landing)
    landed = 0
    while received := source.read(_BATCH, 0):
        events = [(entry, event) for entry in received if (event := decode(source, entry)) is not None]
        if events:
            write_landing(place, events)
        source.acknowledge(received)
        landed += len(events)
    return landed


def decode(source: EventSource, entry: Received) -> Event | None:
    """Return the event of an entry; one that is none is put aside, so that it holds up nothing."""
    try:
        return Event.from_fields(entry.fields)
    except ValueError as error:
        _log.warning("entry %s of the stream is put aside: %s", entry.token, error)
        source.refuse(entry, str(error))
        return None


def write_landing(place: Namespace, events: Sequence[tuple[Received, Event]]) -> Path:
    """Write one file, named by the first and the last position and by what lies between; the same events, the same."""
    rows = [
        {**{name: getattr(event, name) for name in _SENT}, "position_high": entry.position.high}
        | {"position_low": entry.position.low}
        for entry, event in events
    ]
    first, last = (min(entry.position for entry, _ in events), max(entry.position for entry, _ in events))
    digest = hashlib.sha256(repr([entry.token for entry, _ in events]).encode()).hexdigest()[:8]
    name = f"{first.high}-{first.low}_{last.high}-{last.low}_{digest}.parquet"
    path = place.landing / name
    with replacing(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(LANDED)), part, compression="zstd")
    return path


def landed_files(place: Namespace) -> list[Path]:
    """Return the files that wait for the lake, oldest name first."""
    return sorted(place.landing.glob("[!.]*.parquet"))


def read_landing(files: Sequence[Path]) -> pa.Table:
    """Return the rows of landing files; CorruptDatasetError for a file that is none."""
    schema = arrow_schema(LANDED)
    tables = []
    for file in files:
        try:
            table = pq.ParquetFile(file).read()
        except (pa.ArrowInvalid, OSError) as error:
            msg = (
                f"{file}: expected a landing file in Parquet, received {error}; move it away: its events, unless they "
                "are in the stream still, are lost with it"
            )
            raise CorruptDatasetError(msg) from error
        if not table.schema.equals(schema):
            msg = f"{file}: expected the columns {schema.names}, received {table.schema.names}; move the file away"
            raise CorruptDatasetError(msg)
        tables.append(table)
    return pa.concat_tables([schema.empty_table(), *tables])


_SENT = tuple(name for name in LANDED.column_names if not name.startswith("position"))
