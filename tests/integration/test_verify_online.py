"""`verify-online` on a real Redis: nothing differs after a materialisation, and whatever is wrong is named."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import redis
from feast.infra.compute_engines.local.compute import LocalComputeEngine

from feature_repo import views
from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.contracts.embeddings import DEEPWALK, ITEM2VEC
from feature_repo.contracts.events import Position
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.features import declared
from feature_repo.contracts.places import Namespace
from feature_repo.feast_redis import encode_timestamp, encode_value
from pipelines.embeddings import tables as embedding_tables
from pipelines.embeddings.tables import online_tables
from pipelines.errors import JobError
from pipelines.feast_store import store as store_module
from pipelines.feast_store.online import drawn_entities, stored_entities
from pipelines.feast_store.online_cutoff import online_lock
from pipelines.feast_store.online_writes import feature_field, time_field, write_rows
from pipelines.feast_store.store import repo_config
from pipelines.feast_store.value_bytes import value_bytes
from pipelines.feast_store.verification import OnlineRow, Sides, compare, sampled_entities, unknown_entities
from pipelines.features.tables import feature_table
from pipelines.jobs import materialize, registry, verify_online
from pipelines.settings import Settings
from pipelines.stream.batch import open_users
from pipelines.stream.items import read_knowledge
from pipelines.stream.online_users import late_users_key
from pipelines.stream.placed_events import Placed
from tests import feast_world as world
from tests.awkward_paths import AWKWARD
from tests.movielens import (
    ITEM_PROFILE,
    ITEM_WINDOWS,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_LIKED_ITEMS,
    USER_PROFILE,
    USER_SEQUENCE,
    USER_SESSION,
    USER_STATE,
    USER_WINDOWS,
)
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.feast_redis import Stored

EVENTS = world.make_events()
EVERYBODY = 1000

pytestmark = pytest.mark.filterwarnings(
    # Feast's own code, not ours: it reads Arrow's pandas metadata through names that pandas will rename.
    "default::DeprecationWarning:feast",
)


@dataclass(frozen=True)
class Materialised:
    """A namespace as it was right after its materialisation: settings, a copy of its files, and what Redis held."""

    settings: Settings
    copy: Path
    redis: dict[bytes, dict[bytes, bytes]]


@pytest.fixture(scope="module")
def materialised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materialised]:
    folder = tmp_path_factory.mktemp("verify")
    with redis_server() as url:
        settings = Settings(state=folder / AWKWARD, redis_url=url, recommender_clock="snapshot")
        place = world.write_world(settings.state, EVENTS)
        registry.run(settings, place)
        materialize.run(settings, place, world.CUTOFF)
        shutil.copytree(settings.state, folder / "copy")
        with redis.Redis.from_url(url) as client:
            stored = {key: client.hgetall(key) for key in client.scan_iter()}
        yield Materialised(settings, folder / "copy", stored)


@pytest.fixture
def settings(materialised: Materialised) -> Settings:
    """Put everything back to what it was after the materialisation."""
    state = materialised.settings.state
    shutil.rmtree(state)
    shutil.copytree(materialised.copy, state)
    with redis.Redis.from_url(materialised.settings.redis_url) as client, client.pipeline() as pipeline:
        pipeline.flushall()
        for key, fields in materialised.redis.items():
            pipeline.hset(key, mapping=fields)
        pipeline.execute()
    return materialised.settings


@pytest.fixture
def place(settings: Settings) -> Namespace:
    return Namespace(settings.state, "test-set")


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def key_of(client: redis.Redis, place: Namespace, join_key: str, entity: str) -> bytes:
    return stored_entities(client, place.name.replace("-", "_"), join_key)[entity]


def mismatches(settings: Settings, place: Namespace, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines that a failing verification logs, one for each mismatch."""
    with caplog.at_level(logging.ERROR), pytest.raises(JobError, match=r"mismatches in \d+ values.*materialize"):
        verify_online.run(settings, place, EVERYBODY)
    return [record.getMessage() for record in caplog.records if "expected" in record.getMessage()]


def test_nothing_differs_after_a_materialisation(settings: Settings, place: Namespace) -> None:
    result = verify_online.run(settings, place, EVERYBODY)
    assert result["entities"] == {"user_id": 30, "item_id": 26}
    assert result["mismatches"] == result["newer"] == 0
    user_values = sum(len(group.features) for group in (USER_ACTIVITY, USER_PROFILE, USER_HISTORY))
    assert int(str(result["values"])) > 30 * 2 * user_values
    assert result["expired"] == 0
    assert verify_online.run(settings, place, 5)["entities"] == {"user_id": 5, "item_id": 5}


def test_corrections_and_vanished_rows_arrive(settings: Settings, place: Namespace) -> None:
    rows = world.read(feature_table(place, USER_ACTIVITY))
    for row in rows:
        row["user_last_items"] = row["user_last_items"][::-1]
    world.write_features(place, USER_ACTIVITY, [row for row in rows if row["user_id"] != "u3"])
    with pytest.raises(
        JobError, match=r"user_activity_\w+ was written anew since; run 'python -m pipelines materialize"
    ):
        verify_online.run(settings, place, EVERYBODY)
    materialize.run(settings, place, world.CUTOFF)
    assert verify_online.run(settings, place, EVERYBODY)["mismatches"] == 0


def test_a_writer_that_skips_what_is_not_newer_is_found_out(
    settings: Settings, place: Namespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Feast's own writer without `skip_dedup`: corrected values of the same event time never arrive."""

    def as_feast_would(settings: Settings, place: Namespace) -> object:
        config = repo_config(settings, place)
        config.batch_engine_config = "local"
        config.online_store.skip_dedup = False
        return store_module.FeatureStore(config=config)

    rows = world.read(feature_table(place, USER_ACTIVITY))
    latest = max((row for row in rows if row["user_id"] == "u4"), key=lambda row: row["event_time"])
    latest["user_event_count"] += 1000
    world.write_features(place, USER_ACTIVITY, rows)
    monkeypatch.setattr(materialize, "open_store", as_feast_would)
    materialize.run(settings, place, world.CUTOFF)
    lines = mismatches(settings, place, caplog)
    assert len(lines) == 3
    for line, reader in zip(lines, ("the layout", "Feast", "the recommender's clock"), strict=True):
        assert f"feature user_event_count, user_id 'u4', read by {reader}" in line
        assert f"expected {latest['user_event_count']}, received {latest['user_event_count'] - 1000}" in line


def test_damage_in_redis_is_named(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    user, item = key_of(client, place, "user_id", "u5"), key_of(client, place, "item_id", "i7")
    wrong = value_bytes(pa.array([["Musical"]], pa.list_(pa.string()))).to_pylist()[0]
    client.hset(user, mapping={feature_field(USER_ACTIVITY.view_name, "user_top_genres"): wrong})
    client.hdel(item, feature_field(ITEM_PROFILE.view_name, "item_release_year"))  # type: ignore[arg-type]  # it takes bytes
    lines = mismatches(settings, place, caplog)
    assert sorted(line.partition(" read by")[0] for line in lines) == sorted(
        3 * [f"view {USER_ACTIVITY.view_name}, feature user_top_genres, user_id 'u5',"]
        + 3 * [f"view {ITEM_PROFILE.view_name}, feature item_release_year, item_id 'i7',"]
    )
    materialize.run(settings, place, world.CUTOFF)
    assert verify_online.run(settings, place, EVERYBODY)["mismatches"] == 0


def test_bytes_that_are_no_value_are_named_and_hide_nothing_else(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    user = key_of(client, place, "user_id", "u5")
    client.hset(user, mapping={feature_field(USER_PROFILE.view_name, "user_age"): b"\xff\xff"})
    lines = mismatches(settings, place, caplog)
    assert {line.partition("user_id ")[2].partition(",")[0] for line in lines} == {"'u5'"}
    assert any("feature user_age" in line and "received b'\\xff\\xff'" in line for line in lines)


def test_an_entity_that_no_table_has_is_a_mismatch(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    write_profile(client, place, "stranger", world.EPOCH)
    lines = mismatches(settings, place, caplog)
    assert any("(the row), user_id 'stranger'" in line and "expected None" in line for line in lines)


def write_profile(client: redis.Redis, place: Namespace, user: str, time: datetime) -> None:
    row = {"user_id": user, "user_age": 30.0, "user_gender": "F", "user_occupation": "writer", EVENT_TIME.name: time}
    features = [column.name for column in USER_PROFILE.features]
    types = [pa.string(), pa.float32(), pa.string(), pa.string(), pa.timestamp("us", tz="UTC")]
    schema = pa.schema(list(zip(row, types, strict=True)))
    project = place.name.replace("-", "_")
    rows = pa.RecordBatch.from_pylist([row], schema)
    write_rows(client, rows, project, USER_PROFILE.view_name, "user_id", features, EVENT_TIME.name)


def stream(client: redis.Redis, place: Namespace, *rows: world.Row) -> None:
    """Bring events into the features of their users, as the stream job does."""
    placed = [Placed(world.sent_event(row), Position(1, number)) for number, row in enumerate(rows)]
    open_users(client, place, read_knowledge(place, world.CUTOFF)).apply(placed)


def shift(client: redis.Redis, place: Namespace, group: FeatureGroup, entity: str, time: datetime) -> None:
    """Give an entity's row another event time."""
    key = key_of(client, place, group.entity.name, entity)
    stamp = encode_timestamp((time - world.EPOCH) // timedelta(microseconds=1))
    client.hset(key, mapping={time_field(group.view_name): stamp})


def faulty(lines: list[str]) -> set[str]:
    """Return the views that mismatches are of."""
    return {line.partition("view ")[2].partition(",")[0] for line in lines}


SINCE = world.CUTOFF + timedelta(hours=1)


def test_what_the_stream_wrote_since_is_left_out(settings: Settings, place: Namespace, client: redis.Redis) -> None:
    """Of users old and new; and history and likes of one whose event came too late for the batch's state."""
    first = min(row["event_time"] for row in EVENTS if row["user_id"] == "u2")
    late = world.event("u2", "i-unseen", first - timedelta(seconds=5), 4.0)
    stream(client, place, world.event("u1", "i-unseen", SINCE, 5.0), world.event("new-user", "i3", SINCE, 3.0), late)
    result = verify_online.run(settings, place, EVERYBODY)
    assert result["mismatches"] == 0
    assert result["newer"] == 5 + 7 + 2, (
        "activity, session, sequence, history, likes; of the new user profile and windows; history and like of the late"
    )
    materialize.run(settings, place, world.CUTOFF)
    assert client.smembers(late_users_key(place.name)) == set()
    assert verify_online.run(settings, place, EVERYBODY)["newer"] == 5 + 7 + 1, "the same batch again: the like stays"


def test_a_row_of_the_cutoff_or_later_that_no_stream_wrote_is_a_mismatch(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """As Feast's own materialisation leaves it, whose end is included. Recent users are no excuse for others."""
    stream(client, place, world.event("u1", "i3", SINCE, 5.0))
    groups = (USER_ACTIVITY, USER_HISTORY, USER_WINDOWS, ITEM_WINDOWS)
    for number, group in enumerate(groups):
        shift(client, place, group, f"{group.entity.name[0]}{4 + number}", world.CUTOFF)
    assert faulty(mismatches(settings, place, caplog)) == {group.view_name for group in groups}


def test_a_materialisation_that_takes_the_cutoff_s_own_rows_is_found_out(
    settings: Settings, place: Namespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for group in (USER_ACTIVITY, ITEM_WINDOWS):
        rows = world.read(feature_table(place, group))
        world.write_features(place, group, [*rows, {**rows[-1], EVENT_TIME.name: world.CUTOFF}])
    real = store_module.FeatureStore.materialize
    monkeypatch.setattr(
        store_module.FeatureStore,
        "materialize",
        lambda store, start, end, names: real(store, start, end + timedelta(microseconds=1), names),
    )
    materialize.run(settings, place, world.CUTOFF)
    assert faulty(mismatches(settings, place, caplog)) == {USER_ACTIVITY.view_name, ITEM_WINDOWS.view_name}


DAMAGE: dict[str, tuple[FeatureGroup, str, Stored]] = {
    "u1": (USER_ACTIVITY, "user_value_mean", 1.25),
    "u2": (USER_PROFILE, "user_age", 99.0),
    "u3": (USER_WINDOWS, "user_event_count_7d", 777),
    "u4": (USER_STATE, "state_value_count", 777),
    "u5": (USER_SEQUENCE, "user_sequence_sessions", [7] * 50),
    "u6": (USER_HISTORY, "user_seen_items", ["i3"]),
    "u7": (ITEM2VEC.user_group, "user_item2vec_fit", "another"),
    "u8": (USER_LIKED_ITEMS, "user_liked_times", [7]),
    "u9": (USER_STATE, "state_liked_items", ["i3"]),
}


def test_damage_of_a_recent_user_is_no_work_of_the_stream(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    stream(client, place, *(world.event(user, "i3", SINCE, 5.0) for user in DAMAGE))
    for user, (group, name, wrong) in DAMAGE.items():
        (column,) = (column for column in group.features if column.name == name)
        field = feature_field(group.view_name, name)
        client.hset(key_of(client, place, "user_id", user), mapping={field: encode_value(column, wrong)})
    lines = mismatches(settings, place, caplog)
    # What the stream would count on from, or has made, is damaged: then all that it has made of it is in doubt.
    made = (USER_ACTIVITY, USER_SESSION, USER_SEQUENCE, USER_HISTORY, USER_LIKED_ITEMS)
    in_doubt = {group.view_name for group in made}
    for user, (group, name, _) in DAMAGE.items():
        own = [line for line in lines if f"user_id '{user}'" in line]
        assert any(f"view {group.view_name}, feature {name}," in line for line in own)
        assert faulty(own) <= {group.view_name, *in_doubt}
        assert group.view_name in in_doubt or group == USER_STATE or faulty(own) == {group.view_name}


def test_what_is_older_than_its_lifetime_reads_as_missing_by_the_recommender_s_clock(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    late = settings.model_copy(update={"recommender_clock": world.CUTOFF + timedelta(days=91)})
    result = verify_online.run(late, place, EVERYBODY)
    assert result["clock"] == "1998-07-11T00:00:00Z"
    assert result["expired"] == 30 + 25, "the windows of every user, and of every item that has any"
    assert result["values"] == verify_online.run(settings, place, EVERYBODY)["values"]
    wall = settings.model_copy(update={"recommender_clock": "wall"})
    assert verify_online.run(wall, place, EVERYBODY)["expired"] == 30 + 25
    # However old, what lies there is compared: Feast would give it to whoever asks.
    field = feature_field(USER_WINDOWS.view_name, "user_event_count_7d")
    client.hset(key_of(client, place, "user_id", "u5"), mapping={field: value_bytes(pa.array([777])).to_pylist()[0]})
    lines = mismatches(late, place, caplog)
    assert [line.partition("read by ")[2].partition(":")[0] for line in lines] == ["the layout", "Feast"]
    # A row that pretends to be younger is served: then missing is expected, and received is a value.
    caplog.clear()
    shift(client, place, USER_WINDOWS, "u5", world.CUTOFF + timedelta(days=80))
    lines = mismatches(late, place, caplog)
    assert any("read by the recommender's clock: expected None, received 777" in line for line in lines)


def test_a_row_that_was_too_old_at_the_cutoff_already_is_compared_and_reads_as_missing(
    settings: Settings, place: Namespace, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    rows = world.read(feature_table(place, USER_WINDOWS))
    for row in rows:
        if row["user_id"] == "u3":
            row[EVENT_TIME.name] -= timedelta(days=100)
    world.write_features(place, USER_WINDOWS, rows)
    materialize.run(settings, place, world.CUTOFF)
    assert verify_online.run(settings, place, EVERYBODY)["expired"] == 1
    field = feature_field(USER_WINDOWS.view_name, "user_event_count_30d")
    client.hset(key_of(client, place, "user_id", "u3"), mapping={field: value_bytes(pa.array([777])).to_pylist()[0]})
    assert len(mismatches(settings, place, caplog)) == 2


def test_a_reader_that_enforces_no_lifetime_is_found_out() -> None:
    group = replace(USER_ACTIVITY, ttl_days=2)
    values = {column.name: None for column in group.features} | {"user_event_count": 30}
    for days, served in ((1, values), (3, {})):
        time = world.CUTOFF - timedelta(days=days)
        for given in (values, {}):
            row = OnlineRow(time, values, given)
            done = compare(group, world.CUTOFF, Sides({"u": values}, {"u": time}, {"u": row}, {"u": values}))
            assert bool(done.mismatches) == (given != served)
            assert done.expired == (days > 2)


def test_a_new_kind_of_embedding_has_to_be_materialised(settings: Settings, place: Namespace) -> None:
    more = settings.model_copy(update={"embeddings": "item2vec,deepwalk"})
    for group, like in ((DEEPWALK.item_group, ITEM2VEC.item_group), (DEEPWALK.user_group, ITEM2VEC.user_group)):
        vectors = world.read(embedding_tables.embedding_table(place, like))
        renamed = [{name.replace("item2vec", "deepwalk"): value for name, value in row.items()} for row in vectors]
        world.write_features(place, group, renamed)
    with pytest.raises(
        JobError, match=r"item_deepwalk_\w+ was never materialised; run 'python -m pipelines materialize"
    ):
        verify_online.run(more, place, EVERYBODY)
    before = verify_online.run(settings, place, EVERYBODY)["values"]
    materialize.run(more, place, world.CUTOFF)
    result = verify_online.run(more, place, EVERYBODY)
    assert result["mismatches"] == 0
    assert int(str(result["values"])) > int(str(before))


def test_a_new_feature_has_to_be_materialised_and_arrives(
    settings: Settings, place: Namespace, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its view's rows have the event times of the old one's: who skips what is not newer would see no news in them."""
    shade = Column("user_shade", Dtype.INT64, "Made up", missing=0)
    more = replace(USER_ACTIVITY, features=(*USER_ACTIVITY.features, shade))
    rows = world.read(feature_table(place, USER_ACTIVITY))
    for module in (verify_online, embedding_tables, views):
        monkeypatch.setattr(module, "declared", lambda schema: replace(declared(schema), user_activity=more))
    world.write_features(place, more, [{**row, shade.name: 7} for row in rows])
    with pytest.raises(JobError, match=rf"{more.view_name} was never materialised"):
        verify_online.run(settings, place, EVERYBODY)
    registry.run(settings, place)
    materialize.run(settings, place, world.CUTOFF)
    assert verify_online.run(settings, place, EVERYBODY)["mismatches"] == 0
    stored = client.hget(key_of(client, place, "user_id", "u5"), feature_field(more.view_name, shade.name))  # type: ignore[arg-type]  # it takes bytes
    assert stored == encode_value(shade, 7)


def test_a_sample_is_the_same_again_fair_and_another_for_another_seed(place: Namespace) -> None:
    with feature_table(place, USER_ACTIVITY).reading() as table, feature_table(place, USER_PROFILE).reading() as other:
        files = [table.files, other.files, []]
        drawn = {seed: sampled_entities(files, "user_id", world.CUTOFF, str(seed), 6) for seed in range(30)}
        assert drawn[1] == sampled_entities(files, "user_id", world.CUTOFF, "1", 6)
        assert all(len(set(names)) == 6 for names in drawn.values())
        assert {name for names in drawn.values() for name in names} == {f"u{n}" for n in range(30)}
        assert unknown_entities(files, "user_id", world.CUTOFF, ["u3", "stranger"]) == ["stranger"]
        assert sampled_entities([[]], "user_id", world.CUTOFF, "1", 6) == []


def test_no_more_keys_are_asked_for_than_were_granted(place: Namespace, client: redis.Redis) -> None:
    project = place.name.replace("-", "_")
    everybody = {f"u{number}" for number in range(30)}
    assert drawn_entities(client, project, "user_id", 1000) == everybody
    with client.monitor() as monitor:
        found = drawn_entities(client, project, "user_id", 20)
        client.ping()
        commands = []
        for command in monitor.listen():
            commands.append(command["command"].split()[0].upper())
            if commands[-1] == "PING":
                break
    assert found < everybody
    assert commands.count("RANDOMKEY") == 20
    assert not {"SCAN", "KEYS"} & set(commands)


def test_nothing_to_verify_says_what_to_run(settings: Settings, place: Namespace) -> None:
    (place.online / "materialized.json").unlink()
    with pytest.raises(JobError, match="found none; run 'materialize' first"):
        verify_online.run(settings, place, EVERYBODY)


def test_it_waits_for_no_materialisation(settings: Settings, place: Namespace) -> None:
    with online_lock(place), pytest.raises(JobError, match="another job is writing it"):
        verify_online.run(settings, place, EVERYBODY)


def test_the_command_s_exit_code(settings: Settings, place: Namespace, client: redis.Redis) -> None:
    command = [sys.executable, "-m", "pipelines", "verify-online", "--namespace", place.name, "--sample", "40"]
    given = {**os.environ, "KESTREL_STATE": str(settings.state), "KESTREL_REDIS_URL": settings.redis_url}
    write_profile(client, place, "stranger", world.EPOCH)
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.TERMINAL
    assert "(the row), user_id 'stranger'" in done.stderr


def test_the_arrow_writer_and_feast_s_own_write_the_same_bytes(
    settings: Settings, place: Namespace, client: redis.Redis
) -> None:
    ours = {key: client.hgetall(key) for key in client.scan_iter()}
    client.flushall()
    config = repo_config(settings, place)
    config.batch_engine_config = "local"
    feast_own = store_module.FeatureStore(config=config)
    assert type(feast_own._get_provider().batch_engine) is LocalComputeEngine
    names = [group.view_name for group, _ in online_tables(settings, place)]
    feast_own.materialize(world.EPOCH, world.CUTOFF, names)
    assert {key: client.hgetall(key) for key in client.scan_iter()} == ours
