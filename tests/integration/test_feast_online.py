"""Feature tables → a real Redis, by the jobs, read back with Feast's own client."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import redis

from feature_repo import views
from feature_repo.contracts.channels import channels
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM2VEC
from feature_repo.contracts.events import Position
from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import OnlineSnapshot, PartKind
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import file_sha256
from feature_repo.contracts.schemas import MOVIELENS, Schema
from feature_repo.feast_redis import feature_field
from infra.bench.data_online import weigh
from pipelines.channels.fitting import find_channels
from pipelines.embeddings import tables
from pipelines.embeddings.snapshots import find_item_embeddings
from pipelines.errors import CorruptDatasetError, JobError, SupersededError
from pipelines.feast_store import online_writes
from pipelines.feast_store.errors import OnlineStoreError, RegistryError
from pipelines.feast_store.online import stored_entities
from pipelines.feast_store.online_cutoff import Materialized, online_cutoff, write_materialized
from pipelines.feast_store.registry import registered_service
from pipelines.feast_store.store import open_store
from pipelines.features.tables import feature_table
from pipelines.io.online_client import online_client
from pipelines.jobs import materialize, publish, registry
from pipelines.settings import Settings
from pipelines.stream.batch import materializing_key, open_users
from pipelines.stream.items import read_knowledge
from pipelines.stream.online_users import recent_users_key
from pipelines.stream.placed_events import Placed
from serving.recommender.lifetimes import item_lifetimes
from tests import feast_world as world
from tests.movielens import (
    FEATURES,
    ITEM_ACTIVITY,
    ITEM_PROFILE,
    ITEM_WINDOWS,
    RANKING_FEATURES,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_LIKED_ITEMS,
    USER_PROFILE,
    USER_SEQUENCE,
    USER_SESSION,
    USER_STATE,
    USER_WINDOWS,
)
from tests.redis_server import DurableRedis, durable_redis, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

EVENTS = world.make_events()
Contents = dict[bytes, dict[bytes, bytes]]

pytestmark = pytest.mark.filterwarnings(
    # Feast's own code, not ours: it reads Arrow's pandas metadata through names that pandas will rename.
    "default::DeprecationWarning:feast",
)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return Settings(state=tmp_path, redis_url=redis_url)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("template")
    world.write_world(state, EVENTS)
    return state


@pytest.fixture
def place(settings: Settings, template: Path) -> Namespace:
    shutil.copytree(template, settings.state, dirs_exist_ok=True)
    place = Namespace(settings.state, "test-set")
    registry.run(settings, place)
    return place


def contents(url: str) -> Contents:
    with redis.Redis.from_url(url) as client:
        return {key: client.hgetall(key) for key in client.scan_iter(count=1000)}


def online(settings: Settings, place: Namespace, user: str, *features: str, view: str) -> list[object]:
    references = [f"{view}:{feature}" for feature in features]
    answer = open_store(settings, place).get_online_features(references, [{"user_id": user}]).to_dict()
    return [answer[feature][0] for feature in features]


def test_redis_holds_each_entity_s_latest_row_and_a_second_run_changes_nothing(
    settings: Settings, place: Namespace
) -> None:
    result = materialize.run(settings, place, world.CUTOFF)
    assert result["rows"] == {
        USER_ACTIVITY.view_name: 30,
        USER_SESSION.view_name: 30,
        USER_PROFILE.view_name: 30,
        ITEM_ACTIVITY.view_name: 25,
        USER_WINDOWS.view_name: 30,
        ITEM_WINDOWS.view_name: 25,
        USER_SEQUENCE.view_name: 30,
        ITEM_PROFILE.view_name: 26,
        USER_HISTORY.view_name: 30,
        USER_LIKED_ITEMS.view_name: 30,
        USER_STATE.view_name: 30,
        ITEM2VEC.item_group.view_name: 26,
        ITEM2VEC.user_group.view_name: 30,
    }
    first = contents(settings.redis_url)
    assert len(first) == 56
    rows = world.read(feature_table(place, USER_ACTIVITY))
    for user in ("u0", "u17"):
        latest = max((row for row in rows if row["user_id"] == user), key=lambda row: row["event_time"])
        names = [column.name for column in USER_ACTIVITY.features]
        assert online(settings, place, user, *names, view=USER_ACTIVITY.view_name) == [latest[name] for name in names]
        seen = sorted(row["item_id"] for row in EVENTS if row["user_id"] == user)
        assert online(settings, place, user, "user_seen_items", view=USER_HISTORY.view_name) == [seen]
    record = find_item_embeddings(place, ITEM2VEC, world.CUTOFF)
    for group, entity in ((ITEM2VEC.user_group, "u17"), (ITEM2VEC.item_group, "i3")):
        (row,) = (row for row in world.read(feature_table(place, group)) if row[group.entity.name] == entity)
        names = [column.name for column in group.features]
        references = [f"{group.view_name}:{name}" for name in names]
        answer = open_store(settings, place).get_online_features(references, [{group.entity.name: entity}]).to_dict()
        assert [answer[name][0] for name in names] == [row[names[0]], record.sha256]
    assert materialize.run(settings, place, world.CUTOFF) == result
    assert contents(settings.redis_url) == first
    with redis.Redis.from_url(settings.redis_url) as client:
        assert {client.ttl(key) for key in first} == {-1}


def test_what_a_group_weighs_is_its_fields_and_their_names(settings: Settings, place: Namespace) -> None:
    materialize.run(settings, place, world.CUTOFF)
    weight = weigh(settings.redis_url, place.name, USER_LIKED_ITEMS)
    view = USER_LIKED_ITEMS.view_name
    names = {f"_ts:{view}".encode(), *(feature_field(view, column.name) for column in USER_LIKED_ITEMS.features)}
    hashes = [fields for fields in contents(settings.redis_url).values() if names <= fields.keys()]
    assert weight.users == len(hashes) == 30
    assert weight.per_row == sum(len(name) + len(fields[name]) for fields in hashes for name in names) / 30
    assert weight.per_user > weight.per_row


def test_a_corrected_value_of_the_same_time_arrives(settings: Settings, place: Namespace) -> None:
    materialize.run(settings, place, world.CUTOFF)
    rows = world.read(feature_table(place, USER_ACTIVITY))
    latest = max((row for row in rows if row["user_id"] == "u1"), key=lambda row: row["event_time"])
    latest["user_event_count"] += 1000
    world.write_features(place, USER_ACTIVITY, rows)
    materialize.run(settings, place, world.CUTOFF)
    (count,) = online(settings, place, "u1", "user_event_count", view=USER_ACTIVITY.view_name)
    assert count == latest["user_event_count"] > 1000


def test_what_users_did_since_stays_on_top_of_what_the_batch_writes(settings: Settings, place: Namespace) -> None:
    day = timedelta(days=1)
    since = [
        world.event("u1", "i3", world.CUTOFF + timedelta(hours=1), 5.0),
        world.event("u1", "i-unseen", world.CUTOFF + timedelta(hours=1), 1.0),
        world.event("u1", "i4", world.CUTOFF + 2 * day, 4.0),
        world.event("u99", "i5", world.CUTOFF + timedelta(hours=2), 3.0),
    ]

    names = ("user_event_count", "user_last_items", "user_value_mean", "user_top_genres")
    liked_names = ("user_liked_items", "user_liked_times")

    def features(cutoff: datetime) -> dict[str, object]:
        """What the plainest Python makes of everything before `cutoff`."""
        other = world.write_world(settings.state / "other", [*EVENTS, *since], "other", cutoff)
        activity = world.read(feature_table(other, USER_ACTIVITY))
        history = world.read(feature_table(other, USER_HISTORY))
        liked = world.read(feature_table(other, USER_LIKED_ITEMS))
        return {
            user: [
                max((row for row in rows if row["user_id"] == user), key=lambda row: row["event_time"])[name]
                for rows, name in (
                    *((activity, name) for name in names),
                    (history, "user_seen_items"),
                    *((liked, name) for name in liked_names),
                )
            ]
            for user in ("u1", "u2", "u99")
        }

    def served() -> dict[str, object]:
        return {
            user: [
                *online(settings, place, user, *names, view=USER_ACTIVITY.view_name),
                *online(settings, place, user, "user_seen_items", view=USER_HISTORY.view_name),
                *online(settings, place, user, *liked_names, view=USER_LIKED_ITEMS.view_name),
            ]
            for user in ("u1", "u2", "u99")
        }

    materialize.run(settings, place, world.CUTOFF)
    everything = features(world.CUTOFF + 3 * day)
    with redis.Redis.from_url(settings.redis_url) as client:
        users = open_users(client, place, read_knowledge(place, None))
        placed = [Placed(world.sent_event(row), Position(1, number)) for number, row in enumerate(since)]
        users.apply(placed)
        assert served() == everything
        materialize.run(settings, place, world.CUTOFF)
        assert served() == everything, "the same cutoff again"
        world.write_world(settings.state, [*EVENTS, *since], place.name, world.CUTOFF + day)
        materialize.run(settings, place, world.CUTOFF + day)
        assert served() == everything, "a later cutoff, which knows of some of them"
        assert client.zrange(recent_users_key(place.name), 0, -1) == [b"u1"]
        world.write_world(settings.state, [*EVENTS, *since], place.name, world.CUTOFF + 3 * day)
        materialize.run(settings, place, world.CUTOFF + 3 * day)
        assert served() == everything, "the batch knows of all of them"
        assert client.zcard(recent_users_key(place.name)) == 0
        assert not client.exists(materializing_key(place.name))


def test_a_fold_between_two_groups_that_the_batch_writes_does_not_stay(
    settings: Settings, place: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch knows an earlier event of the user than the stream does, of a part that came late."""
    day = timedelta(days=1)
    streamed = [world.event("u1", "i3", world.CUTOFF + timedelta(hours=3), 5.0)]
    too_late = [world.event("u1", "i-late", world.CUTOFF + timedelta(hours=2), 1.0)]
    part = [world.event("u1", "i4", world.CUTOFF + timedelta(hours=1), 1.0)]
    materialize.run(settings, place, world.CUTOFF)
    with redis.Redis.from_url(settings.redis_url) as client:
        users = open_users(client, place, read_knowledge(place, None))
        users.apply([Placed(world.sent_event(row), Position(1, at)) for at, row in enumerate([*streamed, *too_late])])
        world.write_world(settings.state, [*EVENTS, *streamed, *part], place.name, world.CUTOFF + day)
        write = materialize._write

        def write_and_fold(*arguments: Any) -> set[str]:
            present = write(*arguments)
            users.fold_again()
            return present

        monkeypatch.setattr(materialize, "_write", write_and_fold)
        materialize.run(settings, place, world.CUTOFF + day)
    rows = [row for row in world.read(feature_table(place, USER_ACTIVITY)) if row["user_id"] == "u1"]
    latest = max(rows, key=lambda row: row["event_time"])
    names = ("user_event_count", "user_last_items", "user_value_mean")
    assert online(settings, place, "u1", *names, view=USER_ACTIVITY.view_name) == [latest[name] for name in names]
    (seen,) = online(settings, place, "u1", "user_seen_items", view=USER_HISTORY.view_name)
    assert {"i3", "i4", "i-late"} <= set(seen)


def test_events_at_or_after_the_cutoff_stay_out(settings: Settings, place: Namespace) -> None:
    materialize.run(settings, place, world.CUTOFF)
    before = contents(settings.redis_url)
    future = [world.event("u1", "i-new", world.CUTOFF, 5.0), world.event("u99", "i1", world.CUTOFF, 5.0)]
    rows = [*world.read(feature_table(place, USER_ACTIVITY))]
    for event in future:
        rows.append({**rows[0], "user_id": event["user_id"], "event_time": event["event_time"]})
    world.write_features(place, USER_ACTIVITY, rows)
    materialize.run(settings, place, world.CUTOFF)
    assert contents(settings.redis_url) == before


def test_a_user_whose_features_vanished_is_forgotten_and_nobody_else(settings: Settings, place: Namespace) -> None:
    other = world.write_world(settings.state, EVENTS, name="a-test-set")
    registry.run(settings, other)
    materialize.run(settings, other, world.CUTOFF)
    untouched = contents(settings.redis_url)
    materialize.run(settings, place, world.CUTOFF)
    with redis.Redis.from_url(settings.redis_url) as client:
        key = stored_entities(client, "test_set", "user_id")["u2"]
        client.hset(key, "_ts:user_activity_0ldha5h0", b"")
    remaining = [row for row in EVENTS if row["user_id"] not in {"u1", "u2"}]
    world.write_world(settings.state, remaining)
    materialize.run(settings, place, world.CUTOFF)
    after = contents(settings.redis_url)
    assert after[key] == {b"_ts:user_activity_0ldha5h0": b""}
    with redis.Redis.from_url(settings.redis_url) as client:
        assert stored_entities(client, "test_set", "user_id").keys() == {f"u{n}" for n in range(30)} - {"u1"}
        assert len(stored_entities(client, "a_test_set", "user_id")) == 30
    assert {name: after[name] for name in untouched} == untouched


def test_a_superseded_cutoff_leaves_redis_and_snapshot_untouched(settings: Settings, place: Namespace) -> None:
    materialize.run(settings, place, world.CUTOFF)
    publish.run(settings, place, world.CUTOFF)
    before, pointer = contents(settings.redis_url), place.online_current.read_bytes()
    earlier = world.CUTOFF - timedelta(days=2)
    world.write_world(settings.state, EVENTS, cutoff=earlier)
    for job in (materialize, publish):
        with pytest.raises(SupersededError, match="1998-04-09T00:00:00Z lies before 1998-04-11T00:00:00Z"):
            job.run(settings, place, earlier)
    assert contents(settings.redis_url) == before
    assert place.online_current.read_bytes() == pointer


def test_what_was_published_as_of_a_time_to_come_gives_way_to_the_next_refresh(
    settings: Settings, place: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs refuse such a cutoff today, but there are state folders in which it is online."""
    materialize.run(settings, place, world.CUTOFF)
    right = publish.run(settings, place, world.CUTOFF), contents(settings.redis_url)
    to_come = datetime(9000, 1, 1, tzinfo=UTC)
    world.write_world(settings.state, EVENTS, cutoff=to_come)
    materialize.run(settings, place, to_come)
    publish.run(settings, place, to_come)
    assert OnlineSnapshot.read(place.online_current).cutoff == "9000-01-01T00:00:00Z"
    world.write_world(settings.state, EVENTS)
    materialize.run(settings, place, world.CUTOFF)
    assert (publish.run(settings, place, world.CUTOFF), contents(settings.redis_url)) == right
    assert online_cutoff(place) == world.CUTOFF
    assert "gives way to the next refresh: cutoff 9000-01-01T00:00:00Z lies after the clock" in caplog.text


def test_what_is_online_counts_unless_it_lies_after_the_clock(place: Namespace) -> None:
    write_materialized(place, Materialized(world.CUTOFF, {}, {}))
    day = timedelta(days=1)
    assert online_cutoff(place, world.CUTOFF - day) == world.CUTOFF, "the day of the last event may go on"
    assert online_cutoff(place, world.CUTOFF - day - timedelta(microseconds=1)) is None


def test_a_redis_that_is_down_is_transient_and_named_without_its_password(settings: Settings, place: Namespace) -> None:
    down = settings.model_copy(update={"redis_url": "redis://:secret@127.0.0.1:1/0"})
    with pytest.raises(OnlineStoreError, match=r"redis://127\.0\.0\.1:1/0 does not answer .*'make up'") as refusal:
        materialize.run(down, place, world.CUTOFF)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("comes_back", [True, False], ids=["it restarts", "it stays away"])
def test_a_redis_that_goes_within_a_materialisation_is_filled_by_the_next(
    tmp_path: Path, template: Path, durable: DurableRedis, *, comes_back: bool
) -> None:
    batch = 4
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    settings, place = Settings(state=tmp_path, redis_url=durable.url), Namespace(tmp_path, "test-set")
    registry.run(settings, place)
    rows = materialize.run(settings, place, world.CUTOFF)
    whole = contents(durable.url)
    with redis.Redis.from_url(durable.url) as client:
        client.flushall()
    calls, sending = [0], online_writes.send

    def send(client: redis.Redis, commands: pa.Buffer, count: int) -> None:
        calls[0] += 1
        if calls[0] == batch:
            durable.kill()
            if comes_back:
                durable.start()
        sending(client, commands, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online_writes, "send", send)
        with pytest.raises(OnlineStoreError, match="does not answer") if not comes_back else nullcontext():
            materialize.run(settings, place, world.CUTOFF)
    if not comes_back:
        durable.start()
    assert calls[0] >= batch
    assert materialize.run(settings, place, world.CUTOFF) == rows
    assert contents(durable.url) == whole


@pytest.fixture(scope="module")
def durable() -> Iterator[DurableRedis]:
    with durable_redis() as server:
        yield server


def test_a_wrong_password_is_terminal(settings: Settings, place: Namespace) -> None:
    wrong = settings.redis_url.replace("redis://:", "redis://:x")
    with pytest.raises(JobError, match="correct KESTREL_REDIS_URL") as refusal, online_client(wrong):
        pass
    assert not isinstance(refusal.value, OnlineStoreError)
    assert place.name == "test-set"


def test_features_of_another_cutoff_are_refused(settings: Settings, place: Namespace) -> None:
    with pytest.raises(JobError, match=r"rows as of 1998-04-11.*run 'python -m pipelines features'"):
        materialize.run(settings, place, world.CUTOFF + timedelta(days=1))


def test_materialize_before_registry_says_so(settings: Settings) -> None:
    place = world.write_world(settings.state, EVENTS, name="unregistered")
    with pytest.raises(RegistryError, match="run 'python -m pipelines registry'"):
        materialize.run(settings, place, world.CUTOFF)


def test_publish_holds_every_item_and_is_the_same_again(settings: Settings, place: Namespace) -> None:
    materialize.run(settings, place, world.CUTOFF)
    first = publish.run(settings, place, world.CUTOFF)
    pointer = place.online_current.stat()  # its access time may change, the file may not
    snapshot = OnlineSnapshot.read(place.online_current)
    catalogue = pq.read_table(place.root / snapshot.catalogue.path)
    assert (snapshot.items, snapshot.users, snapshot.feast_project) == (26, 30, "test_set")
    assert snapshot.catalogue.path == f"online/{first['snapshot']}/catalogue.parquet"
    assert snapshot.catalogue.checksum == file_sha256(place.root / snapshot.catalogue.path)
    vectors = snapshot.of_kind(PartKind.VECTORS)
    assert vectors.keys() == {ITEM2VEC.name}
    path = place.root / vectors[ITEM2VEC.name].path
    assert vectors[ITEM2VEC.name].checksum == file_sha256(path)
    definition = channels(Schema.from_json(snapshot.schema))[ITEM2VEC.name].definition
    assert vectors[ITEM2VEC.name].data == {
        "size": EMBEDDING_SIZE,
        "similarity": "cosine",
        "definition": definition,
    }
    tables = snapshot.of_kind(PartKind.CHANNEL)
    assert tables == find_channels(place, MOVIELENS, world.CUTOFF)
    assert {part.version for part in tables.values()} == {snapshot.cutoff}
    assert ITEM2VEC.user_group.name in snapshot.views
    assert catalogue.schema.names == [column.name for column in publish.catalogue_dataset(FEATURES).columns]
    items = {row["item_id"]: row for row in catalogue.to_pylist()}
    assert (
        items["i-unseen"] | {"item_event_count": 0, "item_value_mean": -1.0, "item_value_std": -1.0}
        == items["i-unseen"]
    )
    for item in ("i0", "i7"):
        assert items[item]["item_event_count"] == sum(row["item_id"] == item for row in EVENTS)
    materialize.run(settings, place, world.CUTOFF)
    assert publish.run(settings, place, world.CUTOFF) == first
    again = place.online_current.stat()
    assert (again.st_ino, again.st_mtime_ns) == (pointer.st_ino, pointer.st_mtime_ns)


def test_a_catalogue_says_how_old_each_item_s_features_are_where_they_grow_old(
    settings: Settings, place: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing_old = replace(ITEM_ACTIVITY, ttl_days=7)
    for module in (publish, tables, views):
        monkeypatch.setattr(module, "declared", lambda schema: replace(declared(schema), item_activity=growing_old))
    world.write_features(place, growing_old, world.read(feature_table(place, ITEM_ACTIVITY)))
    registry.run(settings, place)
    materialize.run(settings, place, world.CUTOFF)
    publish.run(settings, place, world.CUTOFF)
    catalogue = pq.read_table(place.root / OnlineSnapshot.read(place.online_current).catalogue.path)
    received = dict(
        zip(catalogue["item_id"].to_pylist(), catalogue["item_activity_event_time"].to_pylist(), strict=True)
    )
    expected = {
        item: max(row["event_time"] for row in EVENTS if row["item_id"] == item)
        for item in received
        if item != "i-unseen"
    }
    assert received == {**expected, "i-unseen": None}
    lifetimes = item_lifetimes(catalogue, [growing_old], "catalogue.parquet")
    assert len(lifetimes[0].as_of_us) == catalogue.num_rows


def test_publish_refuses_what_redis_was_not_filled_from(settings: Settings, place: Namespace) -> None:
    with pytest.raises(JobError, match=r"received nothing; run 'python -m pipelines materialize'"):
        publish.run(settings, place, world.CUTOFF)
    materialize.run(settings, place, world.CUTOFF)
    rows = world.read(feature_table(place, ITEM_ACTIVITY))
    rows[0]["item_value_mean"] = 1.25
    world.write_features(place, ITEM_ACTIVITY, rows)
    with pytest.raises(JobError, match="or as they were then"):
        publish.run(settings, place, world.CUTOFF)
    assert not place.online_current.exists()


def test_publish_needs_the_embeddings_of_its_cutoff(settings: Settings, place: Namespace) -> None:
    materialize.run(settings, place, world.CUTOFF)
    shutil.rmtree(place.embeddings)
    with pytest.raises(JobError, match="python -m pipelines embeddings"):
        publish.run(settings, place, world.CUTOFF)


def test_publish_needs_the_channels_of_its_cutoff_whole(settings: Settings, place: Namespace) -> None:
    materialize.run(settings, place, world.CUTOFF)
    (table,) = (place.channels / "itemcf").glob("*.parquet")
    table.write_bytes(b"PAR1 of another file")
    with pytest.raises(CorruptDatasetError, match=r"itemcf.*python -m pipelines channels"):
        publish.run(settings, place, world.CUTOFF)
    shutil.rmtree(place.channels / "itemcf")
    with pytest.raises(JobError, match=r"channel itemcf .*python -m pipelines channels"):
        publish.run(settings, place, world.CUTOFF)
    assert not place.online_current.exists()


def test_registering_again_changes_nothing_and_keeps_older_views(settings: Settings, place: Namespace) -> None:
    store = open_store(settings, place)
    old = store.get_feature_view(USER_PROFILE.view_name)
    old.name = "user_profile_0ldha5h0"
    store.apply([old])
    first = registry.run(settings, place)
    names = sorted(view.name for view in open_store(settings, place).list_feature_views())
    assert registry.run(settings, place) == first
    assert sorted(view.name for view in open_store(settings, place).list_feature_views()) == names
    assert set(names) == {*first["views"].values(), "user_profile_0ldha5h0"}  # type: ignore[attr-defined]  # loosely typed
    service = registered_service(open_store(settings, place), RANKING_FEATURES)
    assert [projection.name for projection in service.feature_view_projections] == list(RANKING_FEATURES.views.values())
