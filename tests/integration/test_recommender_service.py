"""The recommender as a process, between a real Redis that Feast has written and a real model server."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.manifests import Release, ShadowSummary
from feature_repo.contracts.signatures import ROWS_SIGNATURE, Scope
from infra.local.processes import wait_until_ended
from serving.protocol.client import ModelClient, PredictClient
from serving.protocol.free_ports import free_ports
from serving.protocol.recorded import read_requests
from serving.recommender.snapshot import load_snapshot
from serving.recommender.user_features import user_input
from serving.rollout.models_config import read_models_config
from tests.awkward_paths import AWKWARD
from tests.movielens import LIKED_VALUE, RANKING, USER_ACTIVITY, USER_HISTORY
from tests.recommender_world import (
    CUTOFF,
    ITEM_COUNT,
    NAMESPACE,
    USERS_KNOWN,
    Service,
    World,
    catalogue_table,
    corrupt,
    export_model,
    feature_store,
    item_id,
    rated_items,
    recommender_service,
    redis_service,
    settings_environment,
    taste_of,
    user_rows,
    wait_until,
    write_group,
    write_models_config,
    write_users,
)
from tests.releases import with_ranker

if TYPE_CHECKING:
    from collections.abc import Iterator

    import feast

REDIS_MS, RANKING_MS = 400, 600
SLACK_MS = 600
"""What a request may take beside its deadlines on a machine that does other things."""
AT = datetime(1998, 4, 22, 5, tzinfo=UTC)


class Stack:
    """All parts, and a client."""

    def __init__(self, world: World) -> None:
        self.world = world
        ports = free_ports(4)
        self.redis_url = f"redis://:secret@127.0.0.1:{ports[0]}/0"
        self.grpc = f"127.0.0.1:{ports[1]}"
        self.environment = settings_environment(
            world,
            redis_url=self.redis_url,
            model_server_grpc=self.grpc,
            recommender_uri=f"http://127.0.0.1:{ports[3]}",
            recommender_clock="snapshot",
            recommender_poll_seconds="0.1",
            recommender_record_seconds="0.2",
            shadow_share="1",
            recommender_redis_ms=str(REDIS_MS),
            recommender_ranking_ms=str(RANKING_MS),
        )
        self.redis = redis_service(ports[0], "secret", world.state / "redis")
        config = write_models_config(world, [1])
        flags = [f"--port={ports[1]}", f"--rest_api_port={ports[2]}", f"--model_config_file={config}"]
        rest = f"http://127.0.0.1:{ports[2]}/v1/models/{NAMESPACE}.ranking/versions/1"
        self.model_server = Service(
            [sys.executable, "-m", "serving.model_server", *flags], lambda: answers_with(rest, "AVAILABLE")
        )
        self.recommender = recommender_service(self.environment, ports[3])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{ports[3]}", timeout=10, trust_env=False)

    def recommend(self, user: str, k: int = 10) -> dict[str, Any]:
        response = self.client.get(f"/recommend/{user}", params={"k": k})
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return] # an object, by the API

    def wait_for(self, user: str, degraded: list[str]) -> dict[str, Any]:
        wait_until(lambda: self.recommend(user)["degraded"] == degraded, f"degraded is {degraded}")
        return self.recommend(user)

    def part(self, name: str) -> dict[str, str]:
        return self.client.get("/ready").json()["parts"][name]  # type: ignore[no-any-return] # as above


def answers_with(url: str, word: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return word in httpx.get(url, timeout=1, trust_env=False).text
    return False


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    world = World(tmp_path_factory.mktemp("state") / AWKWARD)
    world.publish_snapshot()
    world.publish_release()
    world.write_users_file()
    export_model(world.serving.model(NAMESPACE, RANKING.model) / "1")
    stack = Stack(world)
    with stack.redis.running(), stack.model_server.running(), contextlib.closing(stack.client):
        write_users(feature_store(world, stack.redis_url))
        with stack.recommender.running():
            stack.wait_for(USERS_KNOWN[0], [])
            yield stack


@pytest.fixture(scope="module")
def store(stack: Stack) -> feast.FeatureStore:
    return feature_store(stack.world, stack.redis_url)


def ids(body: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in body["items"]]


def scores(body: dict[str, Any]) -> dict[str, float]:
    return {item["item_id"]: item["score"] for item in body["items"]}


def expected_scores(stack: Stack, user: str, found: list[str]) -> list[float]:
    """Ask the model server for the same items, one full row each: another signature than the recommender uses."""
    catalogue = load_snapshot(stack.world.place).catalogue
    rows = catalogue.find(found)
    values = {name: value for group in user_rows(user).values() for name, value in group.items()}
    values["request_time"] = int(datetime.fromisoformat(CUTOFF).timestamp())
    inputs = {
        item.column.name: catalogue.inputs[item.column.name][rows]
        if item.scope is Scope.ITEM
        else np.repeat(user_input(item.column, values[item.column.name]), len(rows), axis=0)
        for item in RANKING.inputs
    }
    with PredictClient(stack.grpc) as client:
        outputs = client.predict(f"{NAMESPACE}.ranking", inputs, version=1, signature_name=ROWS_SIGNATURE)
    return outputs["score"].tolist()  # type: ignore[no-any-return] # numpy's list of floats


@pytest.mark.parametrize("user", USERS_KNOWN)
def test_everything_up(stack: Stack, user: str) -> None:
    body = stack.recommend(user, 50)
    assert body["degraded"] == []
    assert body["model"] == {"name": "tiny.ranking", "version": "1", "objective": "probability"}
    assert len(set(ids(body))) == 50
    assert not set(ids(body)) & set(rated_items(user))
    assert list(scores(body).values()) == sorted(scores(body).values(), reverse=True)
    np.testing.assert_allclose(list(scores(body).values()), expected_scores(stack, user, ids(body)), rtol=1e-5)
    assert set(body["took_ms"]) == {"features", "recall", "ranking", "slate", "total"}
    assert stack.recommend(user, 50)["items"] == body["items"]


def test_reasons_name_what_the_user_liked(stack: Stack) -> None:
    user = USERS_KNOWN[1]
    activity = user_rows(user)[USER_ACTIVITY.name]
    liked = {
        f"because you liked Film {int(item)}"
        for item, value in zip(activity["user_last_items"], activity["user_last_values"], strict=True)
        if value >= LIKED_VALUE
    }
    items = stack.recommend(user, 100)["items"]
    near = [item for item in items if "item2vec" in item["recalled_by"]]
    assert near
    assert {item["reason"] for item in near} <= liked
    for item in items:
        if item["recalled_by"] == ["popular"]:
            shared = [genre for genre in activity["user_top_genres"] if genre in item["attributes"]["genres"]]
            assert item["reason"] == (f"popular, and you often like {shared[0]}" if shared else "popular with everyone")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(USERS_KNOWN), st.integers(1, 100))
def test_exactly_k_never_seen_never_twice(stack: Stack, user: str, k: int) -> None:
    found = ids(stack.recommend(user, k))
    assert len(found) == len(set(found)) == k
    assert not set(found) & set(rated_items(user))


def test_an_unknown_user_gets_the_popular_list(stack: Stack) -> None:
    body = stack.recommend("nobody-we-know", 5)
    assert body["degraded"] == ["unknown_user"]
    assert ids(body) == [item_id(number) for number in range(5)]
    assert body["model"] is None
    assert set(scores(body).values()) == {None}


def test_one_changed_feature_in_redis_changes_that_users_scores_only(stack: Stack, store: feast.FeatureStore) -> None:
    user, other = USERS_KNOWN[4], USERS_KNOWN[5]
    before, before_other = stack.recommend(user, 100), stack.recommend(other, 100)
    row = user_rows(user)[USER_ACTIVITY.name]
    write_group(store, USER_ACTIVITY.name, {user: {**row, "user_value_mean": 1.25}}, AT)
    try:
        after = scores(stack.recommend(user, 100))
        common = after.keys() & scores(before).keys()
        assert len(common) > 50
        assert all(after[item] != scores(before)[item] for item in common)
        assert scores(stack.recommend(other, 100)) == scores(before_other)
    finally:
        write_group(store, USER_ACTIVITY.name, {user: row}, AT)
    assert scores(stack.recommend(user, 100)) == scores(before)


def test_a_user_who_has_seen_nearly_everything_gets_what_is_left(stack: Stack, store: feast.FeatureStore) -> None:
    left = {"0007", "0100", "0239"}
    history = [item_id(number) for number in range(ITEM_COUNT) if item_id(number) not in left]
    write_group(store, USER_HISTORY.name, {"glutton": {"user_seen_items": history}}, AT)
    body = stack.recommend("glutton", 10)
    assert set(ids(body)) == left
    assert body["degraded"] == ["user_features"]
    assert body["model"] is not None
    write_group(store, USER_HISTORY.name, {"sated": {"user_seen_items": [*history, *left]}}, AT)
    assert stack.recommend("sated", 10)["items"] == []


def test_without_the_model_server_order_and_degraded_change_and_heal(stack: Stack) -> None:
    user = USERS_KNOWN[2]
    before = stack.recommend(user, 20)
    stack.model_server.kill()
    try:
        body = stack.recommend(user, 20)
        assert body["degraded"] == ["model_server"]
        assert body["model"] is None
        assert set(scores(body).values()) == {None}
        assert ids(body) != ids(before)
        assert not set(ids(body)) & set(rated_items(user))
        assert stack.part("model_server")["state"] == "down"
        assert stack.client.get("/ready").status_code == 200
    finally:
        stack.model_server.start()
    assert stack.wait_for(user, [])["model"] == before["model"]
    assert stack.recommend(user, 20)["items"] == before["items"]


def test_without_redis_the_list_is_popular_and_it_heals(stack: Stack) -> None:
    user = USERS_KNOWN[6]
    before = stack.recommend(user, 20)
    stack.redis.terminate()
    try:
        body = stack.recommend(user, 5)
        assert body["degraded"] == ["redis"]
        assert [item["recalled_by"] for item in body["items"]] == [["popular"]] * 5
        unseen = [item_id(number) for number in range(ITEM_COUNT) if item_id(number) not in rated_items(user)]
        assert ids(body) == unseen[:5]
        assert body["model"] is None
        assert stack.part("redis")["state"] == "down"
        assert stack.client.get("/ready").status_code == 200
    finally:
        stack.redis.start()
    stack.wait_for(user, [])
    assert stack.recommend(user, 20)["items"] == before["items"]


def took_ms(stack: Stack, user: str) -> tuple[float, dict[str, Any]]:
    start = time.perf_counter()
    body = stack.recommend(user)
    return (time.perf_counter() - start) * 1000, body


@pytest.mark.parametrize("part", ["redis", "model_server"])
def test_a_frozen_part_costs_no_more_than_its_deadline(stack: Stack, part: str) -> None:
    user = USERS_KNOWN[7]
    service, deadline_ms = {
        "redis": (stack.redis, REDIS_MS),
        "model_server": (stack.model_server, RANKING_MS),
    }[part]
    with service.frozen():
        for _ in range(3):
            milliseconds, body = took_ms(stack, user)
            assert body["degraded"] == [part]
            assert milliseconds < deadline_ms + SLACK_MS
        assert stack.part(part)["state"] == "down"
    stack.wait_for(user, [])


def test_a_release_of_other_views_ranks_nothing(stack: Stack) -> None:
    user = USERS_KNOWN[8]
    views = {**stack.world.publish_release().ranker.data["views"], USER_ACTIVITY.name: "user_activity_00000000"}
    stack.world.publish_release("2", views=views)
    try:
        body = stack.wait_for(user, ["release"])
        assert body["model"] is None
        assert "user_activity_00000000" in stack.part("release")["detail"]
    finally:
        stack.world.publish_release()
    stack.wait_for(user, [])


def test_a_release_of_a_version_that_is_not_served_is_a_fault_of_the_model_server(stack: Stack) -> None:
    stack.world.publish_release("9")
    try:
        stack.wait_for(USERS_KNOWN[8], ["model_server"])
        assert stack.part("model_server")["state"] == "down"
    finally:
        stack.world.publish_release()
    stack.wait_for(USERS_KNOWN[8], [])


def test_a_new_snapshot_is_taken_up_and_a_broken_one_is_not(stack: Stack) -> None:
    user = USERS_KNOWN[9]
    newer = "1998-05-01T00:00:00Z"
    stack.world.publish_snapshot(catalogue_table(prefix="Movie"), cutoff=newer)
    try:
        wait_until(lambda: stack.recommend(user)["features_as_of"] == newer, "the new snapshot answers")
        assert all(item["title"].startswith("Movie") for item in stack.recommend(user)["items"])
        stack.world.publish_snapshot(cutoff="1998-06-01T00:00:00Z", catalogue_sha256="0" * 64)
        body = stack.wait_for(user, ["snapshot"])
        assert body["features_as_of"] == newer
        assert body["model"] is not None
        part = stack.part("snapshot")
        assert part["state"] == "degraded"
        assert "expected SHA-256 0000" in part["detail"]
        corrupt(stack.world.place.online_current)
        wait_until(lambda: "not a OnlineSnapshot" in stack.part("snapshot")["detail"], "the pointer is refused")
        assert stack.recommend(user)["features_as_of"] == newer
    finally:
        stack.world.publish_snapshot()
    stack.wait_for(user, [])
    assert stack.recommend(user)["features_as_of"] == CUTOFF


def test_broken_vectors_keep_the_snapshot_before(stack: Stack) -> None:
    stack.world.publish_snapshot(vectors_sha256={"item2vec": "0" * 64})
    try:
        body = stack.wait_for(USERS_KNOWN[9], ["snapshot"])
        assert any("item2vec" in item["recalled_by"] for item in body["items"])
    finally:
        stack.world.publish_snapshot()
    stack.wait_for(USERS_KNOWN[9], [])


def test_a_canary_gets_the_requests_too_and_the_answers_stay_the_same(stack: Stack) -> None:
    world = stack.world
    before = stack.recommend(USERS_KNOWN[0], 20)["items"]
    base = world.serving.model(NAMESPACE, RANKING.model)
    export_model(base / "7", sign=-1.0)
    with ModelClient(stack.grpc, timeout_s=60) as server:
        server.reload_config(read_models_config(write_models_config(world, [1, 7])))
        server.wait_available(f"{NAMESPACE}.{RANKING.model}", 7, deadline_s=60)
    current = world.serving.current_release(NAMESPACE)
    canary = world.serving.canary_release(NAMESPACE, RANKING.model)
    with_ranker(Release.read(current), version="7").write(canary)
    folder = world.serving.shadows(NAMESPACE, RANKING.model) / "v7"

    def shadowed() -> int:
        assert stack.recommend(USERS_KNOWN[0], 20)["items"] == before
        return sum(ShadowSummary.read(path).requests for path in folder.glob("*.json"))

    try:
        wait_until(lambda: shadowed() >= 10, "ten shadowed requests")
    finally:
        canary.unlink()
        write_models_config(world, [1])
    summary = ShadowSummary.read(next(folder.glob("*.json")))
    assert (summary.errors, summary.stable_version) == (0, "1")
    assert summary.max_differences[0] > 0, "a model that orders the other way round"
    samples = world.serving.request_samples(NAMESPACE, RANKING.model)
    files = [list(read_requests(path)) for path in samples.glob("*.tfrecord")]  # one for each process and period
    assert files
    assert {len(each) for each in files} <= set(range(1, 65))
    recorded = [request for each in files for request in each]
    assert all(request.model_spec.version.value != 7 for request in recorded), "what a canary is sent is no sample"
    assert all(set(request.inputs) == {column.name for column in RANKING.input_columns} for request in recorded)


def test_similar_items(stack: Stack) -> None:
    body = stack.client.get("/similar/0010", params={"k": 30}).json()
    assert {taste_of(int(item["item_id"])) for item in body["items"]} == {taste_of(10)}


def test_junk_in_redis_is_no_error_page(stack: Stack) -> None:
    import redis

    layout = load_snapshot(stack.world.place).layout
    with contextlib.closing(redis.Redis.from_url(stack.redis_url)) as client:
        client.hset(layout.key("junk"), mapping=dict.fromkeys(layout.fields, b"\xff\xff"))  # type: ignore[arg-type] # bytes
        client.set(layout.key("text"), "not a hash")
    assert stack.recommend("junk")["degraded"] == ["user_features"]
    assert stack.recommend("text")["degraded"] == ["redis"]


def test_the_bench_prints_figures(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.recommender", "bench", "--requests", "50"],
        env={**stack.environment, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["requests"] == figures["ranked"] == 50
    assert figures["degraded"] == {}
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]


def test_killed_and_started_again_it_answers_the_same(stack: Stack) -> None:
    user = USERS_KNOWN[10]
    before = stack.recommend(user, 30)["items"]
    stack.recommender.kill()
    stack.recommender.start()
    stack.wait_for(user, [])
    assert stack.recommend(user, 30)["items"] == before


def test_told_to_stop_it_stops_and_leaves_no_workers(stack: Stack) -> None:
    (port,) = free_ports(1)
    environment = stack.environment | {
        "KESTREL_RECOMMENDER_URI": f"http://127.0.0.1:{port}",
        "KESTREL_RECOMMENDER_WORKERS": "2",
    }
    service = recommender_service(environment, port)
    with service.running():
        wait_until(lambda: answers_with(f"http://127.0.0.1:{port}/ready", "version 1"), "the workers answer")
        workers = psutil.Process(service.pid).children(recursive=True)
        assert len(workers) >= 2
        assert service.terminate() in {0, -signal.SIGTERM}
    assert wait_until_ended(workers, 10) == []


def test_a_port_in_use_is_said_with_the_setting_to_change(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.recommender"],
        env={**stack.environment, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "KESTREL_RECOMMENDER_URI" in done.stderr
    assert "Traceback" not in done.stderr
