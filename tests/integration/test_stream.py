"""The stream path on a real Redis: none lost, none counted twice, whatever is killed between any two steps."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
import redis
from pyarrow.parquet import write_table

from feature_repo.contracts.datasets import EVENTS, known_items_dataset
from feature_repo.contracts.events import Event, heartbeat_key, stream_name
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import feast_project
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.schemas import Reduction, read_schema, write_schema
from feature_repo.feast_redis import encode_timestamp, encode_value, entity_key, feature_field, timestamp_field
from pipelines.feast_store.errors import OnlineStoreError
from pipelines.feast_store.online_cutoff import Materialized, write_materialized
from pipelines.io.arrow import arrow_schema
from pipelines.io.lake import partition_name, stored_dataset
from pipelines.jobs import land as land_job
from pipelines.jobs import stream as stream_jobs
from pipelines.settings import Settings
from pipelines.stream import late_likes
from pipelines.stream.batch import materializing, materializing_key, open_users
from pipelines.stream.fold import UserState, advance, features, liked_features, sequence_features, session_features
from pipelines.stream.items import read_knowledge
from pipelines.stream.landing import landed_files
from pipelines.stream.merge import merge_landed
from pipelines.stream.online_users import OnlineUsers, put_off_users_key, recent_users_key
from pipelines.stream.placed_events import EVENT_PREFIX
from pipelines.stream.redis_source import LAKE, ONLINE, RedisSource, ensure_groups, trim
from pipelines.stream.state_row import row_of
from pipelines.stream.worker import Worker, apply_next, connect, land
from tests.killing import Mortals, Step, mortals
from tests.recommender_world import wait_until
from tests.redis_server import DurableRedis, durable_redis, redis_server
from tests.stream_world import (
    BASE,
    FEATURES,
    MOVIELENS,
    online_row,
    online_users,
    random_events,
    send,
    sent,
    write_items,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from feature_repo.contracts.schemas import Schema

USERS = tuple(f"u{number}" for number in range(5))


@pytest.fixture(scope="module")
def server() -> Iterator[DurableRedis]:
    with durable_redis() as server:
        yield server


@pytest.fixture
def client(server: DurableRedis) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(server.url)) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def forks() -> Iterator[Mortals]:
    with mortals() as forks:
        yield forks


def open_lake(state: Path, name: str = "streamed-set") -> Namespace:
    place = write_items(state, name)
    with stored_dataset(place, EVENTS).rewriting():
        pass
    return place


def users_of(client: redis.Redis, place: Namespace) -> OnlineUsers:
    return open_users(client, place, read_knowledge(place, None))


def apply_here(client: redis.Redis, place: Namespace) -> int:
    source = RedisSource(client, place.name, ONLINE, "here", claim_after_ms=0)
    users, total = users_of(client, place), 0
    while count := apply_next(source, users, wait_s=0):
        total += count
    return total


def expected(place: Namespace, log: Sequence[Event]) -> dict[str, Any]:
    """What the whole log gives for each user: features and likes of the last value of each event, and what was seen."""
    about = read_knowledge(place, None)
    latest = {event.key: event for event in log}
    result = {}
    for user in USERS:
        known = [event for event in latest.values() if event.user_id == user]
        state = advance(UserState(), known, about.facts, MOVIELENS)
        row = features(state, MOVIELENS) | sequence_features(state) | (liked_features(state) if known else {})
        result[user] = (row, sorted({event.item_id for event in known}))
    return result


def received(client: redis.Redis, place: Namespace) -> dict[str, Any]:
    rows = online_users(client, place.name, USERS)
    return {
        user: (
            {name: value for row in rows_of_events for name, value in (row or {}).items() if name != "event_time"},
            (history or {"user_seen_items": []})["user_seen_items"],
        )
        for user, (*rows_of_events, history) in rows.items()
    }


def with_corrections(events: list[Event]) -> list[Event]:
    return [*events, *(dataclasses.replace(event, value=5.5 - event.value) for event in events[::7])]


def test_events_reach_features_once_however_often_they_are_sent(client: redis.Redis, tmp_path: Path) -> None:
    place, log = open_lake(tmp_path), with_corrections(random_events(120))
    send(client, place.name, [*log[:60], *log[:30], *log[60:], *log[60:]])
    assert apply_here(client, place) == 2 * len(log) - 30
    assert received(client, place) == expected(place, log)
    assert client.xpending(stream_name(place.name), ONLINE)["pending"] == 0
    client.delete(stream_name(place.name))
    send(client, place.name, log)
    apply_here(client, place)
    assert received(client, place) == expected(place, log), "from an empty stream on, too"


ONLINE_STEPS: tuple[Step, ...] = (
    ("pipelines.stream.redis_source", "RedisSource._next", True, 1),
    ("pipelines.stream.online_users", "OnlineUsers._read", True, 1),
    ("redis.client", "Pipeline.execute", False, 3),
    ("pipelines.stream.online_users", "OnlineUsers.apply", True, 1),
    ("pipelines.stream.redis_source", "RedisSource.acknowledge", True, 1),
)
LAND_STEPS: tuple[Step, ...] = (
    ("pipelines.stream.redis_source", "RedisSource._next", True, 1),
    ("pipelines.stream.landing", "pq.write_table", True, 1),
    ("pipelines.stream.landing", "write_landing", True, 1),
    ("pipelines.stream.redis_source", "RedisSource.acknowledge", True, 1),
    ("pipelines.stream.redis_source", "trim", True, 1),
    ("pipelines.io.lake", "StoredTable.switch", False, 1),
    ("pipelines.io.lake", "sync_directory", False, 1),
    ("pipelines.io.lake", "sync_directory", False, 2),
    ("pipelines.io.lake", "StoredTable.switch", True, 1),
    ("pipelines.io.lake", "StoredTable.switch", False, 2),
    ("pipelines.io.lake", "sync_directory", False, 5),
    ("pipelines.io.lake", "StoredTable.switch", True, 2),
    ("pipelines.io.lake", "StoredTable.switch", True, 3),
    ("pathlib", "Path.unlink", True, 1),
)


@pytest.mark.parametrize("step", ONLINE_STEPS, ids=lambda step: f"{step[1]}-{'after' if step[2] else 'before'}")
def test_killed_while_it_updates_features_the_next_one_ends_the_same(
    step: Step, server: DurableRedis, client: redis.Redis, forks: Mortals, tmp_path: Path
) -> None:
    place, log = open_lake(tmp_path), with_corrections(random_events(80))
    ensure_groups(client, place.name)
    send(client, place.name, log)
    assert not forks.run("apply_all", step, str(tmp_path), server.url, place.name)
    assert forks.run("apply_all", None, str(tmp_path), server.url, place.name)
    assert received(client, place) == expected(place, log)
    assert client.xpending(stream_name(place.name), ONLINE)["pending"] == 0


def test_killed_while_it_lands_and_merges_the_next_one_ends_the_same(
    server: DurableRedis, client: redis.Redis, forks: Mortals, tmp_path: Path
) -> None:
    log = with_corrections(random_events(80))
    whole = open_lake(tmp_path / "whole", "whole")
    send(client, whole.name, log)
    assert forks.run("land_and_merge", None, str(tmp_path / "whole"), server.url, whole.name)
    rows = stored_dataset(whole, EVENTS).snapshot().rows
    assert rows == len({event.key for event in log})
    for number, step in enumerate(LAND_STEPS):
        state = tmp_path / str(number)
        place = open_lake(state, f"cut-{number}")
        send(client, place.name, log)
        assert not forks.run("land_and_merge", step, str(state), server.url, place.name), step
        assert forks.run("land_and_merge", None, str(state), server.url, place.name)
        for name in ("events", "users"):
            assert tree_sha256(place.dataset(name)) == tree_sha256(whole.dataset(name)), step
        assert list(place.landing.iterdir()) == [], step
        client.delete(stream_name(place.name))


def test_the_stream_is_trimmed_to_what_both_readers_are_done_with(client: redis.Redis, tmp_path: Path) -> None:
    place, log = open_lake(tmp_path), random_events(40)
    stream = stream_name(place.name)
    assert trim_without_groups(client, place.name) == 0
    send(client, place.name, log)
    assert land(Settings(state=place.state), client, place, wait_s=1) == 40
    assert client.xlen(stream) == 40, "landed, but not applied"
    apply_here(client, place)
    send(client, place.name, log[:10])
    source = RedisSource(client, place.name, ONLINE, "reads-and-dies", claim_after_ms=60_000)
    taken = source.read(4, 0)
    assert land(Settings(state=place.state), client, place, wait_s=1) == 10
    assert client.xlen(stream) == 10, "what a reader holds stays"
    source.acknowledge(taken)
    trim(client, place.name)
    assert client.xlen(stream) == 6
    assert apply_here(client, place) == 6
    trim(client, place.name)
    assert client.xlen(stream) == 0


def trim_without_groups(client: redis.Redis, namespace: str) -> int:
    client.xadd(stream_name(namespace), {"a": "b"})
    left = trim(client, namespace)
    client.delete(stream_name(namespace))
    return left


def test_what_is_no_event_is_put_aside_and_holds_up_nothing(client: redis.Redis, tmp_path: Path) -> None:
    place = open_lake(tmp_path)
    client.xadd(stream_name(place.name), {"user_id": "u1"})
    send(client, place.name, [sent("u1", "i1", 4.0, 1)])
    client.xadd(stream_name(place.name), {**sent("u1", "i1", 4.0, 1).fields(), "value": b"\xff"})
    assert apply_here(client, place) == 1
    assert land(Settings(state=place.state), client, place, wait_s=1) == 1
    reasons = {
        (fields[b"group"], fields[b"reason"]) for _, fields in client.xrange(f"{stream_name(place.name)}:refused")
    }
    assert {group for group, _ in reasons} == {b"online", b"lake"}
    assert any(b"'event_id' is missing" in reason for _, reason in reasons)
    assert client.xlen(stream_name(place.name)) == 0


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("value", "nan"),
        ("value", "inf"),
        ("value", "1e300"),
        ("event_time", "-5"),
        ("event_time", str(10**30)),
        ("event_time", str(3 * 10**17)),
        ("user_id", ""),
        ("item_id", "a/b"),
    ],
)
def test_what_no_column_holds_is_put_aside_by_both_readers(
    field: str, text: str, client: redis.Redis, tmp_path: Path
) -> None:
    place = open_lake(tmp_path)
    fine = sent("u1", "i1", 4.0, 1)
    client.xadd(stream_name(place.name), {**fine.fields(), field: text})  # type: ignore[dict-item] # str is among them
    send(client, place.name, [fine])
    assert apply_here(client, place) == 1
    assert land(Settings(state=place.state), client, place, wait_s=1) == 1
    assert merge_landed(place).events == 1
    refused = client.xrange(f"{stream_name(place.name)}:refused")
    assert [fields[b"group"] for _, fields in refused] == [b"online", b"lake"]
    assert all(field.encode() in fields[b"reason"] for _, fields in refused)


def batch_writes(
    client: redis.Redis, place: Namespace, user: str, known: Sequence[Event], schema: Schema = MOVIELENS
) -> dict[bytes, bytes]:
    """Write what a materialisation writes of a user: activity, history and state, of the events the batch knows."""
    about, views = read_knowledge(place, None), declared(schema)
    state = advance(UserState(), known, about.facts, schema)
    fields: dict[bytes, bytes] = {}
    seen = {"user_seen_items": sorted({event.item_id for event in known})}
    groups = (
        (views.user_activity, features(state, schema)),
        (views.user_session, session_features(state)),
        (views.user_sequence, sequence_features(state)),
        (views.user_history, seen),
        (views.user_liked_items, liked_features(state)),
        (views.user_state, row_of(state, schema)),
    )
    for group, row in groups:
        fields[timestamp_field(group.view_name)] = encode_timestamp(state.last_time)
        fields |= {
            feature_field(group.view_name, column.name): encode_value(column, row[column.name])
            for column in group.features
        }
    client.hset(entity_key(feast_project(place.name), "user_id", user), mapping=fields)  # type: ignore[arg-type] # bytes
    return fields


def test_a_materialisation_in_between_is_never_overwritten(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_lake(tmp_path)
    old, new = [sent("u1", f"i{n}", 4.0, n) for n in range(5)], [sent("u1", f"i{n}", 2.0, n) for n in range(10, 14)]
    corrected = [dataclasses.replace(event, value=1.0) for event in old]
    batch_writes(client, place, "u1", old)
    read = OnlineUsers._read
    interfered = []

    def read_then_batch(users: OnlineUsers, keys: Any) -> Any:
        result = read(users, keys)
        if not interfered:
            interfered.append(batch_writes(client, place, "u1", corrected))
        return result

    monkeypatch.setattr(OnlineUsers, "_read", read_then_batch)
    send(client, place.name, new)
    assert apply_here(client, place) == 4
    assert interfered
    assert received(client, place)["u1"] == expected(place, [*corrected, *new])["u1"]


def test_after_a_materialisation_recent_events_are_folded_again_and_old_ones_dropped(
    client: redis.Redis, tmp_path: Path
) -> None:
    place = open_lake(tmp_path)
    log = [sent("u1", f"i{number}", 1 + number % 5, 10 * number) for number in range(12)]
    batch_writes(client, place, "u1", log[:4])
    send(client, place.name, log[4:])
    apply_here(client, place)
    key = entity_key(feast_project(place.name), "user_id", "u1")

    def kept() -> int:
        return sum(field.startswith(b"_event:") for field in client.hkeys(key))

    assert kept() == 8
    batch_writes(client, place, "u1", log[:9])
    assert received(client, place)["u1"] == expected(place, log[:9])["u1"]
    assert users_of(client, place).fold_again() == 1
    assert received(client, place)["u1"] == expected(place, log)["u1"]
    assert kept() == 3
    assert users_of(client, place).fold_again() == 0, "nothing to change"
    batch_writes(client, place, "u1", log)
    before = client.hgetall(key)
    users_of(client, place).fold_again()
    assert kept() == 0
    assert client.zcard(recent_users_key(place.name)) == 0
    after = client.hgetall(key)
    assert {field: value for field, value in before.items() if not field.startswith(b"_event:")} == after


def test_a_damaged_user_holds_up_nobody_and_is_mended_by_the_next_materialisation(
    client: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = open_lake(tmp_path)
    log = [sent("u1", "i1", 4, 10), sent("u2", "i2", 3, 20), sent("u1", "i2", 5, 30), sent("u2", "i1", 2, 40)]
    key = entity_key(feast_project(place.name), "user_id", "u1")
    batch_writes(client, place, "u1", log[:1])
    send(client, place.name, log[1:2])
    apply_here(client, place)
    state = FEATURES.user_state.view_name
    for damage in (feature_field(state, "state_last_items"), feature_field(state, "state_value_count")):
        client.hset(key, damage, b"\xff")
    client.hset(key, EVENT_PREFIX + b"sixteen bytes of", b"[1, 2")
    send(client, place.name, log[2:])
    assert apply_here(client, place) == 2
    assert received(client, place)["u2"] == expected(place, log)["u2"]
    assert "user 'u1': what Redis holds" in caplog.text
    assert not users_of(client, place).folded(["u1"])
    batch_writes(client, place, "u1", log[:1])
    users_of(client, place).fold_again()
    assert received(client, place) == expected(place, log)


def test_a_user_whose_state_is_of_another_definition_waits_for_a_materialisation(
    client: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After an upgrade, or a change of the schema: what came before the events is known by the other definition."""
    place, changed = open_lake(tmp_path), dataclasses.replace(MOVIELENS, liked_items=MOVIELENS.liked_items - 1)
    log = [sent("u1", f"i{number}", 4.0, 10 * number) for number in range(6)]
    batch_writes(client, place, "u1", log[:3])
    write_schema(place, changed)
    for event in (*log[3:5], log[4], sent("u2", "i1", 4.0, 7)):
        send(client, place.name, [event])
        apply_here(client, place)
    before, after = expected(place, log[:3])["u1"], expected(place, log[:5])["u1"]
    assert received(client, place)["u1"] == (before[0], after[1]), "what was seen needs no state"
    assert not users_of(client, place).folded(["u1"])
    assert users_of(client, place).fold_again() == 0
    online = declared(changed)
    row = online_row(client, place.name, "u2", online.user_activity)
    assert row is not None, "a new user waits for nothing"
    assert [message for message in caplog.messages if "another definition" in message]
    batch_writes(client, place, "u1", log[:4], changed)
    users_of(client, place).fold_again()
    row = online_row(client, place.name, "u1", online.user_sequence)
    assert row is not None
    assert row["user_sequence_items"] == after[0]["user_sequence_items"]
    write_schema(place, MOVIELENS)  # back again: the state of then is older than what the rows are made of
    send(client, place.name, log[5:])
    apply_here(client, place)
    assert online_row(client, place.name, "u1", online.user_sequence) == row
    batch_writes(client, place, "u1", log[:5])
    users_of(client, place).fold_again()
    assert received(client, place)["u1"] == expected(place, log)["u1"]


def test_a_state_of_another_definition_says_nothing_of_a_user_whom_the_batch_has_forgotten(
    client: redis.Redis, tmp_path: Path
) -> None:
    place, log = open_lake(tmp_path), [sent("u1", f"i{number}", 4.0, 10 * number) for number in range(3)]
    batch_writes(client, place, "u1", log[:1], dataclasses.replace(MOVIELENS, liked_items=MOVIELENS.liked_items - 1))
    history = FEATURES.user_history
    fields = [timestamp_field(history.view_name), feature_field(history.view_name, "user_seen_items")]
    client.hdel(entity_key(feast_project(place.name), "user_id", "u1"), *fields)  # type: ignore[arg-type] # bytes
    for event in log[1:]:
        send(client, place.name, [event])
        apply_here(client, place)
    assert received(client, place)["u1"] == expected(place, log[1:])["u1"]
    assert users_of(client, place).folded(["u1"]) == {"u1"}


def test_a_damaged_event_that_is_sent_again_is_kept(client: redis.Redis, tmp_path: Path) -> None:
    place, log = open_lake(tmp_path), [sent("u1", "i1", 4, 10)]
    key = entity_key(feast_project(place.name), "user_id", "u1")
    send(client, place.name, log)
    apply_here(client, place)
    (field,) = (field for field in client.hkeys(key) if field.startswith(EVENT_PREFIX))
    client.hset(key, field, b"[1, 2")
    send(client, place.name, log)
    apply_here(client, place)
    assert client.hget(key, field) not in {None, b"[1, 2"}
    users_of(client, place).fold_again()
    assert received(client, place) == expected(place, log)


def test_a_late_event_is_seen_at_once_and_counted_by_the_batch(client: redis.Redis, tmp_path: Path) -> None:
    place = open_lake(tmp_path)
    known, late = [sent("u1", "i1", 4.0, 100), sent("u1", "i2", 4.0, 200)], sent("u1", "i9", 5.0, 150)
    batch_writes(client, place, "u1", known)
    send(client, place.name, [late, known[0]])
    apply_here(client, place)
    row, seen = received(client, place)["u1"]
    assert row == with_likes(expected(place, known)["u1"][0], expected(place, [*known, late])["u1"][0])
    assert row["user_liked_items"] == ["i2", "i9", "i1"]
    assert seen == ["i1", "i2", "i9"]


def with_likes(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the likes of another one."""
    return row | {column.name: other[column.name] for column in FEATURES.user_liked_items.features}


def likes(client: redis.Redis, place: Namespace, user: str = "u1") -> list[tuple[str, int]]:
    """Return what a user likes, and in which second after BASE."""
    row = online_row(client, place.name, user, FEATURES.user_liked_items)
    assert row is not None
    base = round(BASE.timestamp())
    return [(item, time - base) for item, time in zip(row["user_liked_items"], row["user_liked_times"], strict=True)]


def test_a_like_counts_at_once_and_a_correction_takes_it_back_to_what_the_batch_knew(
    client: redis.Redis, tmp_path: Path
) -> None:
    place = open_lake(tmp_path)
    batch_writes(client, place, "u1", [sent("u1", "i1", 4.0, 100), sent("u1", "i2", 4.0, 200)])
    again, other = sent("u1", "i1", 5.0, 300), sent("u1", "i3", 4.0, 310)
    send(client, place.name, [again, other, sent("u1", "i2", 3.5, 320)])
    apply_here(client, place)
    assert likes(client, place) == [("i3", 310), ("i1", 300), ("i2", 200)]
    send(client, place.name, [dataclasses.replace(event, value=1.0) for event in (again, other)])
    apply_here(client, place)
    assert likes(client, place) == [("i2", 200), ("i1", 100)]


def test_a_correction_and_events_out_of_order_shift_a_full_sequence_no_further(
    client: redis.Redis, tmp_path: Path
) -> None:
    """Sixty events of the batch, three since, the last of which came first: a correction of it shifts nothing again."""
    place = open_lake(tmp_path)
    known = [sent("u1", f"i{n % 9}", 4.0, 1_000 * n) for n in range(60)]
    batch_writes(client, place, "u1", known)
    since = [sent("u1", f"i{n}", 2.0, 60_000 + second) for n, second in enumerate([5_000, 1_801, 1_800])]
    corrected = dataclasses.replace(since[0], value=5.0)
    for event in (*since, corrected):
        send(client, place.name, [event])
        apply_here(client, place)
    row = online_row(client, place.name, "u1", FEATURES.user_sequence)
    assert row is not None
    assert row["user_sequence_items"][:4] == ["i0", "i1", "i2", "i5"]
    assert row["user_sequence_values"][:4] == [5.0, 2.0, 2.0, 4.0]
    assert row["user_sequence_sessions"][:4] == [3, 2, 2, 1]
    assert [time - round(BASE.timestamp()) for time in row["user_sequence_times"][-2:]] == [14_000, 13_000]
    assert received(client, place)["u1"] == expected(place, [*known, *since, corrected])["u1"]


def test_a_new_user_who_likes_nothing_has_an_empty_list(client: redis.Redis, tmp_path: Path) -> None:
    place = open_lake(tmp_path)
    send(client, place.name, [sent("u1", "i1", 3.5, 1)])
    apply_here(client, place)
    assert likes(client, place) == []
    send(client, place.name, [sent("u1", "i1", 4.0, 2)])
    apply_here(client, place)
    assert likes(client, place) == [("i1", 2)]


def test_a_late_like_stays_until_the_next_batch(client: redis.Redis, tmp_path: Path) -> None:
    place = open_lake(tmp_path)
    known, late, new = [sent("u1", "i1", 4.0, 200)], sent("u1", "i9", 5.0, 150), sent("u1", "i2", 4.0, 300)
    batch_writes(client, place, "u1", known)
    for event in (late, new):
        send(client, place.name, [event])
        apply_here(client, place)
    everything = [("i2", 300), ("i1", 200), ("i9", 150)]
    assert likes(client, place) == everything
    assert users_of(client, place).folded(["u1"]) == {"u1"}
    batch_writes(client, place, "u1", known)
    users_of(client, place).fold_again()
    assert likes(client, place) == everything, "the same batch once more"
    batch_writes(client, place, "u1", [*known, new, late])
    users_of(client, place).fold_again()
    assert likes(client, place) == everything
    key = entity_key(feast_project(place.name), "user_id", "u1")
    assert not client.hexists(key, cast("str", late_likes.FIELD))
    assert client.zcard(recent_users_key(place.name)) == 0
    batch_writes(client, place, "u1", [*known, new])
    users_of(client, place).fold_again()
    assert likes(client, place) == everything[:2], "the batch is what counts"


def test_a_like_that_the_next_batch_overtakes_without_having_it_stays_as_what_was_seen_does(
    client: redis.Redis, tmp_path: Path
) -> None:
    """It came after the landing, and before the materialisation, and an event after it had landed."""
    place = open_lake(tmp_path)
    known, landed, missed = sent("u1", "i1", 4.0, 100), sent("u1", "i2", 4.0, 300), sent("u1", "i3", 5.0, 200)
    batch_writes(client, place, "u1", [known])
    send(client, place.name, [landed, missed])
    apply_here(client, place)
    batch_writes(client, place, "u1", [known, landed])
    users_of(client, place).fold_again()
    assert likes(client, place) == [("i2", 300), ("i3", 200), ("i1", 100)]
    assert received(client, place)["u1"][1] == ["i1", "i2", "i3"]
    batch_writes(client, place, "u1", [known, landed])
    users_of(client, place).fold_again()
    assert likes(client, place) == [("i2", 300), ("i3", 200), ("i1", 100)], "written over while it writes users"


def test_damaged_late_likes_hold_up_nobody(
    client: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = open_lake(tmp_path)
    batch_writes(client, place, "u1", [sent("u1", "i1", 4.0, 100)])
    key = entity_key(feast_project(place.name), "user_id", "u1")
    client.hset(key, late_likes.FIELD, b"[1, 2")
    send(client, place.name, [sent("u1", "i2", 4.0, 200)])
    apply_here(client, place)
    assert likes(client, place) == [("i2", 200), ("i1", 100)]
    assert "late likes that are kept in Redis are damaged" in caplog.text
    assert not client.hexists(key, cast("str", late_likes.FIELD))


def test_who_has_very_many_events_is_folded_later_and_exactly(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, log = open_lake(tmp_path), random_events(200, users=1)
    batch = sorted(log, key=lambda event: event.event_time)[:50]
    batch_writes(client, place, "u0", batch)
    known = received(client, place)["u0"]
    since = with_corrections([event for event in log if event.event_time > batch[-1].event_time])
    since += since[:40]
    monkeypatch.setattr("pipelines.stream.online_users._MANY_FIELDS", 0)
    late = sent("u0", "i-late", 5.0, 0)
    send(client, place.name, [late, *since, sent("u1", "i1", 4.0, 1)])
    apply_here(client, place)
    assert received(client, place)["u0"] == known
    assert received(client, place)["u1"] == expected(place, [sent("u1", "i1", 4.0, 1)])["u1"], "nobody else waits"
    assert client.zrange(recent_users_key(place.name), 0, -1) == [b"u1", b"u0"]
    assert users_of(client, place).folded(["u0", "u1"]) == {"u0", "u1"}, "a verification forgives what is under way"

    row, seen = expected(place, [*batch, *since])["u0"]
    row = with_likes(row, expected(place, [*batch, *since, late])["u0"][0])
    assert users_of(client, place).fold_next(), "by another process, too"
    assert received(client, place)["u0"] == (row, sorted([*seen, "i-late"]))
    assert users_of(client, place).late(["u0"]) == {"u0"}
    assert not users_of(client, place).fold_next()

    batch_writes(client, place, "u0", batch)
    assert users_of(client, place).fold_soon(["u0"]) == 0
    assert received(client, place)["u0"] == known, "not by the first who comes"
    users_of(client, place).fold_again()
    assert received(client, place)["u0"] == (row, seen)
    assert not users_of(client, place).fold_next(), "it is done already"


def test_an_event_that_comes_while_a_fold_is_made_up_is_in_the_next(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, log = open_lake(tmp_path), random_events(30, users=1)
    monkeypatch.setattr("pipelines.stream.online_users._MANY_FIELDS", 0)
    for part in (log[:10], log[10:20]):
        send(client, place.name, part)
        apply_here(client, place)
    read, interfered = OnlineUsers._read, []

    def read_then_more(users: OnlineUsers, keys: Any) -> Any:
        result = read(users, keys)
        if not interfered:
            interfered.append(send(client, place.name, log[20:]))
            apply_here(client, place)
        return result

    monkeypatch.setattr(OnlineUsers, "_read", read_then_more)
    assert users_of(client, place).fold_next()
    assert interfered
    assert received(client, place)["u0"] == expected(place, log[:10])["u0"]
    assert users_of(client, place).fold_next()
    assert received(client, place)["u0"] == expected(place, log)["u0"]
    assert not users_of(client, place).fold_next()


def test_nobody_waits_for_the_folds_of_one_who_has_very_many_events(
    server: DurableRedis, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, log = open_lake(tmp_path), [sent("u0", f"i{number % 20}", 4.0, number) for number in range(1_200)]
    send(client, place.name, log)
    apply_here(client, place)
    folds: list[int] = []
    fold = OnlineUsers._fold

    def slow(users: OnlineUsers, stored: Any, known: Mapping[bytes, Any], newer: Any) -> Any:
        if len(known) >= 1_000:
            folds.append(len(known))
            time.sleep(0.2)
        return fold(users, stored, known, newer)

    monkeypatch.setattr(OnlineUsers, "_fold", slow)
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=60), place, client)
    thread, began = threading.Thread(target=worker.run), time.monotonic()
    thread.start()
    try:
        for number in range(20):
            log += [sent("u0", "i1", 2.0, 2_000 + number), sent(f"other{number}", "i2", 4.0, number)]
            send(client, place.name, log[-2:])
            other = f"other{number}"
            wait_until(
                lambda other=other: online_row(client, place.name, other, FEATURES.user_activity) is not None,  # type: ignore[misc]
                "the other user's features",
            )
        assert len(folds) <= 1 + (time.monotonic() - began) / 2.0, "0.2 s each, and nine times as long between them"
        wait_until(lambda: received(client, place)["u0"] == expected(place, log)["u0"], "all of the user's events")
    finally:
        worker.stop.set()
        thread.join()


def test_a_user_of_whom_nothing_was_known_has_the_profile_that_the_batch_will_write(
    client: redis.Redis, tmp_path: Path
) -> None:
    place = open_lake(tmp_path)
    send(client, place.name, [sent("newcomer", "i1", 4.0, 1)])
    apply_here(client, place)
    assert FEATURES.user_profile is not None
    profile = online_row(client, place.name, "newcomer", FEATURES.user_profile)
    assert profile is not None
    assert profile["event_time"].year == 1970
    assert profile["user_age"] == -1.0


@pytest.fixture
def stream_job(server: DurableRedis, client: redis.Redis, tmp_path: Path) -> Iterator[Any]:
    """Start stream jobs as the stack does; whatever runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(place: Namespace) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "KESTREL_STATE": str(place.state),
            "KESTREL_REDIS_URL": server.url,
            "KESTREL_STREAM_LAND_SECONDS": "0.2",
            "KESTREL_STREAM_CLAIM_MS": "300",
        }
        command = [sys.executable, "-m", "pipelines", "stream", "--namespace", place.name]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_job_survives_the_death_of_redis_and_its_own(
    server: DurableRedis, client: redis.Redis, forks: Mortals, tmp_path: Path, stream_job: Any
) -> None:
    place, log = open_lake(tmp_path), with_corrections(random_events(150))
    first = stream_job(place)
    send(client, place.name, log[:50])
    wait_until(lambda: received(client, place) == expected(place, log[:50]), "the first events", 30)
    server.kill()
    server.start()
    send(client, place.name, log[50:90])
    first.kill()
    send(client, place.name, log[90:120])
    server.kill()
    server.start()
    second = stream_job(place)
    send(client, place.name, log[120:])
    wait_until(lambda: received(client, place) == expected(place, log), "all events", 30)
    wait_until(lambda: client.xlen(stream_name(place.name)) == 0, "the stream is empty", 30)
    assert client.exists(heartbeat_key(place.name))
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=20)
    assert second.returncode == 0
    assert json.loads(output.splitlines()[-1])["applied"] >= 60
    assert forks.run("land_and_merge", None, str(tmp_path), server.url, place.name)
    assert stored_dataset(place, EVENTS).snapshot().rows == len({event.key for event in log})


def test_the_job_waits_for_the_first_ingestion(server: DurableRedis, client: redis.Redis, tmp_path: Path) -> None:
    place = Namespace(tmp_path, "streamed-set")
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=60), place, client)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        send(client, place.name, [sent("u1", "i1", 4.0, 1)])
        wait_until(lambda: bool(client.exists(heartbeat_key(place.name))), "a sign of life")
        assert client.xpending(stream_name(place.name), ONLINE)["pending"] == 0
        open_lake(tmp_path)
        wait_until(lambda: online_row(client, place.name, "u1", FEATURES.user_activity) is not None, "its features")
    finally:
        worker.stop.set()
        thread.join()
    assert not client.exists(heartbeat_key(place.name))


def test_the_job_outlives_a_redis_that_is_full(server: DurableRedis, client: redis.Redis, tmp_path: Path) -> None:
    place = open_lake(tmp_path)
    send(client, place.name, [sent("u1", "i1", 4.0, 1)])
    client.config_set("maxmemory", 1)
    settings = Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=0.05)
    worker = Worker(settings, place, client)
    thread = threading.Thread(target=worker.run)
    try:
        with pytest.raises(OnlineStoreError, match="raise its maxmemory"):
            land_job.run(settings, place)
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        client.config_set("maxmemory", 0)
        wait_until(lambda: online_row(client, place.name, "u1", FEATURES.user_activity) is not None, "its features")
        wait_until(lambda: client.xlen(stream_name(place.name)) == 0, "both readers are done")
    finally:
        client.config_set("maxmemory", 0)
        worker.stop.set()
        thread.join()


def test_an_event_waits_for_no_other_users_while_a_materialisation_writes(
    server: DurableRedis, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_lake(tmp_path)
    send(client, place.name, [sent(f"many{number}", "i1", 4.0, number) for number in range(450)])
    apply_here(client, place)
    folded: list[int] = []
    change = OnlineUsers._change

    def slow(users: OnlineUsers, by_user: Any) -> int:
        if not any(by_user.values()):
            folded.append(len(by_user))
            time.sleep(0.002 * len(by_user))
        return change(users, by_user)

    monkeypatch.setattr(OnlineUsers, "_change", slow)
    client.set(materializing_key(place.name), "at work")
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=60), place, client)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: bool(folded), "the first are folded again")
        send(client, place.name, [sent("u1", "i1", 4.0, 1)])
        wait_until(lambda: online_row(client, place.name, "u1", FEATURES.user_activity) is not None, "its features")
        assert sum(folded) < 450
        wait_until(lambda: sum(folded) >= 451, "everybody is folded again")
    finally:
        worker.stop.set()
        thread.join()


def test_a_materialisation_is_mended_while_it_writes_however_long_and_not_for_long_after_it_died(
    server: DurableRedis, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_lake(tmp_path)
    log = [sent("u1", f"i{number}", 1 + number % 5, 10 * number) for number in range(8)]
    send(client, place.name, log)
    monkeypatch.setattr("pipelines.stream.batch._LAPSE_S", 0.6)
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=60), place, client)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: received(client, place)["u1"] == expected(place, log)["u1"], "the events' features")
        began = time.monotonic()
        with pytest.raises(InterruptedError), materializing(client, place, BASE + timedelta(days=9)):
            wait_until(lambda: time.monotonic() > began + 3 * 0.6, "it takes thrice as long as the key lasts")
            batch_writes(client, place, "u1", log[:4])
            wait_until(lambda: received(client, place)["u1"] == expected(place, log)["u1"], "it is mended meanwhile")
            batch_writes(client, place, "u1", log[:5])
            raise InterruptedError
        wait_until(lambda: not client.exists(materializing_key(place.name)), "the key lapses", 5)
        wait_until(lambda: received(client, place)["u1"] == expected(place, log)["u1"], "what it left is mended")
    finally:
        worker.stop.set()
        thread.join()


def test_items_are_known_as_of_the_last_refresh_and_users_folded_again_with_the_next(
    server: DurableRedis, client: redis.Redis, tmp_path: Path
) -> None:
    """Where event rows say what items are: what they say later is nothing that a batch of the same cutoff knows."""
    place = write_years(tmp_path, {0: 1980.0, 1: 1990.0, 2: 2000.0})
    activity = declared(read_schema(place)).user_activity
    write_materialized(place, Materialized(BASE + timedelta(days=1), {}, {}))
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=60), place, client)
    thread = threading.Thread(target=worker.run)

    def year() -> float | None:
        row = online_row(client, place.name, "u1", activity)
        return None if row is None else row["user_release_year_mean"]

    thread.start()
    try:
        send(client, place.name, [sent("u1", "i1", 4.0, 86_400)])
        wait_until(lambda: year() is not None, "the user's features")
        assert year() == 1980.0
        write_materialized(place, Materialized(BASE + timedelta(days=2), {}, {}))
        wait_until(lambda: year() == 1990.0, "the same features of what is known now")
    finally:
        worker.stop.set()
        thread.join()


def write_years(state: Path, years: Mapping[int, float]) -> Namespace:
    """Write a lake in which the rows of each day say another year of the item i1."""
    derived = tuple(dataclasses.replace(each, reduction=Reduction.LATEST) for each in MOVIELENS.item_attributes)
    schema = dataclasses.replace(MOVIELENS, item_attributes=derived)
    place = write_items(state)
    write_schema(place, schema)
    dataset = known_items_dataset(schema)
    with stored_dataset(place, dataset).rewriting() as writer:
        for day, year in years.items():
            end = BASE + timedelta(days=day + 1) - timedelta(microseconds=1)
            row = {"item_id": "i1", "event_time": end, "title": "Film", "release_year": year, "genres": []}
            writer.add(partition_name(end.date()), pa.Table.from_pylist([row], arrow_schema(dataset)))
    return place


def test_a_landing_that_cannot_go_on_ends_the_job(
    server: DurableRedis, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_lake(tmp_path)
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=0.05), place, client)
    monkeypatch.setattr("pipelines.stream.landing.pq.write_table", refuse_to_write)
    send(client, place.name, [sent("u1", "i1", 4.0, 1)])
    with pytest.raises(ValueError, match="no way"):
        worker.run()
    assert client.xlen(stream_name(place.name)) == 1, "nothing was acknowledged"


def test_a_landing_zone_without_room_is_waited_for(
    server: DurableRedis, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_lake(tmp_path)
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=0.05), place, client)
    write, refused = write_table, []

    def full_twice(*arguments: Any, **options: Any) -> None:
        if len(refused) < 2:
            refused.append(client.xpending(stream_name(place.name), LAKE)["pending"])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments, **options)

    monkeypatch.setattr("pipelines.stream.landing.pq.write_table", full_twice)
    send(client, place.name, [sent("u1", "i1", 4.0, 1)])
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: len(landed_files(place)) == 1, "the event has landed")
        assert refused == [1, 1], "kept until it has landed"
    finally:
        worker.stop.set()
        thread.join()
    assert merge_landed(place).events == 1


def refuse_to_write(*_: object, **__: object) -> None:
    msg = "no way"
    raise ValueError(msg)


def test_a_redis_that_forgets_when_it_dies_is_warned_of(
    server: DurableRedis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def start(url: str) -> None:
        settings = Settings(state=tmp_path, redis_url=url)
        with closing(connect(settings)) as client:
            stream_jobs.warn_of_forgetting(client, settings)

    start(server.url)
    start("redis://127.0.0.1:1/0")
    assert not caplog.records
    with redis_server() as url:
        start(url)
    assert "appendonly yes" in caplog.text
    assert url not in caplog.text, "the password"


def test_without_a_job_the_check_fails(server: DurableRedis, client: redis.Redis, tmp_path: Path) -> None:
    from pipelines.errors import TransientError

    settings = Settings(state=tmp_path, redis_url=server.url)
    with pytest.raises(TransientError, match="make up"):
        stream_jobs.run(settings, Namespace(tmp_path, "nobody"), check=True)


def test_readers_share_a_group(client: redis.Redis, tmp_path: Path) -> None:
    place = open_lake(tmp_path)
    entries = send(client, place.name, random_events(30))
    one, two = (RedisSource(client, place.name, LAKE, name, claim_after_ms=60_000) for name in ("one", "two"))
    first, second = one.read(20, 0), two.read(20, 0)
    assert [entry.token for entry in (*first, *second)] == entries
    heir = RedisSource(client, place.name, LAKE, "heir", claim_after_ms=0)
    assert [entry.token for entry in heir.read(100, 0)] == entries


def test_a_user_who_never_rests_does_not_fail_a_materialisation(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has very many events writes into the hash sooner than it can be folded: the stream job folds it later."""
    place, log = open_lake(tmp_path), [sent("u0", f"i{number % 20}", 4.0, number) for number in range(5)]
    send(client, place.name, log)
    apply_here(client, place)
    users, fold, refused = users_of(client, place), OnlineUsers._fold, []

    def meanwhile(self: OnlineUsers, *arguments: Any) -> Any:
        if len(refused) < 60:
            refused.append(client.hset(entity_key(feast_project(place.name), "user_id", "u0"), "another", len(refused)))
        return fold(self, *arguments)

    monkeypatch.setattr(OnlineUsers, "_fold", meanwhile)
    users.fold_again()
    assert client.smembers(put_off_users_key(place.name)) == {b"u0"}
    monkeypatch.undo()
    assert users.fold_next()
    assert not client.exists(put_off_users_key(place.name))
    assert received(client, place)["u0"] == expected(place, log)["u0"]


def test_a_stream_job_that_starts_folds_what_was_written_over_while_none_ran(
    server: DurableRedis, client: redis.Redis, tmp_path: Path
) -> None:
    place, log = open_lake(tmp_path), [sent("u0", "i1", 4.0, 1)]
    send(client, place.name, log)
    apply_here(client, place)
    right = received(client, place)["u0"]
    assert FEATURES.user_activity is not None
    key = entity_key(feast_project(place.name), "user_id", "u0")
    for field in cast("dict[bytes, bytes]", client.hgetall(key)):
        if not field.startswith(EVENT_PREFIX):
            client.hdel(key, field)
    worker = Worker(Settings(state=tmp_path, redis_url=server.url, stream_land_seconds=60), place, client)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: received(client, place).get("u0") == right, "the user's features")
    finally:
        worker.stop.set()
        thread.join()
