"""The API in process, with neither Redis nor a model server behind it: everything must still be answered."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.datasets import EVENTS, USERS
from feature_repo.contracts.places import PARTITION_FILE, Namespace
from infra.local.report import copyable_lines, recommendations, some_users
from infra.local.settings import read_settings
from serving.protocol.free_ports import free_ports
from serving.recommender.bench import measure, read_users
from serving.recommender.settings import Settings
from tests.nasty_ids import NASTY_IDS
from tests.recommender_world import (
    CUTOFF,
    NAMESPACE,
    World,
    item_id,
    recommender_in_thread,
    taste_of,
    vectors_table,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

PROBLEM = {"object", "expected", "received", "remedy"}


def settings_of(state: Path) -> Settings:
    return Settings(
        state=state,
        namespace=NAMESPACE,
        redis_url=f"redis://127.0.0.1:{free_ports(1)[0]}/0",
        model_server_grpc=f"127.0.0.1:{free_ports(1)[0]}",
        recommender_poll_seconds=0.05,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("state"))
    world.publish_snapshot(vectors=vectors_table().slice(4))
    return world


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[httpx.Client]:
    with recommender_in_thread(settings_of(world.state)) as client:
        yield client


def get(client: httpx.Client, path: str, status: int = 200) -> dict[str, Any]:
    response = client.get(path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    if status >= 400:
        assert set(body) >= PROBLEM
        assert all(body[name] for name in PROBLEM)
    return body


def test_without_redis_everybody_gets_the_popular_list(client: httpx.Client) -> None:
    body = get(client, "/recommend/u1?k=3")
    assert [item["item_id"] for item in body["items"]] == ["0000", "0001", "0002"]
    assert body["degraded"] == ["redis"]
    assert body["model"] is None
    assert body["features_as_of"] == CUTOFF
    assert body["items"][1] == {
        "item_id": "0001",
        "title": "Film 1",
        "attributes": {"release_year": 1971, "genres": ["Comedy"]},
        "score": None,
        "recalled_by": ["popular"],
        "reason": "popular with everyone",
    }


def test_k_is_ten_unless_asked_otherwise(client: httpx.Client) -> None:
    assert len(get(client, "/recommend/u1")["items"]) == 10
    assert len(get(client, "/recommend/u1?k=100")["items"]) == 100
    assert len(get(client, "/similar/0005")["items"]) == 10


def test_similar_items_share_the_taste(client: httpx.Client) -> None:
    body = get(client, "/similar/0006?k=20")
    assert body["title"] == "Film 6"
    assert {taste_of(int(item["item_id"])) for item in body["items"]} == {taste_of(6)}
    assert "0006" not in {item["item_id"] for item in body["items"]}
    cosines = [item["score"] for item in body["items"]]
    assert cosines == sorted(cosines, reverse=True)
    assert body["items"][0]["reason"] == "liked by people who liked Film 6"


def test_an_item_without_a_vector_has_popular_neighbours(client: httpx.Client) -> None:
    body = get(client, "/similar/0002?k=3")
    assert body["degraded"] == ["embeddings"]
    assert [item["item_id"] for item in body["items"]] == ["0000", "0001", "0003"]


def test_similar_items_can_be_asked_for_by_a_kind(world: World, client: httpx.Client) -> None:
    assert get(client, "/similar/0006?by=item2vec")["items"] == get(client, "/similar/0006")["items"]
    body = get(client, "/similar/0006?by=node2vec", 404)
    assert (body["object"], body["received"]) == ("by", "'node2vec'")
    assert "has: item2vec" in body["expected"]
    assert "KESTREL_EMBEDDINGS" in body["remedy"]
    body = get(client, "/similar/0006?by=word2vec", 422)
    assert body["expected"] == "one of item2vec, deepwalk, node2vec, eges"


def test_an_unknown_item_is_not_found(client: httpx.Client) -> None:
    body = get(client, "/similar/no-such-item", 404)
    assert body["object"] == "item"
    assert "no-such-item" in body["received"]
    assert "240" in body["expected"]


@pytest.mark.parametrize("k", ["0", "101", "-1", "ten", "", "1.5", "9" * 5000, "1e1", "NaN", "1.0", "1_0", "%201"])
@pytest.mark.parametrize("path", ["/recommend/u1", "/similar/0001"])
def test_a_bad_k_is_refused_with_what_to_do(client: httpx.Client, path: str, k: str) -> None:
    body = get(client, f"{path}?k={k}", 422)
    assert body["object"] == "k"
    assert body["expected"] == "a whole number from 1 to 100"
    assert len(body["received"]) < 200


@pytest.mark.parametrize("text", [text for text in NASTY_IDS if text and "/" not in text])
def test_what_surrounds_an_id_is_cut_and_what_is_none_is_refused(client: httpx.Client, text: str) -> None:
    identity, part = NASTY_IDS[text], quote(text, safe="").replace(".", "%2E")
    if identity is None:
        assert get(client, f"/recommend/{part}", 422)["object"] == "user"
        assert get(client, f"/similar/{part}", 422)["object"] == "item"
    else:
        assert get(client, f"/recommend/{part}?k=1")["user"] == identity
        assert get(client, f"/similar/{part}", 404)["received"] == repr(identity)


def test_demo_and_measurement_ask_for_each_user_by_name_and_for_nobody_who_has_none(
    world: World, client: httpx.Client, tmp_path: Path
) -> None:
    uri = str(client.base_url)
    users = sorted(set(filter(None, NASTY_IDS.values())))
    local = read_settings(tmp_path, {"KESTREL_RECOMMENDER_URI": uri})
    assert [recommendations(local, user, wait_ranked=False)["user"] for user in users] == users
    for user in users:
        url = shlex.split(copyable_lines(local, NAMESPACE, user, None)[0])[-1]
        assert client.get(url).json()["user"] == user

    settings = settings_of(tmp_path).model_copy(update={"recommender_uri": uri})
    place = Namespace(tmp_path, NAMESPACE)
    lake = [*users, *(text for text in NASTY_IDS if text != NASTY_IDS[text])]  # older rules let them in
    table = pa.table({"user_id": lake})
    for folder in (place.dataset(USERS), place.dataset(EVENTS.name) / "event_date=1998-04-22"):
        folder.mkdir(parents=True)
        pq.write_table(table, folder / PARTITION_FILE)
    assert set(read_users(settings, len(lake))) == set(users)
    assert set(some_users(place)) <= set(users)
    assert measure(settings, len(lake), 1)["requests"] == len(lake)


def test_an_item_is_found_whatever_surrounds_its_id(client: httpx.Client) -> None:
    assert get(client, "/similar/%C2%A00006%20")["item"] == "0006"


@pytest.mark.parametrize(
    ("path", "name", "known", "meant"),
    [
        ("/recommend/u1?n=5", "n", "k", "k"),
        ("/recommend/u1?k=5&limit=5", "limit", "k", "k"),
        ("/recommend/u1?K=5", "K", "k", "k"),
        ("/recommend/u1?by=item2vec", "by", "k", ""),
        ("/recommend/u1?=5", "query", "k", ""),
        ("/similar/0006?top_k=5", "top_k", "k, by", "k"),
        ("/similar/0006?kind=item2vec", "kind", "k, by", "by"),
        ("/similar/0006?zzzz", "zzzz", "k, by", ""),
        ("/health?k=1", "k", "", ""),
        ("/ready?verbose=1", "verbose", "", ""),
        ("/?k=1", "k", "", ""),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_known_ones_and_the_nearest(
    client: httpx.Client, path: str, name: str, known: str, meant: str
) -> None:
    body = get(client, path, 422)
    assert body["object"] == name
    assert body["expected"] == (f"no parameter but {known}" if known else "no parameters")
    assert "unknown parameter" in body["received"]
    assert body["remedy"].startswith(f"Did you mean {meant}?" if meant else "Leave it out")


def test_a_parameter_is_given_once(client: httpx.Client) -> None:
    body = get(client, "/recommend/196?k=2&k=3", 422)
    assert (body["object"], body["expected"], body["received"]) == ("k", "one value", "several")
    assert body["remedy"].startswith("Give k once")


def test_an_unknown_parameter_of_posted_events_is_refused(client: httpx.Client) -> None:
    response = client.post("/events?dry_run=1", json=[])
    assert response.status_code == 422
    assert response.json()["object"] == "dry_run"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/recommend", "/recommend/", "/recommend/a/b", "/recommend/a%2Fb", "/recommend/a/"]
)
def test_other_paths_have_the_same_error_body(client: httpx.Client, path: str) -> None:
    assert get(client, path, 404)["object"] == "path"


def test_other_methods_have_the_same_error_body(client: httpx.Client) -> None:
    response = client.post("/recommend/u1")
    assert response.status_code == 405
    assert set(response.json()) == PROBLEM


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.text(max_size=140), st.from_regex(r"[./%?#&;a-z0-9]{1,20}")),
    st.one_of(st.integers(), st.text(max_size=10), st.floats()),
)
def test_no_parameters_bring_it_down(client: httpx.Client, user: str, k: float | str) -> None:
    quoted = quote(user.encode("utf-8", "surrogatepass"), safe="").replace(".", "%2E")
    response = client.get(f"/recommend/{quoted}", params={"k": k})
    assert response.status_code in {200, 404, 422}, response.text
    body = response.json()
    if response.status_code == 200:
        found = [item["item_id"] for item in body["items"]]
        assert len(found) == len(set(found)) == body["k"]
    else:
        assert set(body) == PROBLEM


def test_it_is_alive_and_ready_although_its_dependencies_are_down(client: httpx.Client) -> None:
    assert get(client, "/health")["status"] == "alive"
    body = get(client, "/ready")
    assert body["ready"] is True
    states = {name: part["state"] for name, part in body["parts"].items()}
    assert states == {"snapshot": "ok", "release": "missing", "redis": "down", "model_server": "off"}
    assert all(part["detail"] for part in body["parts"].values())


def test_the_openapi_page_needs_no_internet(client: httpx.Client) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/docs"
    page = client.get("/", follow_redirects=True)
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/"), link
        assert client.get(link).status_code == 200


def test_the_openapi_description_names_every_answer_and_error(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/recommend/{user}", "/similar/{item}", "/events", "/health", "/ready"}
    recommend = paths["/recommend/{user}"]["get"]
    assert set(recommend["responses"]) == {"200", "422", "503"}
    for status, schema in (("200", "Recommendation"), ("422", "Problem"), ("503", "Problem")):
        content = recommend["responses"][status]["content"]["application/json"]["schema"]
        assert content["$ref"].endswith(f"/{schema}")


def test_answers_fit_their_description(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for path, name in (("/recommend/u1", "Recommendation"), ("/similar/0005", "Similar"), ("/ready", "Readiness")):
        assert set(get(client, path)) == set(schemas[name]["properties"])


def test_before_the_first_snapshot_it_says_what_to_do(tmp_path: Path) -> None:
    world = World(tmp_path)
    with recommender_in_thread(settings_of(tmp_path)) as client:
        for path in ("/recommend/u1", "/similar/0001", "/ready"):
            body = get(client, path, 503)
            assert "feature_refresh" in body["remedy"]
        assert body["ready"] is False
        assert body["parts"]["snapshot"]["state"] == "missing"
        assert get(client, "/health")["status"] == "alive"
        world.publish_snapshot()
        assert get_until(client, "/recommend/u1", 200)["degraded"] == ["redis"]


def get_until(client: httpx.Client, path: str, status: int) -> dict[str, Any]:
    wait_until(lambda: client.get(path).status_code == status, path)
    return json.loads(client.get(path).content)  # type: ignore[no-any-return] # an object, by the API


def test_the_same_request_gets_the_same_items(client: httpx.Client) -> None:
    first, second = (get(client, f"/similar/{item_id(9)}?k=50")["items"] for _ in range(2))
    assert first == second
