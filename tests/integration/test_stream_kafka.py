"""Kafka in the place of the Redis stream, against the broker that librdkafka brings for tests: its protocol over TCP.

It is no Kafka cluster: no replication, no disk. What is shown is that the adapters speak the protocol as they should.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import redis
from confluent_kafka import Producer

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.events import Position, topic_name
from pipelines.io.lake import stored_dataset
from pipelines.settings import Settings
from pipelines.stream.kafka_source import KafkaSource
from pipelines.stream.redis_source import LAKE, ONLINE
from pipelines.stream.worker import apply_next, land
from serving.recommender.errors import EventLogError
from serving.recommender.kafka_event_log import KafkaEventLog
from tests.integration.test_stream import expected, open_lake, received, users_of, with_corrections
from tests.redis_server import redis_server
from tests.stream_world import random_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from feature_repo.contracts.events import Event


@pytest.fixture(scope="module")
def events_url() -> Iterator[str]:
    """The address of a broker that lives in this process, as long as its client does."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 2})
    (broker,) = producer.list_topics(timeout=10).brokers.values()
    yield f"kafka://{broker.host}:{broker.port}"
    producer.flush(1)


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        yield client


def send(events_url: str, namespace: str, events: Sequence[Event]) -> None:
    async def append() -> None:
        log = KafkaEventLog(events_url, namespace, timeout_s=10)
        await log.append(events)
        await log.close()

    asyncio.run(append())


def test_events_reach_features_and_the_lake(events_url: str, client: redis.Redis, tmp_path: Path) -> None:
    from pipelines.stream.merge import merge_landed

    place, log = open_lake(tmp_path, "by-kafka"), with_corrections(random_events(60))
    settings = Settings(state=tmp_path, events_url=events_url)
    send(events_url, place.name, log[:40])
    broken = Producer({"bootstrap.servers": events_url.removeprefix("kafka://")})
    for value in (b"{", b"[" * 100_000, b'{"user_id": "\\ud800"}'):
        broken.produce(topic_name(place.name), value=value)
    assert broken.flush(10) == 0
    send(events_url, place.name, log[40:])
    with closing(KafkaSource(events_url, place.name, ONLINE, alone=True)) as dies:
        assert apply_next(dies, users_of(client, place), wait_s=0) == len(log)
    assert received(client, place) == expected(place, log)
    assert land(settings, client, place, wait_s=1) == len(log)
    assert land(settings, client, place, wait_s=1) == 0, "acknowledged for good"
    merge_landed(place)
    assert stored_dataset(place, EVENTS).snapshot().rows == len({event.key for event in log})


def test_what_a_reader_did_not_acknowledge_is_read_again(events_url: str) -> None:
    namespace, events = "read-again", random_events(20, seed=3)
    send(events_url, namespace, events)
    with closing(KafkaSource(events_url, namespace, LAKE, alone=True)) as dies:
        first = dies.read(100, 0)
        assert len(first) == 20
        kept = [entry for entry in first if entry.token[0] == first[0].token[0]][:2]
        dies.acknowledge(kept)
    with closing(KafkaSource(events_url, namespace, LAKE, alone=True)) as heir:
        assert {entry.token for entry in heir.read(100, 0)} == {entry.token for entry in first} - {
            entry.token for entry in kept
        }


def test_the_broker_has_the_last_word_whatever_the_senders_clocks_say(
    events_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    from pipelines.stream.merge import merge_landed, streamed_table

    place, first = open_lake(tmp_path, "skewed-clocks"), random_events(30, seed=5)
    settings = Settings(state=tmp_path, events_url=events_url)
    corrected = [dataclasses.replace(event, value=5.5 - event.value) for event in first]
    send(events_url, place.name, first)
    an_hour_slow = Producer({"bootstrap.servers": events_url.removeprefix("kafka://")})
    for event in corrected:
        value, earlier = json.dumps(event.fields()).encode(), int(time.time() - 3600) * 1000
        an_hour_slow.produce(topic_name(place.name), key=event.user_id.encode(), value=value, timestamp=earlier)
    assert an_hour_slow.flush(10) == 0
    with closing(KafkaSource(events_url, place.name, ONLINE, alone=True)) as source:
        entries = source.read(100, 0)
        partitions: dict[str, set[int]] = defaultdict(set)
        for entry in entries:
            partitions[entry.fields["user_id"]].add(entry.token[0])
        assert {len(numbers) for numbers in partitions.values()} == {1}, "a user's events are in one partition"
    with closing(KafkaSource(events_url, place.name, ONLINE, alone=True)) as source:
        assert apply_next(source, users_of(client, place), wait_s=0) == 60
    assert received(client, place) == expected(place, corrected)
    assert land(settings, client, place, wait_s=1) == 60
    merge_landed(place)
    rows = streamed_table(place).snapshot().read().to_pylist()
    assert {row["event_id"]: row["value"] for row in rows} == {event.event_id: event.value for event in corrected}


def test_what_kafka_brings_is_later_than_what_redis_brought(events_url: str) -> None:
    send(events_url, "moved-here", random_events(20, seed=6))
    by_redis = Position(int(datetime(2500, 1, 1, tzinfo=UTC).timestamp() * 1000), 2**31)
    with closing(KafkaSource(events_url, "moved-here", LAKE, alone=True)) as source:
        assert all(by_redis < entry.position for entry in source.read(100, 0))


def test_readers_share_a_group(events_url: str) -> None:
    namespace, events = "shared", random_events(20, seed=4)
    send(events_url, namespace, events)
    with closing(KafkaSource(events_url, namespace, ONLINE, alone=False)) as source:
        entries = source.read(100, 20)
        while len(entries) < 20:
            entries += source.read(100, 20)
        source.acknowledge(entries)
    assert {entry.fields["event_id"] for entry in entries} == {event.event_id for event in events}


def test_a_broker_that_is_away_is_said() -> None:
    async def append() -> None:
        log = KafkaEventLog("kafka://127.0.0.1:1", "nowhere", timeout_s=0.2)
        await log.append(random_events(2))

    with pytest.raises(EventLogError, match="KESTREL_EVENTS_URL"):
        asyncio.run(append())
