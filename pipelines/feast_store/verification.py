"""What the online store holds of some entities, beside what the offline store says of them as of one moment.

The online side is read twice: by the layout of the bytes, as the recommender reads it, and by Feast's own client.
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
from pipelines.feast_store.online_writes import feature_field, time_field
from pipelines.feast_store.registry import quiet_output
from pipelines.feast_store.retrieval_jobs import LABEL_TIME
from pipelines.feast_store.tables import duckdb_session, microseconds
from pipelines.feast_store.value_bytes import key_bytes
from pipelines.io.sql_text import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import redis
    from feast import FeatureStore

    from feature_repo.contracts.features import FeatureGroup

BY_LAYOUT, BY_FEAST = "the layout", "Feast"
ROW = "(the row)"
"""Stands in a mismatch for the features when the row itself, or its event time, is at fault."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MEMORY = "1GB"
_KEYS_AT_ONCE = 1000


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
    """Rows left out because something wrote them after the cutoff: the stream."""
    mismatches: list[Mismatch] = field(default_factory=list)

    def expect(self, place: tuple[str, str, str, str, str], expected: object, received: object) -> None:
        """Compare one value; `place` is view, feature, join key, entity and reader."""
        self.values += 1
        if expected != received:
            self.mismatches.append(Mismatch(*place, expected, received))

    def add(self, other: Comparison) -> None:
        """Take over what another compared."""
        self.values += other.values
        self.newer += other.newer
        self.mismatches += other.mismatches


@dataclass(frozen=True, slots=True)
class OnlineRow:
    """A view's row of one entity as it lies online."""

    as_of: datetime | None
    """Its event time; None where there is none."""
    values: Mapping[str, Any]


def sampled_entities(tables: Sequence[Sequence[Path]], join_key: str, cutoff: datetime, sample: int) -> list[str]:
    """Return up to `sample` ids that any of the tables has before `cutoff`: the same for the same tables."""
    rows = [
        f"SELECT {identifier(join_key)} AS id FROM {_parquet(files)} WHERE {_before(cutoff)}"  # noqa: S608 - quoted
        for files in tables
        if files
    ]
    if not rows:
        return []
    query = f"SELECT id FROM ({' UNION '.join(rows)}) ORDER BY md5(id), id LIMIT {sample}"  # noqa: S608 - quoted
    with duckdb_session(_MEMORY) as connection:
        return [entity for (entity,) in connection.execute(query).fetchall()]


def event_times(files: Sequence[Path], join_key: str, cutoff: datetime, entities: Sequence[str]) -> dict[str, datetime]:
    """Return the event time of each entity's latest row before `cutoff`; entities without one are left out."""
    if not files:
        return {}
    query = (
        f"SELECT {identifier(join_key)}, max({microseconds(EVENT_TIME.name)}) FROM {_parquet(files)} "  # noqa: S608 - quoted
        f"WHERE {_before(cutoff)} AND {identifier(join_key)} IN (SELECT unnest($1)) GROUP BY ALL"
    )
    with duckdb_session(_MEMORY) as connection:
        rows = connection.execute(query, [list(entities)]).fetchall()
    return {entity: _EPOCH + timedelta(microseconds=time) for entity, time in rows}


def offline_values(
    store: FeatureStore, group: FeatureGroup, entities: Sequence[str], cutoff: datetime
) -> dict[str, dict[str, Any]]:
    """Ask the offline store for a group's features of entities as of `cutoff`: entity → feature → value or None."""
    names = [column.name for column in group.features]
    rows = pd.DataFrame({group.entity.name: list(entities), LABEL_TIME: cutoff})
    with quiet_output():
        job = store.get_historical_features(rows, [f"{group.view_name}:{name}" for name in names])
        table = job.to_arrow()
    values = table.select(names).to_pylist()
    return dict(zip(table.column(group.entity.name).to_pylist(), values, strict=True))


def online_rows(
    client: redis.Redis, project: str, group: FeatureGroup, entities: Sequence[str]
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
    return {entity: _decoded(names, reply) for entity, reply in zip(entities, replies, strict=True)}


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


def compare(
    group: FeatureGroup,
    cutoff: datetime,
    offline: tuple[Mapping[str, Mapping[str, Any]], Mapping[str, datetime]],
    online: tuple[Mapping[str, OnlineRow], Mapping[str, Mapping[str, Any]]],
) -> Comparison:
    """Compare a group's rows, entity by entity.

    A row whose event time is not before the cutoff came after the materialisation: what the stream adds is the
    stream's to prove, and the row is left out. A row older than the group's `ttl_days` at the cutoff is missing for
    whoever reads it by that clock, online and offline.

    Args:
        group: The feature group.
        cutoff: As of when the offline store was asked.
        offline: Entity → feature → value, and entity → event time.
        online: Entity → row as the layout has it, and entity → feature → value as Feast reads it.
    """
    (expected, times), (rows, by_feast) = offline, online
    done = Comparison()
    view, key = group.view_name, group.entity.name
    for entity, values in expected.items():
        row, time = rows[entity], times.get(entity)
        if row.as_of is not None and row.as_of >= cutoff:
            done.newer += 1
            continue
        done.expect((view, ROW, key, entity, BY_LAYOUT), time, row.as_of)
        if _too_old(group, time, cutoff):
            continue
        for name, value in values.items():
            done.expect((view, name, key, entity, BY_LAYOUT), value, row.values[name])
            done.expect((view, name, key, entity, BY_FEAST), value, by_feast[entity][name])
    return done


def _too_old(group: FeatureGroup, time: datetime | None, clock: datetime) -> bool:
    return group.ttl_days > 0 and time is not None and clock - time > timedelta(days=group.ttl_days)


def _decoded(names: Sequence[str], reply: Sequence[bytes | None]) -> OnlineRow:
    stamp, *stored = reply
    return OnlineRow(
        _decoded_time(stamp), {name: _decoded_value(value) for name, value in zip(names, stored, strict=True)}
    )


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


def _parquet(files: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(literal(str(file)) for file in files)}], hive_partitioning = false)"


def _before(cutoff: datetime) -> str:
    return f"{microseconds(EVENT_TIME.name)} < {(cutoff - _EPOCH) // timedelta(microseconds=1)}"
