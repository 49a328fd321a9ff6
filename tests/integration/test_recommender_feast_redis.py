"""Feast's layout in Redis, decoded here, against Feast's own client on the same real server."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from serving.protocol.free_ports import free_ports
from serving.recommender.errors import UserFeaturesError
from serving.recommender.user_features import UserFeatures, connect, read_user, user_layout
from tests.movielens import FEATURES, USER_ACTIVITY, USER_HISTORY, USER_PROFILE
from tests.recommender_world import (
    USERS_KNOWN,
    World,
    feature_store,
    rated_items,
    snapshot_views,
    write_group,
    write_users,
)
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import feast

NOW = datetime(1998, 4, 23, tzinfo=UTC)
ODD_USER = "é 1/'%"


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, feast.FeatureStore, str]]:
    folder: Path = tmp_path_factory.mktemp("world")
    world = World(folder)
    world.publish_snapshot()
    with redis_server() as url:
        store = feature_store(world, url)
        write_users(store)
        write_group(store, USER_HISTORY.name, {ODD_USER: {"user_seen_items": ["0001"]}}, NOW)
        write_group(
            store, USER_PROFILE.name, {ODD_USER: {"user_age": None, "user_gender": "", "user_occupation": "ü"}}, NOW
        )
        yield world, store, url


def read(world: World, url: str, user: str) -> UserFeatures:
    async def once() -> UserFeatures:
        redis = connect(url, 1.0)
        async with contextlib.aclosing(redis):
            return await read_user(redis, user_layout(world.publish_snapshot(), FEATURES), user, NOW, 1.0)

    return asyncio.run(once())


def with_feast(store: feast.FeatureStore, user: str) -> dict[str, Any]:
    names = [f"{snapshot_views()[group.name]}:{column.name}" for group in FEATURES.users for column in group.features]
    reply = store.get_online_features(features=names, entity_rows=[{"user_id": user}]).to_dict()
    return {name: value for name, (value,) in reply.items() if name != "user_id"}


@pytest.mark.parametrize("user", [*USERS_KNOWN, ODD_USER])
def test_every_feature_of_every_user_equals_what_feast_reads(
    online: tuple[World, feast.FeatureStore, str], user: str
) -> None:
    world, store, url = online
    ours, theirs = read(world, url, user), with_feast(store, user)
    assert ours.known
    absent = {group.name for group in FEATURES.users} - {group.name for group in (USER_PROFILE, USER_HISTORY)}
    assert set(ours.missing) == (absent if user == ODD_USER else set())
    for name, value in theirs.items():
        assert ours.values.get(name) == value, name


def test_the_whole_history_is_seen(online: tuple[World, feast.FeatureStore, str]) -> None:
    world, _, url = online
    assert set(read(world, url, USERS_KNOWN[3]).seen) == set(rated_items(USERS_KNOWN[3]))
    assert read(world, url, ODD_USER).seen == ("0001",)


def test_feast_and_we_agree_on_who_is_unknown(online: tuple[World, feast.FeatureStore, str]) -> None:
    world, store, url = online
    assert set(with_feast(store, "nobody").values()) == {None}
    assert not read(world, url, "nobody").known


def test_corrected_data_arrives_at_the_same_event_time(online: tuple[World, feast.FeatureStore, str]) -> None:
    world, store, url = online
    user = USERS_KNOWN[5]
    before = dict(read(world, url, user).values)
    changed = {column.name: before[column.name] for column in USER_ACTIVITY.features} | {"user_event_count": 99}
    write_group(store, USER_ACTIVITY.name, {user: changed}, datetime(1998, 4, 22, 5, tzinfo=UTC))
    assert read(world, url, user).values["user_event_count"] == 99


def test_no_server_is_a_transient_error_that_names_the_setting(online: tuple[World, feast.FeatureStore, str]) -> None:
    world, _, _ = online
    with pytest.raises(UserFeaturesError, match="KESTREL_REDIS_URL"):
        read(world, f"redis://127.0.0.1:{free_ports(1)[0]}/0", USERS_KNOWN[0])


def test_a_wrong_password_is_such_an_error_too(online: tuple[World, feast.FeatureStore, str]) -> None:
    world, _, url = online
    with pytest.raises(UserFeaturesError, match=r"(?i)password|auth"):
        read(world, url.replace("://:", "://:x"), USERS_KNOWN[0])
