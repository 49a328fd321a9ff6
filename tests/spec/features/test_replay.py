"""A replay of the lake through the stream gives the same features as the batch: one specification, both paths, whole.

Every event of a lake goes through a real Redis stream and the stream job's own worker into an online store that knows
nobody; the features job computes everybody in Spark from the same lake. All that both of them write has to be equal.
"""

from __future__ import annotations

import random
import threading
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_repo.contracts.datasets import EVENTS, USER_ID
from feature_repo.contracts.events import stream_name
from feature_repo.contracts.features import declared
from feature_repo.contracts.places import Namespace
from pipelines.features.tables import feature_table
from pipelines.features.terms import MOST_TERMS
from pipelines.io.lake import stored_dataset
from pipelines.jobs import features
from pipelines.settings import Settings
from pipelines.stream.online_users import put_off_users_key
from pipelines.stream.redis_source import ONLINE
from pipelines.stream.worker import Worker
from tests.lake_world import write_lake
from tests.recommender_world import wait_until
from tests.redis_server import redis_server
from tests.spec.features.test_stream_and_batch import BASE, CUTOFF, EPOCH, SHOP, as_event, random_shop
from tests.stream_world import online_row, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

    from feature_repo.contracts.features import FeatureGroup

pytestmark = pytest.mark.spark

Row = dict[str, Any]
TAGS = tuple(f"tag{number:02}" for number in range(MOST_TERMS + 6))
RARE = tuple(f"rare{number}" for number in range(12))
"""Beside `TAGS` more than counts are kept for: both paths have to leave out the same ones."""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with redis_server() as url:
        yield Settings(state=tmp_path, redis_url=url, stream_land_seconds=60)


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


def write_shop_lake(place: Namespace) -> None:
    """Write a shop: users do several things in one second, one of them very many; an item says its rare tag often."""
    log, items = random_shop(seed=71)
    dice = random.Random(72)
    log += [
        {**dice.choice(log), "user_id": "bot", "event_time": BASE + timedelta(microseconds=at)} for at in range(1_500)
    ]
    for item, rare in zip(items, RARE, strict=True):
        item["tags"] = [*dice.sample(TAGS, 20), *[rare] * 9]
    users = sorted({row["user_id"] for row in log})
    write_lake(place, log, items, [{"user_id": user} for user in users], SHOP)


def replay(settings: Settings, client: redis.Redis, place: Namespace) -> int:
    """Send the whole lake, in order of time, for the stream job's worker to work off; return how many events."""
    log = stored_dataset(place, EVENTS).snapshot().read().sort_by("event_time").to_pylist()
    send(client, place.name, [as_event(row) for row in log])
    worker = Worker(settings, place, client)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: worker.applied == len(log), "every event is in the features, or their fold put off")
        wait_until(lambda: not client.exists(put_off_users_key(place.name)), "no fold is")
    finally:
        worker.stop.set()
        thread.join()
    assert client.xpending(stream_name(place.name), ONLINE)["pending"] == 0
    return len(log)


def batch_rows(place: Namespace, group: FeatureGroup) -> dict[str, Row]:
    """Return each user's latest row, without its key."""
    rows = feature_table(place, group).snapshot().read().sort_by("event_time").to_pylist()
    return {row.pop(USER_ID.name): row for row in rows}


def test_a_replay_of_the_lake_gives_the_features_of_the_batch(
    spark: SparkSession, settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Namespace(settings.state, "replayed")
    write_shop_lake(place)
    monkeypatch.setattr(features, "spark_session", lambda *_, **__: nullcontext(spark))
    features.run(settings, place, CUTOFF, None)
    assert replay(settings, client, place) > 2_000
    declaration = declared(SHOP)
    everybody = batch_rows(place, declaration.user_state).keys()
    streamed = [group for group in declaration.users if group.streamed]
    as_of_the_batch = [declaration.user_history, declaration.user_liked_items]
    of_the_event = [declaration.user_activity, declaration.user_session, declaration.user_sequence]
    assert streamed == [*of_the_event, *as_of_the_batch]
    sequences = batch_rows(place, declaration.user_sequence).values()
    assert any(all(row["user_sequence_items"]) for row in sequences), "somebody has more events than a sequence holds"
    assert any(
        len(row["user_liked_items"]) == SHOP.liked_items
        for row in batch_rows(place, declaration.user_liked_items).values()
    ), "somebody likes more than is kept"
    for group in streamed:
        expected = batch_rows(place, group)
        received = {user: online_row(client, place.name, user, group) for user in everybody}
        if group in as_of_the_batch:
            assert {row.pop("event_time") for row in received.values() if row} == {EPOCH}, "it is no batch's"
            assert {row.pop("event_time") for row in expected.values()} == {CUTOFF - timedelta(microseconds=1)}
        assert received == {user: expected.get(user) for user in everybody}
