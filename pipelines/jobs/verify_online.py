"""Job: what Redis returns of sampled users and items equals what the offline store says as of the last refresh."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.schemas import read_schema
from pipelines.embeddings.tables import online_tables
from pipelines.errors import JobError
from pipelines.feast_store.online import drawn_entities
from pipelines.feast_store.online_cutoff import Materialized, online_lock, read_materialized
from pipelines.feast_store.registry import check_registered
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.feast_store.verification import (
    Comparison,
    Sides,
    compare,
    event_times,
    feast_values,
    offline_values,
    online_rows,
    sampled_entities,
    unknown_entities,
)
from pipelines.io.online_client import online_client
from pipelines.stream.ahead import streamed_views
from pipelines.stream.batch import open_users
from pipelines.stream.items import read_knowledge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    import redis
    from feast import FeatureStore

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings
    from pipelines.stream.ahead import Row

_LOG = logging.getLogger(__name__)


_KEYS_FOR_ONE = 20
"""For each entity of the sample so many keys of Redis are looked at, for those that no table has."""


@dataclass(frozen=True, slots=True)
class _Verification:
    """What is verified, and by what."""

    client: redis.Redis
    store: FeatureStore
    done: Materialized
    clock: datetime
    streamed: Mapping[str, Callable[[Row, Row], bool]]
    """View → how the stream may have changed its rows since."""

    @property
    def seed(self) -> str:
        """Changes with every materialisation of other tables: each looks at other entities."""
        return format_cutoff(self.done.cutoff) + "".join(sorted(self.done.checksums.values()))


def run(settings: Settings, place: Namespace, sample: int) -> dict[str, object]:
    """Compare up to `sample` entities of each kind, and as many that the tables do not know but Redis has.

    Raises:
        JobError: Something differs (each mismatch is logged), or there is nothing that could be compared.
        OnlineStoreError: Redis does not answer.
        TransientError: A materialisation is at work.
    """
    with online_lock(place), ExitStack() as stack:
        done = read_materialized(place)
        if done is None:
            msg = f"namespace {place.name}: expected a materialisation to verify, found none; run 'materialize' first"
            raise JobError(msg)
        tables = [
            (group, stack.enter_context(stored.reading(before=done.cutoff)))
            for group, stored in online_tables(settings, place)
        ]
        _check_unchanged(place, done, tables)
        client = stack.enter_context(online_client(settings.redis_url))
        stack.enter_context(offline_engine(settings, f"verify-online {place.name}"))
        store = open_store(settings, place)
        check_registered(store, place)
        streamed = streamed_views(declared(read_schema(place)))
        verification = _Verification(client, store, done, settings.now(done.cutoff), streamed)
        compared: dict[str, int] = {}
        total = Comparison()
        for join_key in sorted({group.entity.name for group, _ in tables}):
            keyed = [(group, table) for group, table in tables if group.entity.name == join_key]
            entities = _entities(verification, join_key, [table for _, table in keyed], sample)
            compared[join_key] = len(entities)
            for group, table in keyed:
                total.add(_compare_group(verification, group, table, entities))
        _settle_streamed(client, place, done.cutoff, total)
    _report(place, done, total)
    return {
        "cutoff": format_cutoff(done.cutoff),
        "clock": format_cutoff(verification.clock),
        "entities": compared,
        "values": total.values,
        "newer": total.newer,
        "expired": total.expired,
        "mismatches": 0,
    }


def _settle_streamed(client: redis.Redis, place: Namespace, cutoff: datetime, total: Comparison) -> None:
    """Forgive rows that the stream has really brought ahead of the batch; what else looks like it is a mismatch.

    Whose they are is asked last: an event that came while the rows were compared is among its user's events by then.
    A user is ahead whose rows are what the batch's state, which is compared and never forgiven, and the events since
    give; or whose history has an item more by an event too late for that state.
    """
    if not total.ahead:
        return
    users = open_users(client, place, read_knowledge(place, cutoff))
    names = {row[0].entity for row in total.ahead}
    folded, late = users.folded(names), users.late(names)
    history = declared(read_schema(place)).user_history.view_name
    total.settle(lambda view, user: user in folded or (view == history and user in late))


def _check_unchanged(place: Namespace, done: Materialized, tables: list[tuple[FeatureGroup, Snapshot]]) -> None:
    """JobError where a table is not the one that Redis was filled from: what it said then cannot be known any more."""
    for group, table in tables:
        materialized = done.checksums.get(group.view_name)
        if materialized != table.checksum:
            received = "was never materialised" if materialized is None else "was written anew since"
            msg = (
                f"namespace {place.name}: expected feature tables as they were materialised up to "
                f"{format_cutoff(done.cutoff)}, but {group.view_name} {received}; run 'python -m pipelines materialize "
                f"--namespace {place.name} --cutoff {format_cutoff(done.cutoff)}' first"
            )
            raise JobError(msg)


def _entities(verification: _Verification, join_key: str, tables: list[Snapshot], sample: int) -> list[str]:
    """Return the ids to compare: of the tables' entities, and of those that Redis alone has."""
    files, cutoff = [table.files for table in tables], verification.done.cutoff
    known = sampled_entities(files, join_key, cutoff, verification.seed, sample)
    stored = drawn_entities(verification.client, verification.store.project, join_key, sample * _KEYS_FOR_ONE)
    strangers = unknown_entities(files, join_key, cutoff, stored - set(known))
    return [*known, *strangers[:sample]]


def _compare_group(
    verification: _Verification, group: FeatureGroup, table: Snapshot, entities: list[str]
) -> Comparison:
    if not entities:
        return Comparison()
    client, store, cutoff = verification.client, verification.store, verification.done.cutoff
    times = event_times(table.files, group.entity.name, cutoff, entities)
    expected = (
        offline_values(store, group, times, entities, cutoff)
        if table.partitions
        else {entity: dict.fromkeys(column.name for column in group.features) for entity in entities}
    )
    rows = online_rows(client, store.project, group, entities, verification.clock)
    sides = Sides(expected, times, rows, feast_values(store, group, entities))
    return compare(group, verification.clock, sides, verification.streamed.get(group.view_name))


def _report(place: Namespace, done: Materialized, total: Comparison) -> None:
    """Log every mismatch, and JobError if there is one."""
    for mismatch in total.mismatches:
        _LOG.error("%s", mismatch)
    if total.mismatches:
        msg = (
            f"namespace {place.name}: expected Redis to hold what the offline store says as of "
            f"{format_cutoff(done.cutoff)}, received {len(total.mismatches)} mismatches in {total.values} values, the "
            f"first: {total.mismatches[0]}; run 'python -m pipelines materialize --namespace {place.name} --cutoff "
            f"{format_cutoff(done.cutoff)}', and if it happens again, look for who else writes to this Redis"
        )
        raise JobError(msg)
