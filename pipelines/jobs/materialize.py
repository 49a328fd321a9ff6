"""Job: feature tables → Redis, each entity's latest row before the cutoff."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.contracts.features import FeatureGroup, Freshness, declared
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.schemas import read_schema
from pipelines.embeddings.tables import online_tables
from pipelines.errors import JobError
from pipelines.feast_store.online import forget_absent, stored_entities
from pipelines.feast_store.online_cutoff import Materialized, online_lock, refuse_superseded, write_materialized
from pipelines.feast_store.registry import check_registered, quiet_output
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.feast_store.tables import microseconds
from pipelines.io.duck import duckdb_session
from pipelines.io.online_client import online_client
from pipelines.io.sql_text import identifier, parquet
from pipelines.stream.batch import materializing

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore

    from feature_repo.contracts.places import Namespace
    from pipelines.io.lake import Snapshot, StoredTable
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MEMORY = "1GB"


def run(settings: Settings, place: Namespace, cutoff: datetime) -> dict[str, object]:
    """Write the latest features before `cutoff` to the online store, and forget who is no longer in them.

    Every row is written, changed or not: corrected data arrives, and what was damaged in Redis heals. Users with events
    since are folded again at once: the features that they had from the stream come back on top of what the batch says.

    Raises:
        SupersededError: A later cutoff is online; Redis was not touched.
        OnlineStoreError: Redis does not answer.
    """
    with online_lock(place):
        refuse_superseded(place, cutoff)
        with ExitStack() as stack:
            client = stack.enter_context(online_client(settings.redis_url))
            stack.enter_context(offline_engine(settings, f"materialize {place.name}"))
            tables = [
                (group, stored.writer, stack.enter_context(stored.reading(before=cutoff)))
                for group, stored in _history_and_state_first(settings, place)
            ]
            store = open_store(settings, place)
            check_registered(store, place)
            stack.enter_context(materializing(client, place, cutoff))
            present = [(group, _write(store, group, table, cutoff, writer)) for group, writer, table in tables]
            _forget(store, client, present)
        rows = {group.view_name: len(entities) for group, entities in present}
        checksums = {group.view_name: table.checksum for group, _, table in tables}
        write_materialized(place, Materialized(cutoff, checksums, rows))
    return {"rows": rows}


def _history_and_state_first(settings: Settings, place: Namespace) -> list[tuple[FeatureGroup, StoredTable]]:
    """Return what is written, in the order in which the stream job may fold users again between any two groups.

    What it folds with the state before this batch does not know what the batch knows: all but the seen items is written
    after the state. A fold with the new state drops the events that it has, and first adds their items to those seen.
    """
    groups = declared(read_schema(place))
    first = [groups.user_history, groups.user_state]
    tables = online_tables(settings, place)
    return sorted(tables, key=lambda table: first.index(table[0]) if table[0] in first else len(first))


def _write(store: FeatureStore, group: FeatureGroup, table: Snapshot, cutoff: datetime, writer: str) -> set[str]:
    """Materialise one group and return its entities."""
    began = time.monotonic()
    present = _entities(group, table, cutoff, writer)
    with quiet_output():
        store.materialize(_EPOCH, cutoff, [group.view_name])
    _LOG.info("%s: %d entities written in %.1f s", group.view_name, len(present), time.monotonic() - began)
    return present


def _forget(store: FeatureStore, client: redis.Redis, present: list[tuple[FeatureGroup, set[str]]]) -> None:
    """Delete each group's fields of the entities that it no longer has."""
    for join_key in sorted({group.entity.name for group, _ in present}):
        stored = stored_entities(client, store.project, join_key)
        for group, entities in present:
            if group.entity.name == join_key:
                view = store.get_feature_view(group.view_name)
                if forgotten := forget_absent(client, view, stored, entities):
                    _LOG.info("%s: %d entities forgotten", group.view_name, forgotten)


def _entities(group: FeatureGroup, table: Snapshot, cutoff: datetime, writer: str) -> set[str]:
    """Return the ids of the entities that have a row before `cutoff`.

    JobError for a group of latest rows that are not as of the cutoff: they bear the microsecond before it. `writer` is
    the command that writes them.
    """
    if not table.partitions:
        return set()
    at, end = microseconds(EVENT_TIME.name), (cutoff - _EPOCH) // timedelta(microseconds=1)
    rows = f"FROM {parquet(table.files)}"
    with duckdb_session(_MEMORY) as connection:
        if group.freshness is Freshness.LATEST:
            query = f"SELECT DISTINCT {at} {rows} WHERE {at} <> {end - 1} LIMIT 1"
            if other := connection.execute(query).fetchall():
                received = _EPOCH + timedelta(microseconds=other[0][0] + 1)
                msg = (
                    f"feature view {group.view_name}: expected rows as of {format_cutoff(cutoff)}, received rows as "
                    f"of {received.isoformat()} in {table.folder}; run '{writer}' for this cutoff"
                )
                raise JobError(msg)
        query = f"SELECT DISTINCT {identifier(group.entity.name)} {rows} WHERE {at} < {end}"
        return {entity for (entity,) in connection.execute(query).fetchall()}
