"""From a file of who follows whom to an answer: every job that has a part in it, on real Spark and Redis.

The log is too young for vectors, too: nothing was liked often enough. Every job must take that, and so must answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import redis

from feature_repo.contracts.events import Position
from feature_repo.contracts.features import declared
from feature_repo.contracts.manifests import TRANSFORMS_FILE
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import read_json
from feature_repo.contracts.schemas import read_schema
from pipelines.feast_store.store import open_store
from pipelines.jobs import (
    channels,
    check,
    embeddings,
    features,
    ingest,
    materialize,
    publish,
    registry,
    training_set,
    verify_online,
)
from pipelines.settings import Settings
from pipelines.stream.batch import open_users
from pipelines.stream.items import read_knowledge
from pipelines.stream.placed_events import Placed
from serving.recommender.engine import Engine, Online
from serving.recommender.release import plan_ranking
from serving.recommender.settings import Settings as RecommenderSettings
from serving.recommender.snapshot import load_snapshot
from serving.recommender.user_features import connect
from tests import feast_world as world
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.spark,
    pytest.mark.timeout(900),
    # Feast's own code, not ours: it reads Arrow's pandas metadata through names that pandas will rename.
    pytest.mark.filterwarnings("default::DeprecationWarning:feast"),
]

MAPPING = """\
name: Films among friends
feedback: explicit
event_types: {rating: {}}
positive: {event_types: rating, min_value: 4}
events:
  {files: ratings.csv, user: user, item: film, time: at, type: {constant: rating},
   value: {column: stars, minimum: 1, maximum: 5}}
items: {files: films.csv, id: film, title: title, attributes: [{name: genre, kind: categorical},
  {name: minutes, kind: numeric, encoding: quantiles, buckets: 4, curve: log}]}
relations: {files: friends.csv, user: user, other: friend, since: day}
"""
BASE = datetime(2024, 3, 1, tzinfo=UTC)
CUTOFF = BASE + timedelta(days=4)
USERS, FILMS = 12, 40


def write_source(folder: Path) -> Path:
    """Write a log in which u0 follows u1, whose likes are the last films, and u2 follows from the cutoff on.

    Every film is liked by two users at most.
    """
    folder.mkdir()
    ratings = [
        {
            "user": f"u{user}",
            "film": f"f{film}",
            "stars": 5 if user == 1 or user % 2 == 0 else 2,
            "at": (BASE + timedelta(hours=7 * (film % 12) + user, minutes=film)).isoformat(),
        }
        for user in range(USERS)
        for film in range(FILMS)
        if (film >= FILMS - 5 if user == 1 else (film + user) % 3 == 0 and film < FILMS - 5)
    ]
    friends = [
        {"user": "u0", "friend": "u1", "day": "2024-03-02"},
        {"user": "u3", "friend": "u2", "day": "2024-03-01"},
        {"user": "u2", "friend": "u1", "day": "2024-03-05"},
        {"user": "u0", "friend": "u0", "day": "2024-03-01"},
    ]
    films = [
        {"film": f"f{film}", "title": f"Film {film}", "genre": ("noir", "war")[film % 2], "minutes": 80 + film}
        for film in range(FILMS)
    ]
    for name, rows in (("ratings", ratings), ("friends", friends), ("films", films)):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (folder / "mapping.yaml").write_text(MAPPING)
    return folder


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Namespace]]:
    folder = tmp_path_factory.mktemp("relations")
    source = write_source(folder / "source")
    with redis_server() as url:
        settings = Settings(
            state=folder / "state",
            redis_url=url,
            spark_master="local[2]",
            spark_driver_memory="1g",
            quarantine_limit=0.5,
            recommender_clock="snapshot",
        )
        place = Namespace(settings.state, "friends")
        result = ingest.run(settings, place, source, CUTOFF, CUTOFF + timedelta(days=9), source / "mapping.yaml")
        assert result["quarantined"] == 1, "nobody follows himself"
        assert check.run(settings, place, CUTOFF, None)["errors"] == 0
        features.run(settings, place, CUTOFF, None)
        fitted = embeddings.run(settings, place, CUTOFF)["embeddings"]
        assert {kind["items"] for kind in fitted.values()} == {0}, "two likes of an item are too few"
        channels.run(settings, place, CUTOFF)
        registry.run(settings, place)
        materialize.run(settings, place, CUTOFF)
        publish.run(settings, place, CUTOFF)
        yield settings, place


def recommend(settings: Settings, place: Namespace, user: str) -> dict[str, Any]:
    """Ask the recommender's engine, without a model: the order is that of recall."""

    async def once() -> dict[str, Any]:
        snapshot = load_snapshot(place)
        client = connect(settings.redis_url, 1.0)
        async with contextlib.aclosing(client):
            engine = Engine(RecommenderSettings(recommender_clock="snapshot"), client, predictor=None)  # type: ignore[arg-type]  # there is no release, so that it is never asked
            answer = await engine.recommend(Online(snapshot, None, plan_ranking(None, snapshot)), user, 10)
            return answer.body

    return asyncio.run(once())


def test_what_is_online_is_what_the_batch_knows(online: tuple[Settings, Namespace]) -> None:
    settings, place = online
    result = verify_online.run(settings, place, 100)
    assert result["mismatches"] == 0
    groups = declared(read_schema(place))
    assert groups.user_relations
    assert groups.user_circle
    names = [
        *(f"{groups.user_relations.view_name}:{column.name}" for column in groups.user_relations.features),
        f"{groups.user_circle.view_name}:user_circle_items",
    ]
    users = ["u0", "u1", "u2", "u3", "u4"]
    answer = open_store(settings, place).get_online_features(names, [{"user_id": user} for user in users]).to_dict()
    assert answer["user_followed_count"] == [1, 0, 0, 1, 0], "u2 follows somebody from the cutoff on"
    assert answer["user_follower_count"] == [0, 1, 1, 0, 0]
    assert set(answer["user_circle_items"][0]) == {f"f{film}" for film in range(FILMS - 5, FILMS)}
    assert answer["user_circle_items"][2] == answer["user_circle_items"][4] == []


def test_a_model_is_trained_on_what_was_known_of_relations(online: tuple[Settings, Namespace]) -> None:
    settings, place = online
    built = training_set.run(settings, place, CUTOFF)
    folder = place.training_sets / str(built["training_set"])
    rows = [row for name in ("train", "valid", "test") for row in pq.read_table(folder / f"{name}.parquet").to_pylist()]
    followed = {row["event_time"]: row["user_followed_count"] for row in rows if row["user_id"] == "u0"}
    known_since = BASE + timedelta(days=2)
    assert {count for moment, count in followed.items() if moment >= known_since} == {1}
    assert {count for moment, count in followed.items() if moment < known_since} == {0}
    fitted: Any = read_json(folder / TRANSFORMS_FILE)["columns"]
    lengths = np.log1p([row["item_minutes"] for row in pq.read_table(folder / "train.parquet").to_pylist()])
    boundaries = fitted["item_minutes"]["boundaries"]
    assert len(boundaries) == 3, "four buckets, as the mapping says"
    shares = np.bincount(np.searchsorted(boundaries, lengths)) / len(lengths)
    assert shares == pytest.approx([0.25] * 4, abs=0.08), "of a log's rows, about equally many each"


def test_what_friends_liked_is_recommended_with_the_reason(online: tuple[Settings, Namespace]) -> None:
    by_user = {user: recommend(*online, user) for user in ("u0", "u2", "u4")}
    shown = {item["item_id"]: item for item in by_user["u0"]["items"] if "circle" in item["recalled_by"]}
    assert shown
    assert shown.keys() <= {f"f{film}" for film in range(FILMS - 5, FILMS)}
    assert "liked by somebody you follow" in {item["reason"] for item in shown.values()}
    for user in ("u2", "u4"):
        assert not [item for item in by_user[user]["items"] if "circle" in item["recalled_by"]]
    for body in by_user.values():
        assert body["degraded"] == ["release"]


def test_somebody_new_follows_nobody_as_far_as_the_stream_knows(online: tuple[Settings, Namespace]) -> None:
    settings, place = online
    event = {"user_id": "new", "item_id": "f1", "event_type": "rating", "value": 5.0, "event_time": CUTOFF}
    with redis.Redis.from_url(settings.redis_url) as client:
        users = open_users(client, place, read_knowledge(place, CUTOFF))
        users.apply([Placed(world.sent_event(event), Position(1, 1))])
    assert recommend(settings, place, "new")["degraded"] == ["release"]
    assert verify_online.run(settings, place, 100)["mismatches"] == 0
