"""Channels that are fitted on likes: their tables, what they find, the list that users get unranked, its reasons."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.channels import channels
from feature_repo.contracts.intervals import parse_cutoff
from feature_repo.contracts.manifests import channel_part
from feature_repo.contracts.publishing import file_sha256
from feature_repo.contracts.questions import Audience
from feature_repo.contracts.schemas import MOVIELENS
from serving.recommender.catalogue import catalogue_from_table
from serving.recommender.channel_tables import ChannelTable, table_from_rows
from serving.recommender.engine import Engine, Online
from serving.recommender.errors import RecommenderError, SnapshotError
from serving.recommender.reasons import Told
from serving.recommender.recall import asking
from serving.recommender.recall.asking import ask_channels, liked
from serving.recommender.recall.attributes import recall_new, recall_taste, recall_trending
from serving.recommender.recall.blending import blend
from serving.recommender.recall.channel import Recalled
from serving.recommender.recall.fitted import NO_LIKES, Likes, recall_fitted, strongest_like
from serving.recommender.release import RankingOff
from serving.recommender.settings import Settings, load_settings
from serving.recommender.slate import order_slate
from serving.recommender.snapshot import load_snapshot
from serving.recommender.user_features import UserFeatures
from tests.movielens import FEATURES
from tests.recommender_world import CUTOFF, World, catalogue_table, item_id

if TYPE_CHECKING:
    from pathlib import Path

    from serving.recommender.catalogue import Catalogue
    from serving.recommender.snapshot import Snapshot

ITEMS = 12
CATALOGUE = catalogue_from_table(catalogue_table(ITEMS), FEATURES, "made up")
EVERYTHING = np.ones(ITEMS, dtype=np.bool_)
NOW = parse_cutoff(CUTOFF)


def neighbours(rows: dict[str, list[tuple[int, float]]]) -> pa.Table:
    """Rows of NEIGHBOURS: item → (row of the table, weight)."""
    return pa.table(
        {
            "item_id": list(rows),
            "neighbours": pa.array([[to for to, _ in row] for row in rows.values()], pa.list_(pa.int64())),
            "weights": pa.array([[weight for _, weight in row] for row in rows.values()], pa.list_(pa.float32())),
        }
    )


def scored(rows: dict[str, float]) -> pa.Table:
    return pa.table({"item_id": list(rows), "score": pa.array(list(rows.values()), pa.float32())})


def table_of(rows: pa.Table, *, half_life_days: float = 0.0, **validation: float) -> ChannelTable:
    kind = "scores" if "score" in rows.column_names else "neighbours"
    part = channel_part(
        "ease", CUTOFF, "", "", definition="", table=kind, half_life_days=half_life_days, validation=validation
    )
    return table_from_rows(rows, CATALOGUE, part, "made up")


def likes_of(*positions: int, ages: list[float] | None = None) -> Likes:
    return Likes(np.array(positions, dtype=np.intp), np.array(ages or [0.0] * len(positions)))


THREE = neighbours(
    {
        item_id(2): [(1, 0.5), (2, -1.0)],
        item_id(5): [(0, 0.25), (2, 0.75)],
        item_id(9): [(0, 0.1)],
    }
)


def test_what_likes_tell_is_summed_by_their_age() -> None:
    table = table_of(THREE, half_life_days=10)
    found = recall_fitted("ease", table, likes_of(2, 5, ages=[0.0, 10.0]), EVERYTHING, 10)
    assert found.positions.tolist() == [5, 2], "item 9 is told against: -1 + 0.75 / 2"
    assert found.scores is not None
    assert found.scores.tolist() == [0.5, 0.125]
    alike = recall_fitted("ease", table_of(THREE), likes_of(2, 5, ages=[0.0, 10.0]), EVERYTHING, 10)
    assert alike.scores is not None
    assert alike.scores.tolist() == [0.5, 0.25]


own_weights = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0]), min_size=6, max_size=6)


@settings(deadline=None)
@given(st.lists(own_weights, min_size=6, max_size=6), st.sets(st.integers(0, 5)), st.sampled_from([0.0, 7.0]))
def test_a_tables_scores_equal_a_sum_by_hand(
    matrix: list[list[float]], given_likes: set[int], half_life: float
) -> None:
    rows = neighbours({item_id(i): [(j, w) for j, w in enumerate(own) if w] for i, own in enumerate(matrix)})
    liked_items = sorted(given_likes)
    ages = [3.0 * place for place in range(len(liked_items))]
    told = {
        (like, item): matrix[like][item] * (0.5 ** (age / half_life) if half_life else 1.0)
        for like, age in zip(liked_items, ages, strict=True)
        for item in range(6)
    }
    sums = {item: sum(told[like, item] for like in liked_items) for item in range(6)}
    table, likes = table_of(rows, half_life_days=half_life), likes_of(*liked_items, ages=ages)
    found = recall_fitted("ease", table, likes, EVERYTHING, 12)
    assert found.scores is not None
    received = dict(zip(found.positions.tolist(), found.scores.tolist(), strict=True))
    near_zero = 1e-6
    expected = {item: total for item, total in sums.items() if total > near_zero}
    assert {item: score for item, score in received.items() if score > near_zero} == pytest.approx(expected, rel=1e-5)
    for item, like in enumerate(strongest_like(table, likes, np.arange(6)).tolist()):
        most = max((told[each, item] for each in liked_items), default=0.0)
        assert (like == -1) == (most <= 0)
        assert like == -1 or told[like, item] == pytest.approx(most, rel=1e-5)


def test_a_score_for_everybody_needs_no_likes_and_leaves_out_what_it_does_not_know() -> None:
    table = table_of(scored({item_id(3): 0.5, item_id(1): 0.75, "gone": 9.0}))
    allowed = EVERYTHING.copy()
    assert recall_fitted("liked", table, NO_LIKES, allowed, 10).positions.tolist() == [1, 3]
    allowed[1] = False
    assert recall_fitted("liked", table, NO_LIKES, allowed, 10).positions.tolist() == [3]
    assert recall_fitted("ease", table_of(THREE), NO_LIKES, EVERYTHING, 10).positions.tolist() == []


def test_items_that_the_catalogue_lacks_are_left_out_of_a_table() -> None:
    rows = neighbours({item_id(2): [(1, 0.5), (2, 0.25)], "gone": [(0, 9.0)], item_id(9): []})
    found = recall_fitted("ease", table_of(rows), likes_of(2), EVERYTHING, 10)
    assert found.positions.tolist() == [9]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pa.table({"item_id": ["a"]}), "'neighbours', 'weights'] are missing"),
        (neighbours({"a": [(1, 0.5)]}), "neighbours 1 to 1 in a table of 1 rows"),
        (neighbours({"a": [(0, float("nan"))]}), "weights that are not finite"),
        (scored({"a": float("inf")}).rename_columns(["item_id", "other"]), "are missing"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_remedy(rows: pa.Table, message: str) -> None:
    with pytest.raises(SnapshotError) as refused:
        table_of(rows)
    assert message in str(refused.value)
    assert "run `python -m pipelines channels` again" in str(refused.value)


class Snapshots:
    """A state folder with tables of channels."""

    def __init__(self, state: Path) -> None:
        self.world = World(state)

    def publish(self, **tables: tuple[pa.Table, dict[str, float]]) -> Snapshot:
        parts = []
        for name, (rows, validation) in tables.items():
            path = self.world.place.root / "channels" / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, path)
            channel = channels(MOVIELENS).get(name)
            parts.append(
                channel_part(
                    name,
                    CUTOFF,
                    path.relative_to(self.world.place.root).as_posix(),
                    file_sha256(path),
                    definition=channel.definition if channel else "",
                    table="scores" if "score" in rows.column_names else "neighbours",
                    half_life_days=0.0,
                    validation=validation,
                )
            )
        self.world.publish_snapshot(catalogue_table(ITEMS), more=parts)
        return load_snapshot(self.world.place)


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path)


KNOWN, NEW = Audience.KNOWN.value, Audience.NEW.value


def a_user(*liked_items: int, count: int = 20) -> UserFeatures:
    seconds = int(NOW.timestamp())
    values: dict[str, Any] = {
        "user_liked_items": [item_id(number) for number in liked_items],
        "user_liked_times": [seconds - 86_400 * place for place in range(len(liked_items))],
        "user_event_count": count,
    }
    return UserFeatures(values, tuple(item_id(number) for number in liked_items), known=True, missing=())


def test_likes_carry_their_age_and_items_that_are_gone_are_left_out(snapshots: Snapshots) -> None:
    snapshot = snapshots.publish()
    user = a_user(3, 99, 7)
    likes = liked(snapshot, user, NOW)
    assert likes.positions.tolist() == [3, 7]
    assert likes.age_days.tolist() == [0.0, 2.0]
    torn = UserFeatures({"user_liked_items": ["0003"], "user_liked_times": []}, (), known=True, missing=())
    assert liked(snapshot, torn, NOW).positions.tolist() == []


def test_the_list_that_did_best_is_chosen_for_whom_it_did_best(snapshots: Snapshots) -> None:
    snapshot = snapshots.publish(
        ease=(THREE, {KNOWN: 0.3, NEW: 0.1}),
        itemcf=(THREE, {KNOWN: 0.2, NEW: 0.4}),
        liked=(scored({item_id(1): 1.0}), {KNOWN: 0.1, NEW: 0.2}),
        liked_7d=(scored({item_id(2): 1.0}), {NEW: 0.3, "of tomorrow": 9.0}),
    )
    assert snapshot.best_list(Audience.KNOWN) == "ease"
    assert snapshot.best_list(Audience.KNOWN, personal=False) == "liked"
    assert snapshot.best_list(Audience.NEW) == "itemcf"
    assert snapshot.best_list(Audience.NEW, personal=False) == "liked_7d"
    assert snapshots.publish(ease=(THREE, {})).best_list(Audience.KNOWN) is None


def test_a_table_that_cannot_be_read_is_told_and_leaves_the_next_best(snapshots: Snapshots) -> None:
    snapshots.publish(ease=(THREE, {KNOWN: 0.3}), itemcf=(THREE, {KNOWN: 0.2}))
    (snapshots.world.place.root / "channels" / "ease.parquet").write_bytes(b"other")
    snapshot = load_snapshot(snapshots.world.place)
    assert snapshot.best_list(Audience.KNOWN) == "itemcf"
    assert "expected SHA-256" in snapshot.table_problems["ease"]
    degraded: list[str] = []
    found = ask_channels(Online(snapshot, None, RankingOff("")), a_user(2), NOW, EVERYTHING, 10, {}, degraded)
    assert degraded == ["channel:ease"]
    assert [name for name in found.answers if name in {"ease", "itemcf"}] == ["itemcf"]


@pytest.mark.parametrize("name", ["fitted", "popular", "trending", "new", "taste", "circle"])
def test_a_channel_that_fails_takes_no_other_with_it(
    name: str, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    online = Online(snapshots.publish(ease=(THREE, {})), None, RankingOff(""))
    every = ask_channels(online, a_user(2), NOW, EVERYTHING, 10, {}, []).answers.keys()
    monkeypatch.setattr(asking, f"recall_{name}", fail)
    degraded: list[str] = []
    found = ask_channels(online, a_user(2), NOW, EVERYTHING, 10, {}, degraded)
    gone = {"fitted": "ease", "trending": "trend"}.get(name, name)
    assert found.answers.keys() == every - {gone}
    assert degraded == [f"channel:{gone}"]


def test_a_channel_without_a_share_is_asked_and_not_blended(snapshots: Snapshots) -> None:
    snapshot = snapshots.publish(ease=(THREE, {}), itemcf=(THREE, {}))
    online = Online(snapshot, None, RankingOff(""))
    found = ask_channels(online, a_user(2), NOW, EVERYTHING, 10, {"ease": 0, "itemcf": 7}, [])
    assert {answer.channel: quota for answer, quota in found.recalled} == {"itemcf": 7, "popular": 10}
    assert {"ease", "itemcf", "popular", "trend", "new", "taste", "item2vec", "circle"} == found.answers.keys()


def unranked(snapshot: Snapshot, user: UserFeatures | None, monkeypatch: pytest.MonkeyPatch, k: int = 3) -> Any:
    """Return the answer's body where no model is in force."""
    given = user or UserFeatures({}, (), known=False, missing=())

    async def read(*_: object) -> UserFeatures:
        return given

    monkeypatch.setattr("serving.recommender.engine.read_user", read)
    settings = Settings(recommender_clock=NOW)
    engine = Engine(settings, None, None)  # type: ignore[arg-type] # neither is asked
    return asyncio.run(engine.recommend(Online(snapshot, None, RankingOff("none")), "u", k)).body


def test_without_a_model_users_get_the_list_that_did_best(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = snapshots.publish(
        ease=(neighbours({item_id(5): [(1, 0.5)], item_id(9): []}), {KNOWN: 0.3, NEW: 0.1}),
        liked_7d=(scored({item_id(8): 0.5, item_id(6): 0.25}), {KNOWN: 0.1, NEW: 0.2}),
    )
    known = unranked(snapshot, a_user(5), monkeypatch)
    assert known["items"][0]["item_id"] == item_id(9)
    assert known["items"][0]["reason"] == "because you liked Film 5"
    assert known["items"][0]["recalled_by"] == ["ease", "popular"]
    assert known["degraded"] == ["release"]
    assert [item["score"] for item in known["items"]] == [None] * 3
    newcomer = unranked(snapshot, a_user(5, count=1), monkeypatch)
    assert [item["item_id"] for item in newcomer["items"]][:2] == [item_id(8), item_id(6)]
    assert newcomer["items"][0]["reason"] in {"popular these days", "popular with everyone"}
    nobody = unranked(snapshot, None, monkeypatch)
    assert [item["item_id"] for item in nobody["items"]] == [item_id(8), item_id(6), item_id(0)]
    assert nobody["degraded"] == ["unknown_user"]


def test_whoever_likes_nothing_gets_a_list_for_everybody(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshots.publish(ease=(THREE, {KNOWN: 0.9}), liked=(scored({item_id(4): 1.0}), {KNOWN: 0.1}))
    body = unranked(snapshot, a_user(), monkeypatch)
    assert body["items"][0]["item_id"] == item_id(4)


def test_whoever_has_seen_everything_gets_nothing_and_nothing_fails(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = snapshots.publish(ease=(THREE, {KNOWN: 0.9}))
    body = unranked(snapshot, a_user(*range(ITEMS)), monkeypatch)
    assert body["items"] == []
    assert "internal" not in body["degraded"]


def test_without_figures_the_order_is_that_of_recall(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    body = unranked(snapshots.publish(), a_user(), monkeypatch, k=4)
    assert [item["item_id"] for item in body["items"]] == [item_id(number) for number in range(4)]


def changed(name: str, values: list[Any]) -> Catalogue:
    """The catalogue with a column of other values."""
    table = catalogue_table(len(values))
    place = table.column_names.index(name)
    return catalogue_from_table(
        table.set_column(place, name, pa.array(values, table.schema.field(name).type)), FEATURES, "made up"
    )


def test_what_rises_comes_by_its_rise_and_what_does_not_rise_not_at_all() -> None:
    catalogue = changed("item_trend", [0.5, -1.0, 2.0, 0.0, 2.0, None])
    found = recall_trending(catalogue, np.ones(6, dtype=np.bool_), 10)
    assert found.positions.tolist() == [2, 4, 0], "of equal rises the popular one comes first"
    assert found.scores is not None
    assert found.scores.tolist() == [2.0, 2.0, 0.5]
    assert recall_trending(catalogue, np.array([True, True, False, True, True, True]), 1).positions.tolist() == [4]


def test_new_is_what_began_lately_and_then_what_nobody_has_met() -> None:
    day, now = 86_400, int(NOW.timestamp())
    table = catalogue_table(5)
    for name, values in {
        "item_first_event_time": [now - 31 * day, now - 29 * day, 0, now - day, now - 400 * day],
        "item_event_count": [9, 3, 0, 5, 7],
    }.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))
    catalogue = catalogue_from_table(table, FEATURES, "made up")
    assert recall_new(catalogue, NOW, np.ones(5, dtype=np.bool_), 10).positions.tolist() == [3, 1, 2]


def test_taste_finds_what_has_the_terms_that_the_user_likes_by_their_order_and_popularity() -> None:
    counts = CATALOGUE.inputs["item_event_count"].tolist()
    found = recall_taste(CATALOGUE, [("genres", "Comedy"), ("genres", "Drama"), ("genres", "gone")], EVERYTHING, 99)
    expected = {
        item: np.log1p(counts[item]) * (1.0 if item % 4 == 1 else 0.5) for item in range(ITEMS) if item % 4 in {0, 1}
    }
    assert found.positions.tolist() == sorted(expected, key=lambda item: -expected[item])
    assert not len(recall_taste(CATALOGUE, [], EVERYTHING, 9).positions)


def test_no_reason_is_given_where_there_is_none_to_believe(snapshots: Snapshots) -> None:
    snapshot = snapshots.publish(ease=(THREE, {}), liked_7d=(scored({item_id(1): 1.0}), {}))
    told = Told(likes_of(2), {}, [("genres", "Drama")])
    found_by = [["ease"], ["ease"], ["liked_7d"], ["popular"], ["liked_7d"]]
    assert told.reasons(snapshot, np.array([5, 9, 1, 3, 4]), found_by) == [
        "because you liked Film 2",
        None,
        "popular these days",
        "popular with everyone",
        "popular, and you often like Drama",
    ], "the like of item 2 tells against item 9"


def test_titles_that_are_alike_come_once_unless_the_list_would_be_too_short() -> None:
    table = catalogue_table(6).set_column(1, "title", [["Milk", "Bread", " milk", "MILK ", "Tea", None]])
    catalogue = catalogue_from_table(table, FEATURES, "made up")
    candidates = blend([(Recalled("popular", np.arange(6)), 1)], 6)
    assert order_slate(catalogue, candidates.positions, None, 4).tolist() == [0, 1, 4, 5]
    assert order_slate(catalogue, candidates.positions, None, 6).tolist() == [0, 1, 4, 5, 2, 3]
    scores = np.array([0.1, 0.2, 0.9, 0.3, 0.4, 0.0], dtype=np.float32)
    assert order_slate(catalogue, candidates.positions, scores, 3).tolist() == [2, 4, 1]


@pytest.mark.parametrize(
    ("given_quotas", "message"),
    [('{"eas": 1}', "received eas"), ("{", "must be JSON"), ('{"ease": -1}', "greater than or equal to 0")],
)
def test_quotas_that_do_not_fit_are_refused(
    given_quotas: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KESTREL_STATE", str(tmp_path))
    monkeypatch.setenv("KESTREL_RECOMMENDER_QUOTAS", given_quotas)
    with pytest.raises(RecommenderError, match=message):
        load_settings()
