"""Job: what Redis returns of sampled users and items equals what the offline store says as of the last refresh."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.intervals import format_cutoff
from pipelines.embeddings.tables import online_tables
from pipelines.errors import JobError
from pipelines.feast_store.online import stored_entities
from pipelines.feast_store.online_cutoff import Materialized, online_lock, read_materialized
from pipelines.feast_store.registry import check_registered
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.feast_store.verification import (
    Comparison,
    compare,
    event_times,
    feast_values,
    offline_values,
    online_rows,
    sampled_entities,
)
from pipelines.io.online_client import online_client
from pipelines.stream.online_users import recent_users_key

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)


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
        compared: dict[str, int] = {}
        total = Comparison()
        for join_key in sorted({group.entity.name for group, _ in tables}):
            keyed = [(group, table) for group, table in tables if group.entity.name == join_key]
            entities = _entities(client, store.project, join_key, [table for _, table in keyed], done, sample)
            compared[join_key] = len(entities)
            for group, table in keyed:
                total.add(_compare_group(client, store, group, table, entities, done))
        _leave_out_streamed(client, place, total)
    _report(place, done, total)
    return {
        "cutoff": format_cutoff(done.cutoff),
        "entities": compared,
        "values": total.values,
        "newer": total.newer,
        "mismatches": 0,
    }


def _leave_out_streamed(client: redis.Redis, place: Namespace, total: Comparison) -> None:
    """Forgive what differs of users whose rows the stream has brought ahead of the batch.

    Who they are is asked last: an event that came while the rows were compared is among their events by then.
    """
    ahead = {user.decode() for user in cast("list[bytes]", client.zrange(recent_users_key(place.name), 0, -1))}
    streamed = {each.entity for each in total.mismatches if each.join_key == USER_ID.name and each.entity in ahead}
    total.newer += len(streamed)
    total.mismatches = [
        each for each in total.mismatches if each.join_key != USER_ID.name or each.entity not in streamed
    ]


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


def _entities(  # noqa: PLR0917 - whose, from where, how many
    client: redis.Redis, project: str, join_key: str, tables: list[Snapshot], done: Materialized, sample: int
) -> list[str]:
    """Return the ids to compare: of the tables' entities, and of those that Redis alone has."""
    everybody = sum(table.rows for table in tables) + 1
    known = sampled_entities([table.files for table in tables], join_key, done.cutoff, everybody)
    strangers = stored_entities(client, project, join_key).keys() - set(known)
    return [*known[:sample], *sorted(strangers)[:sample]]


def _compare_group(  # noqa: PLR0917 - what, where from, whose, as of when
    client: redis.Redis,
    store: FeatureStore,
    group: FeatureGroup,
    table: Snapshot,
    entities: list[str],
    done: Materialized,
) -> Comparison:
    if not entities:
        return Comparison()
    times = event_times(table.files, group.entity.name, done.cutoff, entities)
    expected = (
        offline_values(store, group, entities, done.cutoff)
        if table.partitions
        else {entity: dict.fromkeys(column.name for column in group.features) for entity in entities}
    )
    online = online_rows(client, store.project, group, entities)
    by_feast = feast_values(store, group, entities)
    return compare(group, done.cutoff, (expected, times), (online, by_feast))


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
