"""What the online store holds of some entities, beside what the offline store says of them as of one moment.

The online side is read three times: value by value by the layout of the bytes, by Feast's own client, and as the
recommender reads it, by the decoder that both share and by the platform's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.feast_redis import StoredValueError, decode_row
from pipelines.feast_store.online_writes import feature_field, time_field
from pipelines.feast_store.registry import quiet_output
from pipelines.feast_store.retrieval_jobs import LABEL_TIME
from pipelines.feast_store.tables import microseconds
from pipelines.feast_store.value_bytes import key_bytes
from pipelines.io.duck import duckdb_session
from pipelines.io.sql_text import identifier, parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import redis
    from feast import FeatureStore

    from feature_repo.contracts.features import FeatureGroup

BY_LAYOUT, BY_FEAST, BY_CLOCK = "the layout", "Feast", "the recommender's clock"
ROW = "(the row)"
"""Stands in a mismatch for the features when the row itself, or its event time, is at fault."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MEMORY = "1GB"
_KEYS_AT_ONCE = 1000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value online that is not what the offline store says."""

    view: str
    feature: str
    join_key: str
    entity: str
    reader: str
    expected: object
    received: object

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"view {self.view}, feature {self.feature}, {self.join_key} {self.entity!r}, read by {self.reader}: "
            f"expected {self.expected!r}, received {self.received!r}"
        )


@dataclass(slots=True)
class Comparison:
    """What was compared, and what differs."""

    values: int = 0
    newer: int = 0
    """Rows that differ because the stream has written them since."""
    expired: int = 0
    """Rows that read as missing because they are older than their lifetime."""
    mismatches: list[Mismatch] = field(default_factory=list)
    ahead: list[tuple[Mismatch, ...]] = field(default_factory=list)
    """What differs in rows that the stream may have written since: for each row, until it is known whether it did."""

    def expect(self, place: tuple[str, str, str, str, str], expected: object, received: object) -> None:
        """Compare one value; `place` is view, feature, join key, entity and reader."""
        self.values += 1
        if expected != received:
            self.mismatches.append(Mismatch(*place, expected, received))

    def add(self, other: Comparison) -> None:
        """Take over what another compared."""
        self.values += other.values
        self.newer += other.newer
        self.expired += other.expired
        self.mismatches += other.mismatches
        self.ahead += other.ahead

    def settle(self, is_streamed: Callable[[str, str], bool]) -> None:
        """Count the rows in `ahead` as newer or as mismatches; `is_streamed` says of view and entity which."""
        for row in self.ahead:
            if is_streamed(row[0].view, row[0].entity):
                self.newer += 1
            else:
                self.mismatches += row
        self.ahead = []


@dataclass(frozen=True, slots=True)
class OnlineRow:
    """A view's row of one entity as it lies online."""

    as_of: datetime | None
    """Its event time; None where there is none."""
    values: Mapping[str, Any]
    """Feature → value, however old."""
    served: Mapping[str, Any]
    """Feature → value as the recommender has it: none at all where the row is missing, or too old by its clock."""


def sampled_entities(
    tables: Sequence[Sequence[Path]], join_key: str, cutoff: datetime, seed: str, sample: int
) -> list[str]:
    """Return up to `sample` ids that any of the tables has before `cutoff`, each as likely as any other.

    They are those of the least salted hashes: DuckDB keeps that many and spills the rest, however many there are, and
    unlike a reservoir's their choice depends on `seed` and the ids alone, not on threads.
    """
    known = _ids(tables, join_key, cutoff)
    query = f"SELECT id FROM ({known}) ORDER BY md5(id || $1), id LIMIT {sample}"  # noqa: S608 - quoted
    with duckdb_session(_MEMORY) as connection:
        return [entity for (entity,) in connection.execute(query, [seed]).fetchall()]


def unknown_entities(
    tables: Sequence[Sequence[Path]], join_key: str, cutoff: datetime, candidates: Collection[str]
) -> list[str]:
    """Return those of the `candidates` that none of the tables has before `cutoff`, in order."""
    query = f"SELECT unnest($1::VARCHAR[]) AS id EXCEPT ({_ids(tables, join_key, cutoff)}) ORDER BY id"
    with duckdb_session(_MEMORY) as connection:
        return [entity for (entity,) in connection.execute(query, [list(candidates)]).fetchall()]


def _ids(tables: Sequence[Sequence[Path]], join_key: str, cutoff: datetime) -> str:
    rows = [
        f"SELECT {identifier(join_key)} AS id FROM {parquet(files)} WHERE {_before(cutoff)}"  # noqa: S608 - quoted
        for files in tables
        if files
    ]
    return " UNION ".join(rows or ["SELECT '' AS id WHERE false"])


def event_times(files: Sequence[Path], join_key: str, cutoff: datetime, entities: Sequence[str]) -> dict[str, datetime]:
    """Return the event time of each entity's latest row before `cutoff`; entities without one are left out."""
    if not files:
        return {}
    query = (
        f"SELECT {identifier(join_key)}, max({microseconds(EVENT_TIME.name)}) FROM {parquet(files)} "  # noqa: S608 - quoted
        f"WHERE {_before(cutoff)} AND {identifier(join_key)} IN (SELECT unnest($1)) GROUP BY ALL"
    )
    with duckdb_session(_MEMORY) as connection:
        rows = connection.execute(query, [list(entities)]).fetchall()
    return {entity: _EPOCH + timedelta(microseconds=time) for entity, time in rows}


def offline_values(
    store: FeatureStore, group: FeatureGroup, times: Mapping[str, datetime], entities: Sequence[str], cutoff: datetime
) -> dict[str, dict[str, Any]]:
    """Ask the offline store for the features that entities had as of `cutoff`: entity → feature → value or None.

    Of a row that was too old by then it is asked right after the row's own time (`times`), when it was not: what lies
    online, however old, is compared as well.
    """
    names = [column.name for column in group.features]
    asked = [
        time + _MICROSECOND if (time := times.get(entity)) and group.is_too_old(time, cutoff) else cutoff
        for entity in entities
    ]
    # Seconds and microseconds in one column: without the unit, pandas takes that of the first one.
    moments = pd.DatetimeIndex(asked).as_unit("us")
    rows = pd.DataFrame({group.entity.name: list(entities), LABEL_TIME: moments})
    with quiet_output():
        job = store.get_historical_features(rows, [f"{group.view_name}:{name}" for name in names])
        table = job.to_arrow()
    values = table.select(names).to_pylist()
    return dict(zip(table.column(group.entity.name).to_pylist(), values, strict=True))


def online_rows(
    client: redis.Redis, project: str, group: FeatureGroup, entities: Sequence[str], clock: datetime
) -> dict[str, OnlineRow]:
    """Read a group's row of each entity by the layout of the bytes (docs/feast-redis-layout.md)."""
    import pyarrow as pa  # noqa: PLC0415 - only for the keys

    names = [column.name for column in group.features]
    fields = [time_field(group.view_name), *(feature_field(group.view_name, name) for name in names)]
    keys = key_bytes(group.entity.name, pa.array(entities, pa.string()), project).to_pylist()
    replies: list[list[bytes | None]] = []
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        with client.pipeline(transaction=False) as pipeline:
            for key in keys[start : start + _KEYS_AT_ONCE]:
                pipeline.hmget(key, fields)
            replies += pipeline.execute()
    return {entity: _decoded(group, reply, clock) for entity, reply in zip(entities, replies, strict=True)}


def feast_values(store: FeatureStore, group: FeatureGroup, entities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read a group's features of entities by Feast's own client: entity → feature → value or None.

    Where Feast fails at what is stored, its complaint stands in place of the values.
    """
    try:
        return _feast_values(store, group, entities)
    except DecodeError as error:
        if len(entities) == 1:
            return {entities[0]: {column.name: f"{type(error).__name__}: {error}" for column in group.features}}
        return {entity: values for each in entities for entity, values in feast_values(store, group, [each]).items()}


def _feast_values(store: FeatureStore, group: FeatureGroup, entities: Sequence[str]) -> dict[str, dict[str, Any]]:
    names = [column.name for column in group.features]
    with quiet_output():
        answer = store.get_online_features(
            [f"{group.view_name}:{name}" for name in names], [{group.entity.name: entity} for entity in entities]
        ).to_dict()
    return {entity: {name: answer[name][place] for name in names} for place, entity in enumerate(entities)}


@dataclass(frozen=True, slots=True)
class Sides:
    """A group's rows of the same entities, offline and online."""

    expected: Mapping[str, Mapping[str, Any]]
    """Entity → feature → value as the offline store has it, however old."""
    times: Mapping[str, datetime]
    """Entity → event time; who has no row is left out."""
    rows: Mapping[str, OnlineRow]
    by_feast: Mapping[str, Mapping[str, Any]]
    """Entity → feature → value as Feast reads it online, however old: it enforces no lifetime there."""


def compare(
    group: FeatureGroup,
    clock: datetime,
    sides: Sides,
    may_be_streamed: Callable[[tuple[datetime | None, Any], tuple[datetime | None, Any]], bool] | None = None,
) -> Comparison:
    """Compare a group's rows, entity by entity, by all three readers.

    Args:
        group: The feature group.
        clock: The platform's: what is older than the group's `ttl_days` by it has to read as missing.
        sides: What is compared.
        may_be_streamed: Whether a row (time, values) may have become another by the stream; None: it does not write
            the group, and whatever differs is a mismatch.
    """
    done = Comparison()
    for entity, values in sides.expected.items():
        row, time = sides.rows[entity], sides.times.get(entity)
        is_expired = time is not None and group.is_too_old(time, clock)
        own = Comparison(expired=int(is_expired))
        place = (group.view_name, group.entity.name, entity)
        _expect(own, place, (ROW, BY_LAYOUT), time, row.as_of)
        for name, value in values.items():
            _expect(own, place, (name, BY_LAYOUT), value, row.values[name])
            _expect(own, place, (name, BY_FEAST), value, sides.by_feast[entity][name])
            _expect(own, place, (name, BY_CLOCK), None if is_expired else value, row.served.get(name))
        if own.mismatches and may_be_streamed is not None and may_be_streamed((time, values), (row.as_of, row.values)):
            own.ahead, own.mismatches = [tuple(own.mismatches)], []
        done.add(own)
    return done


def _expect(
    done: Comparison, place: tuple[str, str, str], which: tuple[str, str], expected: object, received: object
) -> None:
    (view, key, entity), (feature, reader) = place, which
    done.expect((view, feature, key, entity, reader), expected, received)


def _decoded(group: FeatureGroup, reply: Sequence[bytes | None], clock: datetime) -> OnlineRow:
    stamp, *stored = reply
    values = {column.name: _decoded_value(value) for column, value in zip(group.features, stored, strict=True)}
    return OnlineRow(_decoded_time(stamp), values, _served(group, reply, clock))


def _served(group: FeatureGroup, reply: Sequence[bytes | None], clock: datetime) -> Mapping[str, object]:
    """Return what the recommender makes of a row; its complaint in place of the values where it refuses to."""
    stamp, *stored = reply
    try:
        row = decode_row(group, stamp, stored)
    except StoredValueError as error:
        return {column.name: str(error) for column in group.features}
    return {} if row is None or row.is_too_old(clock) else row.values


def _decoded_time(stored: bytes | None) -> datetime | None:
    """Return a stored event time; the beginning of the calendar where the bytes are none, so that it equals nothing."""
    if stored is None:
        return None
    try:
        return Timestamp.FromString(stored).ToDatetime(tzinfo=UTC)
    except (DecodeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)


def _decoded_value(stored: bytes | None) -> object:
    """Return a stored value; bytes that are none stay bytes, which no value equals."""
    if not stored:
        return None
    try:
        return feast_value_type_to_python_type(Value.FromString(stored))
    except DecodeError:
        return stored


def _before(cutoff: datetime) -> str:
    return f"{microseconds(EVENT_TIME.name)} < {(cutoff - _EPOCH) // timedelta(microseconds=1)}"
