"""`POST /events` of a real recommender with a real Redis and a real stream worker: from the request to the answer."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
from confluent_kafka import Producer
from pydantic import SecretStr

from feature_repo.contracts.datasets import items_dataset
from feature_repo.contracts.events import Event, id_key, stream_name
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from pipelines import settings as data_settings
from pipelines.io.lake import UNDIVIDED, stored_dataset
from pipelines.stream.kafka_source import KafkaSource
from pipelines.stream.redis_source import LAKE
from pipelines.stream.worker import Worker, connect
from serving.protocol.free_ports import free_ports
from serving.recommender.event_ids import open_event_ids
from serving.recommender.settings import Settings
from tests.recommender_world import (
    CUTOFF,
    ITEM_COUNT,
    NAMESPACE,
    World,
    catalogue_table,
    item_id,
    recommender_in_thread,
    wait_until,
)
from tests.redis_server import DurableRedis, durable_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

NOW = datetime.fromisoformat(CUTOFF) + timedelta(hours=12)
LIMIT = 50


@dataclass
class Way:
    """Everything that an event passes."""

    world: World
    server: DurableRedis
    client: httpx.Client
    redis: redis.Redis
    settings: Settings

    def post(self, body: Any, status: int = 202) -> dict[str, Any]:
        response = self.client.post("/events", content=body if isinstance(body, bytes) else json.dumps(body))
        assert response.status_code == status, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def entries(self) -> int:
        return int(self.redis.xlen(stream_name(NAMESPACE)))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    world = World(tmp_path_factory.mktemp("state"))
    world.publish_snapshot()
    write_schema(world.place, MOVIELENS)
    items = items_dataset(MOVIELENS)
    with stored_dataset(world.place, items).rewriting() as writer:
        writer.add(UNDIVIDED, catalogue_table().select(items.column_names))
    with durable_redis() as server, closing(redis.Redis.from_url(server.url)) as client:
        settings = Settings(
            state=world.state,
            namespace=NAMESPACE,
            redis_url=server.url,
            model_server_grpc=f"127.0.0.1:{free_ports(1)[0]}",
            recommender_clock=NOW,
            recommender_event_batch=LIMIT,
        )
        with recommender_in_thread(settings) as http:
            yield Way(world, server, http, client, settings)


@pytest.fixture
def working(path: Way) -> Iterator[Worker]:
    """A stream worker beside the recommender."""
    settings = data_settings.Settings(state=path.world.state, redis_url=path.server.url, stream_land_seconds=60)
    with closing(connect(settings)) as client:
        worker = Worker(settings, path.world.place, client)
        thread = threading.Thread(target=worker.run)
        thread.start()
        yield worker
        worker.stop.set()
        thread.join()


def event(user: str = "u", item: int = 3, second: int = 0, **changes: Any) -> dict[str, Any]:
    time = datetime.fromisoformat(CUTOFF) + timedelta(seconds=second)
    fields = {"user_id": user, "item_id": item_id(item), "event_type": "rating", "value": 4.5}
    return {**fields, "event_time": time.isoformat(), **changes}


def shown_to(path: Way, user: str, k: int = 100) -> dict[str, Any]:
    answer: dict[str, Any] = path.client.get(f"/recommend/{user}", params={"k": k}).json()
    return answer


def test_a_user_is_the_same_whatever_surrounds_the_id(path: Way) -> None:
    one, other = (path.post(event(user, event_id=None))["event_ids"] for user in ("zz1", "\u200b zz1\xa0"))
    assert one == other
    entries = path.redis.xrevrange(stream_name(NAMESPACE), count=2)
    assert [fields[b"user_id"] for _, fields in entries] == [b"zz1", b"zz1"]
    for nobody in ("   ", "..", "\u200b"):
        assert path.post(event(nobody), 422)["object"] == "user_id"


def test_what_a_user_did_changes_the_next_answer(path: Way, working: Worker) -> None:
    before = shown_to(path, "fresh")
    assert before["degraded"] == ["unknown_user"]
    assert item_id(0) in {item["item_id"] for item in before["items"]}
    answer = path.post(event("fresh", item=0))
    assert answer["accepted"] == 1
    assert answer["refused"] == []
    assert len(answer["event_ids"][0]) == 32

    def filtered() -> bool:
        return item_id(0) not in {item["item_id"] for item in shown_to(path, "fresh")["items"]}

    wait_until(filtered, "the item just seen is filtered", 5)
    after = shown_to(path, "fresh")
    assert "unknown_user" not in after["degraded"]
    assert "user_features" not in after["degraded"], "every group has the user"
    assert any(item["recalled_by"] != ["popular"] for item in after["items"]), "near what the user just liked"


def test_a_batch_is_taken_but_for_what_is_refused_by_index(path: Way) -> None:
    before = path.entries()
    batch = [event(second=1), event(item=ITEM_COUNT + 5), event(second=2, event_id="mine"), event(value=9), "event"]
    answer = path.post(batch)
    assert answer["accepted"] == 2
    assert answer["event_ids"][1] == "mine"
    assert [(refused["index"], refused["object"]) for refused in answer["refused"]] == [
        (1, "item_id"),
        (3, "value"),
        (4, "event"),
    ]
    assert answer["refused"][1]["received"] == "9"
    assert "0.5 to 5" in answer["refused"][1]["expected"]
    assert path.entries() == before + 2


@pytest.mark.parametrize(
    ("body", "status", "about"),
    [
        (b"{", 422, "events"),
        (b"", 422, "events"),
        (b"\xff\xfe", 422, "events"),
        ([], 422, "events"),
        ([event(value=0)], 422, "value"),
        (event(event_time="2026-01-01T00:00:00Z"), 422, "event_time"),
        ([event()] * (LIMIT + 1), 413, "events"),
        (b" " * (LIMIT * 2048 + 1), 413, "events"),
    ],
)
def test_what_is_not_taken_is_answered_with_what_to_do(path: Way, body: Any, status: int, about: str) -> None:
    before = path.entries()
    answer = path.post(body, status)
    assert answer["object"] == about
    assert all(answer[name] for name in ("object", "expected", "received", "remedy"))
    assert path.entries() == before


TEXTS = ("x" * 100_000, "\0", "a\0b", "\x85", "a/b", "", True, 1, [], {}, [[]], {"": None})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("value", text) for text in ("1e308", "-1e308", "1.7976931348623157e308", "5e-324", "1" + "0" * 300)),
        *(("value", text) for text in ("18446744073709551616", "-9223372036854775809", "true", "false", '"4"', "{}")),
        *(("value", "[" * depth + "]" * depth) for depth in (1, 980, 1000)),
        *((field, json.dumps(sent)) for field in ("user_id", "item_id", "event_id", "event_type") for sent in TEXTS),
        ("user_id", "[" * 1000 + "]" * 1000),
        *(("event_time", f'"{moment}"') for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")),
        *(("event_time", f'"{moment}"') for moment in ("-0001-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "1e308")),
        *(("event_time", text) for text in ('"1998-04-22T10:00:00Z\\u0000more"', "1e308", "true", "893286638000000")),
        ("event_time", json.dumps("1998-04-22T10:00:00." + "0" * 50_000 + "+99:00")),
    ],
)
def test_no_value_costs_a_batch_its_good_events(path: Way, field: str, text: str) -> None:
    before = path.entries()
    bad = json.dumps(event(**{field: "HERE"})).replace('"HERE"', text)
    answer = path.post(bad.encode(), 422)
    assert answer["object"] == field
    assert path.entries() == before
    answer = path.post(f"[{json.dumps(event())}, {bad}, {json.dumps(event(item=4))}]".encode())
    assert [(refused["index"], refused["object"]) for refused in answer["refused"]] == [(1, field)]
    assert all(answer["refused"][0].values())
    assert path.entries() == before + 2


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 400, '"\\ud800"', '"\\udfffx"', "[" * 2000 + "]" * 2000]
)
def test_what_json_does_not_know_makes_the_whole_body_none(path: Way, text: str) -> None:
    before = path.entries()
    answer = path.post(f"[{json.dumps(event())}, {json.dumps(event()).replace('4.5', text)}]".encode(), 422)
    assert answer["object"] == "events"
    assert "in JSON" in answer["expected"]
    assert path.entries() == before


def test_events_are_described_by_the_contract(path: Way) -> None:
    page = path.client.get("/openapi.json").json()
    event_schema = page["components"]["schemas"]["Event"]
    assert event_schema["required"] == ["user_id", "item_id", "event_type", "value", "event_time"]
    assert "event_id" in event_schema["properties"]
    assert page["paths"]["/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]


def test_without_redis_nothing_is_lost_silently(path: Way, working: Worker) -> None:
    path.post(event("survivor", item=1, event_id="survives"))
    path.server.kill()
    try:
        for sent in (event("survivor", item=2), event("survivor", item=2, event_id="mine")):
            response = path.client.post("/events", json=sent)
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            assert "KESTREL_REDIS_URL" in response.json()["received"]
        assert path.client.get("/recommend/survivor").status_code == 200
    finally:
        path.server.start()
    path.post(event("survivor", item=2, event_id="survives"), 422)
    answer = path.post([event("survivor", item=2), event("survivor", item=2), event("survivor", item=5)])
    assert answer["accepted"] == 3

    def all_seen() -> bool:
        items = {item["item_id"] for item in shown_to(path, "survivor")["items"]}
        return not items & {item_id(1), item_id(2), item_id(5)}

    wait_until(all_seen, "what was accepted before and after is seen", 10)


def test_a_full_redis_takes_nothing_and_the_answer_says_why(path: Way) -> None:
    before = path.entries()
    path.redis.config_set("maxmemory", 1)
    try:
        for changes in ({}, {"event_id": "mine"}):
            response = path.client.post("/events", json=[event("full", item=1, **changes), event("full", item=2)])
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            assert "raise its maxmemory" in response.json()["received"]
    finally:
        path.redis.config_set("maxmemory", 0)
    assert path.entries() == before
    assert path.post([event("full", item=1), event("full", item=2)])["accepted"] == 2


OTHERS = ({"user_id": "other"}, {"item_id": item_id(9)}, {"event_time": CUTOFF})


def ids_in(client: redis.Redis) -> set[bytes]:
    return set(client.scan_iter(id_key(NAMESPACE, "*")))


def test_an_id_of_a_sender_names_one_event(path: Way) -> None:
    first = event("named", second=1, event_id="an-id")
    for sent in (first, first, {**first, "value": 1}):
        assert path.post(sent)["event_ids"] == ["an-id"]
    before = path.entries()
    for other in OTHERS:
        answer = path.post({**first, **other}, 422)
        assert answer["object"] == "event_id"
        assert "'an-id' named first in the last 86400 s: " in answer["expected"]
        assert f"user_id 'named', item_id '{item_id(3)}', event_type 'rating'" in answer["expected"]
        assert all(repr(each) in answer["received"].replace("+00:00'", "Z'") for each in other.values())
        assert "new event_id" in answer["remedy"]
    assert path.entries() == before
    assert path.post(first)["accepted"] == 1


def test_of_a_batch_the_first_event_of_an_id_is_taken(path: Way) -> None:
    batch = [
        event("batch", second=1, event_id="twice"),
        event("batch", second=2, event_id="twice"),
        event("batch", second=3, value=9, event_id="refused first"),
        event("batch", second=1, value=2, event_id="twice"),
        event("batch", second=4, event_id="refused first"),
        event("batch", second=5),
    ]
    before = path.entries()
    answer = path.post(batch)
    assert answer["accepted"] == 4
    assert answer["event_ids"][:3] == ["twice", "twice", "refused first"]
    refused = [(refused["index"], refused["object"]) for refused in answer["refused"]]
    assert refused == [(1, "event_id"), (2, "value")]
    assert path.entries() == before + 4


def test_an_event_whose_id_was_remembered_before_a_death_is_taken_when_it_comes_again(path: Way) -> None:
    stream, sent = stream_name(NAMESPACE), event("dies", event_id="remembered")
    path.redis.rename(stream, f"{stream}:aside")
    path.redis.set(stream, "no stream: the id is remembered, the event is not appended")
    try:
        path.post(sent, 503)
    finally:
        path.redis.rename(f"{stream}:aside", stream)
    assert id_key(NAMESPACE, "remembered").encode() in ids_in(path.redis)
    before = path.entries()
    path.post({**sent, "user_id": "another"}, 422)
    assert path.post(sent)["accepted"] == 1
    assert path.entries() == before + 1


def test_ids_that_follow_from_the_key_ask_redis_nothing(path: Way) -> None:
    def commands() -> int:
        return sum(int(path.redis.info("commandstats").get(name, {"calls": 0})["calls"]) for name in STATISTICS)

    made = path.post(event("unnamed"))["event_ids"][0]
    before, ids = commands(), ids_in(path.redis)
    assert path.post([event("unnamed"), event("unnamed", event_id=made), event("unnamed", item=4)])["accepted"] == 3
    assert (commands(), ids_in(path.redis)) == (before, ids)
    path.post(event("unnamed", event_id="named"))
    assert commands() > before


STATISTICS = ("cmdstat_set", "cmdstat_get", "cmdstat_eval", "cmdstat_evalsha")


def test_an_id_is_free_again_when_its_time_is_over(path: Way) -> None:
    def status(client: httpx.Client, user: str, event_id: str) -> int:
        return client.post("/events", json=event(user, event_id=event_id)).status_code

    with recommender_in_thread(path.settings) as client:
        assert status(client, "one", "for a day") == 202
        assert status(client, "two", "for a day") == 422
    with recommender_in_thread(path.settings.model_copy(update={"recommender_event_id_seconds": 0.2})) as client:
        assert status(client, "one", "for a while") == 202
        wait_until(lambda: status(client, "two", "for a while") == 202, "the id may name another event", 5)
    wait_until(lambda: id_key(NAMESPACE, "for a while").encode() not in ids_in(path.redis), "Redis forgets it", 5)


def test_of_many_who_give_one_id_at_once_one_is_taken(path: Way) -> None:
    async def remembered(user: str) -> bool:
        ids = open_event_ids(path.settings)
        try:
            return not await ids.remember({0: Event("at once", user, item_id(1), "rating", 1.0, 0)})
        finally:
            await ids.close()

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*(remembered(f"u{number}") for number in range(30)))

    assert sum(asyncio.run(all_at_once())) == 1


def test_with_kafka_ids_are_remembered_in_redis(path: Way) -> None:
    broker = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 2})
    (address,) = broker.list_topics(timeout=10).brokers.values()
    url, before = f"kafka://{address.host}:{address.port}", path.entries()
    with recommender_in_thread(path.settings.model_copy(update={"events_url": url})) as client:
        batch = [event("kafka", second=second, event_id="by kafka") for second in (1, 2, 1)]
        answer = client.post("/events", json=batch).json()
        assert answer["accepted"] == 2
        assert [(refused["index"], refused["object"]) for refused in answer["refused"]] == [(1, "event_id")]
    with closing(KafkaSource(url, NAMESPACE, LAKE, alone=True)) as source:
        assert [entry.fields["event_id"] for entry in source.read(10, 0)] == ["by kafka"] * 2
    nowhere = {"events_url": url, "redis_url": SecretStr(f"redis://127.0.0.1:{free_ports(1)[0]}/0")}
    with recommender_in_thread(path.settings.model_copy(update=nowhere)) as client:
        assert client.post("/events", json=event("kafka", event_id="not remembered")).status_code == 503
        assert client.post("/events", json=event("kafka")).status_code == 202
    broker.close()
    assert path.entries() == before
    path.post(event("kafka", second=2, event_id="by kafka"), 422)


def test_before_the_first_snapshot_events_are_sent_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(state=tmp_path_factory.mktemp("empty"), namespace=NAMESPACE)
    with recommender_in_thread(settings) as client:
        response = client.post("/events", json=event())
    assert response.status_code == 503
    assert response.headers["retry-after"]
