"""Item graph, walks, and user vectors on Spark, beside brute force and beside what the recommender computes online."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS, items_dataset
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM_EMBEDDINGS, Walks
from feature_repo.contracts.features import LAST_ITEMS
from feature_repo.contracts.manifests import vectors_part
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.embeddings.side_information import NOTHING_SAID, side_information
from pipelines.io.arrow import arrow_schema
from pipelines.settings import Settings
from tests import lake_world
from tests.movielens import FEATURES, LIKED_VALUE, USER_ACTIVITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

BASE = datetime(1998, 1, 1, tzinfo=UTC)
WALKS = Walks(per_item=3, length=7, reach=3, session_minutes=30, least_count=2, successors=5, damping=0.5, p=2.0, q=0.5)
ITEMS = [f"i{number:02d}" for number in range(18)]
Rows = list[dict[str, Any]]


def random_log(seed: int, count: int = 500) -> Rows:
    """Return events in bursts: many in one second, pauses around half an hour, some items again and again."""
    dice = random.Random(seed)
    now = dict.fromkeys(range(12), BASE)
    events = {}
    for _ in range(count):
        user = dice.randrange(12)
        now[user] += timedelta(seconds=dice.choice([0, 0, 0, 1, 40, 1799, 1800, 1801]))
        event = {
            "user_id": f"u{user}",
            "item_id": dice.choice(ITEMS),
            "event_type": "rating",
            "value": dice.randint(1, 10) / 2,
            "event_time": now[user],
        }
        events[event["user_id"], event["item_id"], now[user]] = event
    shuffled = list(events.values())
    dice.shuffle(shuffled)
    return shuffled


@pytest.fixture
def frame(spark: SparkSession) -> Callable[[Rows], DataFrame]:
    from pipelines.io.spark import spark_schema

    def make(rows: Rows) -> DataFrame:
        values = [tuple(row[name] for name in EVENTS.column_names) for row in rows]
        return spark.createDataFrame(values, spark_schema(EVENTS))

    return make


def edges_by_hand(events: Rows, walks: Walks) -> Counter[tuple[str, str]]:
    """Count, for every two likes of a user, the edges that the definition gives them."""
    edges: Counter[tuple[str, str]] = Counter()
    likes = defaultdict(list)
    for event in events:
        if event["value"] >= LIKED_VALUE:
            likes[event["user_id"]].append((event["event_time"], event["item_id"]))
    for own in likes.values():
        own.sort()
        for first, (time, item) in enumerate(own):
            for second in range(first + 1, min(first + walks.reach + 1, len(own))):
                pauses = [own[place + 1][0] - own[place][0] for place in range(first, second)]
                later, other = own[second]
                if max(pauses) > timedelta(minutes=walks.session_minutes) or other == item:
                    continue
                edges[item, other] += 1
                if later == time:
                    edges[other, item] += 1
    return edges


def weights_by_hand(counts: Mapping[tuple[str, str], int], walks: Walks) -> dict[tuple[str, str], int]:
    """Return the weights of the edges that walks follow."""
    if not walks.directed:
        counts = {
            edge: counts.get(edge, 0) + counts.get(edge[::-1], 0) for pair in counts for edge in (pair, pair[::-1])
        }
    kept = {edge: count for edge, count in counts.items() if count >= walks.least_count}
    totals: Counter[str] = Counter()
    for (_, target), count in kept.items():
        totals[target] += count
    weights = {edge: max(1, round(1e6 * count / totals[edge[1]] ** walks.damping)) for edge, count in kept.items()}
    heaviest = defaultdict(list)
    for (source, target), weight in weights.items():
        heaviest[source].append((-weight, target))
    return {
        (source, target): -weight
        for source, own in heaviest.items()
        for weight, target in sorted(own)[: walks.successors]
    }


@pytest.fixture
def numbered(frame: Callable[[Rows], DataFrame]) -> Callable[[Rows], tuple[list[str], DataFrame]]:
    """Return the liked items by number, and what users liked, by number."""
    from pipelines.embeddings.likes import liked_events, numbered_items

    def make(events: Rows) -> tuple[list[str], DataFrame]:
        liked = liked_events(frame(events), MOVIELENS.positive)
        items = numbered_items(liked)
        nodes = {row["node"]: row["item_id"] for row in items.collect()}
        return [nodes[node] for node in range(len(nodes))], liked.join(items, on="item_id").drop("item_id")

    return make


def by_names(rows: DataFrame, names: list[str], value: str) -> dict[tuple[str, str], int]:
    collected = rows.collect()
    found = {(names[row["source"]], names[row["target"]]): row[value] for row in collected}
    assert len(found) == len(collected)
    return found


@pytest.mark.parametrize("directed", [True, False])
def test_edges_are_what_brute_force_counts(directed: bool, numbered: Callable[..., Any]) -> None:  # noqa: FBT001 - a case
    from pipelines.embeddings.item_graph import item_edges, weighted_edges

    events, walks = random_log(1 + directed), replace(WALKS, directed=directed)
    names, likes = numbered(events)
    assert names == sorted({row["item_id"] for row in events if row["value"] >= LIKED_VALUE})
    edges = item_edges(likes, walks)
    counts = edges_by_hand(events, walks)
    assert by_names(edges, names, "count") == counts
    assert by_names(weighted_edges(edges, walks), names, "weight") == weights_by_hand(counts, walks)


def test_walks_are_the_same_however_the_likes_are_parted(numbered: Callable[..., Any], tmp_path: Path) -> None:
    """On Spark, one by one in this process, and from the edges counted by hand."""
    from pipelines.embeddings.random_walks import NO_NODE, WalkRule, from_edges, random_walks
    from pipelines.embeddings.walk_sequences import walk_sequences

    events = random_log(3)
    names, likes = numbered(events)
    walked = [
        [row["nodes"] for row in walk_sequences(part, len(names), WALKS, 5, tmp_path / folder).collect()]
        for folder, part in (("one", likes.coalesce(1)), ("many", likes.repartition(7)))
    ]
    assert walked[0] == walked[1]
    weights = weights_by_hand(edges_by_hand(events, WALKS), WALKS)
    pairs = np.array([[names.index(end) for end in pair] for pair in weights])
    graph = from_edges(len(names), pairs[:, 0], pairs[:, 1], np.array(list(weights.values())))
    rule = WalkRule(WALKS.length, 5, WALKS.p, WALKS.q)
    expected = [
        [node for node in random_walks(graph, number % len(names), number, rule)[0].tolist() if node != NO_NODE]
        for number in np.arange(len(names) * WALKS.per_item).reshape(-1, 1)
    ]
    assert sorted(walked[0]) == sorted(expected)
    assert walked[0] != expected, "the walks come in an order by chance"


@pytest.fixture
def narrow_driver(spark: SparkSession) -> Iterator[None]:
    """Let no task send the driver much more than that it has ended, which Spark reads anew for each set of tasks."""
    conf = spark.sparkContext._jsc.sc().conf()  # type: ignore[union-attr] # of a live session
    conf.set("spark.driver.maxResultSize", "100k")
    yield
    conf.remove("spark.driver.maxResultSize")


@pytest.mark.usefixtures("narrow_driver")
def test_nothing_of_the_walks_comes_to_the_driver(numbered: Callable[..., Any], tmp_path: Path) -> None:
    from py4j.protocol import Py4JJavaError

    from pipelines.embeddings.skip_gram import write_sequences
    from pipelines.embeddings.walk_sequences import walk_sequences

    names, likes = numbered(random_log(3))
    walks = replace(WALKS, per_item=3000)
    sequences = walk_sequences(likes, len(names), walks, 5, tmp_path / "edges")
    with pytest.raises(Py4JJavaError, match="maxResultSize"):
        sequences.collect()  # the limit is one
    lines = write_sequences(sequences, tmp_path / "sequences").read_text(encoding="utf-8").splitlines()
    assert len(lines) > walks.per_item * len(names) / 2


def item_vectors(ids: list[str], seed: int) -> pa.Table:
    from pipelines.embeddings.vectors import unit_length, vector_array

    vectors = unit_length(np.random.default_rng(seed).normal(size=(len(ids), EMBEDDING_SIZE)))
    return pa.table([pa.array(ids), vector_array(vectors)], schema=arrow_schema(ITEM_EMBEDDINGS))


def test_user_vectors_are_what_the_recommender_computes_online(
    frame: Callable[[Rows], DataFrame], compute_group: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """From the features that Redis has: the last items and their values, as of the same events."""
    from pipelines.embeddings.user_vectors import last_liked, user_vectors
    from serving.recommender.catalogue import catalogue_from_table
    from serving.recommender.embeddings import vectors_from_table
    from serving.recommender.user_features import UserFeatures
    from serving.recommender.user_vector import user_vector
    from tests.recommender_world import catalogue_table

    items = [f"{number:04d}" for number in range(18)]
    events = [{**row, "item_id": items[ITEMS.index(row["item_id"])]} for row in random_log(4, 120)]
    lonely = {**events[0], "user_id": "lonely", "item_id": items[-1], "value": 5.0}
    bored = {**events[0], "user_id": "bored", "value": 1.0}
    snapshot = item_vectors(items[:15], 6)
    pq.write_table(snapshot, tmp_path / "items.parquet")
    everything = frame([*events, lonely, bored])
    lasts = last_liked(everything, MOVIELENS, LAST_ITEMS)
    rows = user_vectors(lasts.repartition(5), tmp_path / "items.parquet").toArrow().to_pylist()
    received = {row["user_id"]: row["embedding"] for row in rows}
    assert len(received) == len(rows)

    catalogue = catalogue_from_table(catalogue_table(len(items)), FEATURES, "made up")
    vectors = vectors_from_table(snapshot, catalogue, vectors_part("item2vec", "", "", "", EMBEDDING_SIZE), "made up")
    catalogued = [{"item_id": item, "title": item, "release_year": None, "genres": []} for item in items]
    activity = compute_group(USER_ACTIVITY, [*events, lonely, bored], catalogued, cutoff=BASE + timedelta(days=30))
    latest = {row["user_id"]: row for row in activity.sort_by("event_time").to_pylist()}
    assert len(latest) == 14
    assert len(received) >= 10
    assert not {"lonely", "bored"} & received.keys()
    for user, features in latest.items():
        liked = catalogue.find(UserFeatures(features, (), known=True, missing=()).liked(LIKED_VALUE))
        online = user_vector(vectors, liked)
        expected = received.get(user, [0.0] * EMBEDDING_SIZE)
        np.testing.assert_allclose(online, expected, rtol=1e-6, atol=1e-7)


def two_tastes(users: int, seed: int) -> Rows:
    """Users like items of one of two tastes, one after another."""
    dice = random.Random(seed)
    rows = []
    for user in range(users):
        own = ITEMS[user % 2 :: 2]
        for step, item in enumerate(dice.sample(own, 7)):
            time = BASE + timedelta(seconds=user * 10 + step)
            rows.append(
                {"user_id": f"u{user:03d}", "item_id": item, "event_type": "rating", "value": 5.0, "event_time": time}
            )
    return rows


@pytest.mark.parametrize("name", ["item2vec", "deepwalk", "node2vec", "eges"])
def test_every_kind_brings_a_taste_together(name: str, frame: Callable[[Rows], DataFrame], tmp_path: Path) -> None:
    """And gives the same bytes whatever the order of the events."""
    from feature_repo.contracts.embeddings import EMBEDDINGS
    from pipelines.embeddings.kinds import fit_items
    from pipelines.embeddings.likes import liked_events
    from pipelines.embeddings.neighbours import vector_cosines

    events = two_tastes(120, 7)
    first, again = (
        fit_items(EMBEDDINGS[name], liked_events(frame(rows), MOVIELENS.positive), NOTHING_SAID, tmp_path / folder)
        for folder, rows in (("first", events), ("again", events[::-1]))
    )
    assert first.equals(again)
    assert first.column("item_id").to_pylist() == ITEMS
    for place, item in enumerate(ITEMS):
        near = [ITEMS.index(other) % 2 for other, _ in vector_cosines(first, [item], 5)[item]]
        assert near == [place % 2] * 5, item


def test_items_liked_too_seldom_or_always_alone_have_no_vector(
    frame: Callable[[Rows], DataFrame], tmp_path: Path
) -> None:
    from feature_repo.contracts.embeddings import ITEM2VEC
    from pipelines.embeddings.kinds import fit
    from pipelines.embeddings.likes import liked_events
    from pipelines.embeddings.user_vectors import last_liked

    events = two_tastes(6, 8)
    counts = Counter(row["item_id"] for row in events)
    often = sorted(item for item, count in counts.items() if count >= ITEM2VEC.skip_gram.least_likes)
    alone = [{**events[0], "user_id": f"hermit {number}", "item_id": "alone"} for number in range(5)]
    liked = liked_events(frame([*events, *alone]), MOVIELENS.positive)
    lasts = last_liked(frame([*events, *alone]), MOVIELENS, LAST_ITEMS)
    found = fit(ITEM2VEC, liked, lasts, NOTHING_SAID, tmp_path / "some")
    assert found.items.column("item_id").to_pylist() == often
    assert found.covered == sum(counts[item] for item in often)
    assert not any(user.startswith("hermit") for user in found.users.column("user_id").to_pylist())


def test_a_new_item_has_a_vector_near_those_that_it_shares_its_terms_with(
    frame: Callable[[Rows], DataFrame], tmp_path: Path
) -> None:
    from feature_repo.contracts.embeddings import EGES
    from pipelines.embeddings.kinds import fit_items
    from pipelines.embeddings.likes import liked_events
    from pipelines.embeddings.neighbours import vector_cosines

    said = [lake_world.item(item, [("Even", "Odd")[place % 2]]) for place, item in enumerate(ITEMS)]
    said += [lake_world.item("new", ["Odd"]), lake_world.item("unsaid")]
    table = pa.Table.from_pylist(said, arrow_schema(items_dataset(MOVIELENS)))
    side = side_information(table, MOVIELENS, BASE)
    fitted = fit_items(EGES, liked_events(frame(two_tastes(120, 7)), MOVIELENS.positive), side, tmp_path / "eges")
    assert fitted.column("item_id").to_pylist() == [*ITEMS, "new"]
    near = [ITEMS.index(other) % 2 for other, _ in vector_cosines(fitted, ["new"], 5)["new"]]
    assert near == [1] * 5


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("item2vec", 5.0, "liked two items one after the other"),
        ("node2vec", 1.0, "liked 3 times or more, found none"),
    ],
)
def test_a_log_too_young_for_vectors_gives_none_and_a_report(  # noqa: PLR0917 - cases and fixtures
    kind: str,
    value: float,
    reason: str,
    shared_session: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines.jobs import embeddings

    place = Namespace(tmp_path, "young")
    alone = [{**random_log(1, 1)[0], "user_id": f"hermit {number}", "value": value} for number in range(5)]
    lake_world.write_lake(place, alone, [lake_world.item("i00")], [])
    monkeypatch.setattr(embeddings, "spark_session", lambda *_, **__: nullcontext(shared_session.live()))
    result = embeddings.run(Settings(state=tmp_path, embeddings=kind), place, BASE + timedelta(days=1))
    assert result["embeddings"][kind]["items"] == 0
    assert reason in caplog.text
    assert [file.suffix for file in (place.reports / result["report"]).glob("*.html")] == [".html"]
