"""Quotas and re-ranking: what a release may say, how a policy is fitted, and what it does to a list."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from feature_repo.contracts.list_policy import DECLARED, ListPolicy, Reranking
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.questions import Asked
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import ranking
from serving.lists.answering import Ranked, Recall, Scored
from serving.lists.questions import OriginQuestions, load_questions
from serving.lists.quotas import LEAST_USERS, Found, fit_quotas, found_by_channels, recall_of
from serving.lists.reranking import Lists, fit_reranking
from serving.lists.stored_users import StoredUsers
from serving.recommender.engine import Engine, Online
from serving.recommender.recall.blending import blend
from serving.recommender.recall.channel import Recalled
from serving.recommender.release import RankingPlan, plan_ranking
from serving.recommender.reranking import reranked
from serving.recommender.settings import Settings
from serving.recommender.snapshot import load_snapshot
from tests.questions_world import QUESTIONS_ID, QuestionsWorld
from tests.recommender_world import NAMESPACE
from tests.releases import ranker_part, release_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

ITEMS = 60


def test_a_policy_is_read_as_it_is_written() -> None:
    policy = ListPolicy({"ease": 100, "popular": 0}, Reranking("ease_aged", 0.25))
    assert ListPolicy.from_json(policy.record(), "here") == policy
    assert ListPolicy.from_json({}, "here") == DECLARED == ListPolicy.from_json(DECLARED.record(), "here")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"arms": {}}, r"here: expected an object of quotas, reranking, received \['arms'\]; mend it"),
        (None, "here: expected an object of quotas, reranking, received None; mend it"),
        ({"quotas": [1]}, r"quotas: expected a JSON object, received \[1\]"),
        ({"quotas": {"esae": 1}}, "expected channels among ease, .*, received ..esae"),
        ({"quotas": {"ease": -1}}, r"expected quotas, whole numbers from 0 to 1000, received \{'ease': -1\}"),
        ({"quotas": {"ease": 1.5}}, r"received \{'ease': 1.5\}"),
        ({"quotas": {"ease": True}}, r"received \{'ease': True\}"),
        ({"reranking": {"channel": "popular", "share": 0.1}}, "ease, ease_aged, itemcf, .*, received 0.1 of 'popular'"),
        ({"reranking": {"channel": "ease", "share": 1.1}}, "expected a share from 0 to 1 .* received 1.1 of 'ease'"),
        ({"reranking": {"channel": "ease", "share": "a"}}, 'expected {"channel": "ease", "share": 0.3}'),
        ({"reranking": {"channel": "ease", "share": float("nan")}}, "expected a share from 0 to 1"),
        ({"reranking": {"channel": "esae", "share": 0}}, "received 0 of 'esae'"),
        ({"reranking": {"weight": 1}}, 'expected {"channel": "ease", "share": 0.3}'),
    ],
)
def test_what_no_recommender_could_go_by_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(CorruptRecordError, match=message):
        ListPolicy.from_json(record, "here")


def test_a_share_mixes_the_order_of_a_channel_into_that_of_the_model() -> None:
    random = np.random.default_rng(7)
    scores = random.normal(size=20).astype(np.float32)
    positions = random.permutation(ITEMS)[:20]
    found = np.concatenate([positions[:15], np.setdiff1d(np.arange(ITEMS), positions)[:10]])
    answers = {"ease": Recalled("ease", random.permutation(found))}

    def order(share: float, scale: float = 1.0) -> list[int]:
        mixed = reranked(scores * np.float32(scale), positions, answers, Reranking("ease", share))
        return np.argsort(-mixed, kind="stable").tolist()

    places = {item: place for place, item in enumerate(answers["ease"].positions.tolist(), 1)}
    logs = [np.log(places.get(item, len(found) + 1)) for item in positions.tolist()]
    by_hand = 0.7 * (scores - scores.mean()) / scores.std() - 0.3 * (logs - np.mean(logs)) / np.std(logs)
    assert order(0.3) == np.argsort(-by_hand, kind="stable").tolist()
    assert order(0.0) == np.argsort(-scores, kind="stable").tolist()
    assert order(1.0) == np.argsort(logs, kind="stable").tolist()
    assert order(0.3, scale=1000) == order(0.3), "what the scores mean does not matter"
    assert order(0.3) not in (order(0.0), order(1.0))


def test_nothing_is_mixed_in_where_the_channel_is_away_and_equal_scores_stay_equal() -> None:
    scores, positions = np.array([0.5, 0.1], dtype=np.float32), np.array([4, 5])
    assert reranked(scores, positions, {}, Reranking("ease", 0.5)) is scores
    nothing = {"ease": Recalled("ease", np.empty(0, dtype=np.intp))}
    assert reranked(scores, positions, nothing, Reranking("ease", 0.5)) is scores
    other = {"ease": Recalled("ease", np.array([7]))}
    assert reranked(scores, positions, other, Reranking("ease", 1.0)).tolist() == [0, 0]
    alike = np.zeros(2, dtype=np.float32)
    assert np.isfinite(
        reranked(alike, positions, {"ease": Recalled("ease", np.array([5]))}, Reranking("ease", 0.5))
    ).all()


@dataclass(frozen=True)
class Asking:
    """Users who are asked, in the form that figures of lists need."""

    answer_users: NDArray[np.intp]
    answer_items: NDArray[np.intp]
    history: NDArray[np.int64]

    @property
    def answer_counts(self) -> NDArray[np.int64]:
        return np.bincount(self.answer_users, minlength=len(self.history))

    @property
    def item_ids(self) -> NDArray[np.str_]:
        return np.arange(ITEMS).astype(np.str_)

    def hits(self, lists: NDArray[np.intp]) -> NDArray[np.bool_]:
        own = [set(self.answer_items[self.answer_users == user].tolist()) for user in range(len(self.history))]
        return np.array([[item in own[user] for item in row] for user, row in enumerate(lists.tolist())])


def asking(liked: NDArray[np.intp]) -> OriginQuestions:
    """Return users of long history, each with a row of liked items."""
    users = np.repeat(np.arange(len(liked)), liked.shape[1])
    return cast("OriginQuestions", Asking(users, liked.ravel(), np.full(len(liked), 9)))


def permutations(users: int, seed: int) -> NDArray[np.intp]:
    return np.argsort(np.random.default_rng(seed).random((users, ITEMS)), axis=1)


@pytest.mark.parametrize(
    "quotas",
    [
        {"ease": 7, "itemcf": 11, "popular": 13, "trend": 0},
        {"ease": 10, "itemcf": 20, "popular": 20, "trend": 10},
        {"ease": 5, "itemcf": 5, "popular": 5, "trend": 5},
    ],
    ids=["no turns coincide", "some do", "all do"],
)
def test_recall_by_quotas_is_that_of_the_blended_candidates(quotas: dict[str, int]) -> None:
    """The recommender's own blending is the oracle."""
    found = {name: permutations(8, seed)[:, :25] for seed, name in enumerate(quotas)}
    found["popular"][:, 20:] = -1
    questions = asking(permutations(8, 9)[:, :5])
    asked = Recall(np.empty((8, 0)), dict(reversed(found.items())))
    measured = recall_of(found_by_channels([(questions, asked)], 25), quotas, 20)
    for user in range(8):
        recalled = [
            (Recalled(name, lists[user][lists[user] >= 0]), quotas[name])
            for name, lists in found.items()
            if quotas[name]
        ]
        liked = questions.answer_items[questions.answer_users == user]
        assert measured[user] == pytest.approx(np.isin(blend(recalled, 20).positions, liked).sum() / 5)


def planted(users: int, *, telling: str = "itemcf") -> Found:
    """Return three channels of which one knows what is liked, and has a small share; the others find other things."""
    random, liked = np.random.default_rng(7), permutations(users, 0)[:, :10]
    others = np.array([np.setdiff1d(np.arange(ITEMS), own) for own in liked])
    found = {name: liked if name == telling else random.permuted(others, axis=1) for name in ("ease", "itemcf", "new")}
    return found_by_channels([(asking(liked), Recall(np.empty((users, 0)), found))], 50)


def test_quotas_follow_what_channels_add() -> None:
    found, declared = planted(40), {"ease": 100, "itemcf": 5, "new": 10, "circle": 10}
    fitted = fit_quotas(found, declared, 12)
    assert recall_of(found, declared, 12).mean() < 0.2
    assert recall_of(found, fitted, 12).mean() > 0.8
    assert fitted["itemcf"] > fitted["ease"]
    assert fitted["circle"] == declared["circle"], "it was not asked"
    ListPolicy.from_json({"quotas": fit_quotas(planted(60), {**declared, "itemcf": 900}, 12)}, "fitted")
    kept = fit_quotas(found, declared, 12, fixed=["itemcf", "ease"])
    assert (kept["itemcf"], kept["ease"]) == (5, 100), "somebody has set them"


def test_quotas_stay_where_channels_find_the_same_and_where_few_are_asked() -> None:
    declared = {"ease": 100, "itemcf": 5, "new": 10}
    found = {name: permutations(60, seed)[:, :30] for seed, name in enumerate(declared)}
    by_chance = found_by_channels([(asking(permutations(60, 9)[:, :5]), Recall(np.empty((60, 0)), found))], 30)
    assert fit_quotas(by_chance, declared, 20) == declared
    assert fit_quotas(planted(LEAST_USERS - 1), declared, 12) == declared
    assert fit_quotas(found_by_channels([], 20), declared, 12) == declared


def everybody_alike(users: int) -> Lists:
    """Return lists of a model that shows all the same five popular items first, of which one is liked.

    A channel knows one more that each user likes.
    """
    liked = np.stack([np.zeros(users, dtype=np.intp), 20 + np.arange(users) % 40], axis=1)
    positions, scores = np.arange(ITEMS), -np.arange(ITEMS, dtype=np.float32)
    others = [np.setdiff1d(np.arange(10, ITEMS), own) for own in liked]
    random = np.random.default_rng(7)
    answers = [
        {"ease": Recalled("ease", np.concatenate([[own[1]], random.permutation(rest)]))}
        for own, rest in zip(liked, others, strict=True)
    ]
    ranked = [Ranked(positions, scores, each) for each in answers]
    snapshot: Any = SimpleNamespace(catalogue=SimpleNamespace(namesakes=np.arange(ITEMS)))
    return Lists(asking(liked), Scored(snapshot, np.tile(positions, (users, 1)), ranked))


def test_re_ranking_takes_what_lists_have_in_common_off_at_little_cost() -> None:
    shown = everybody_alike(40)
    assert shown.tried(Reranking())[1] == 1
    reranking, tried = fit_reranking([shown], 0.6, keep=0.9)
    figures, less = shown.tried(reranking)
    assert reranking.channel == "ease"
    assert less <= 0.6
    assert figures.mean() >= 0.9 * max(each.ndcg_at_10 for each in tried)
    assert {each.share: each.overlap for each in tried}[reranking.share] == less
    unwanted, _ = fit_reranking([shown], 1.0, keep=1.0)
    assert shown.tried(unwanted)[0].mean() == max(each.ndcg_at_10 for each in tried), "the best order where all may be"
    least, _ = fit_reranking([shown], 0.0, keep=0.0)
    assert shown.tried(least)[1] == min(each.overlap for each in tried), "as near to the limit as there is"


def test_nothing_is_mixed_in_where_few_are_asked_or_no_channel_is_personal() -> None:
    assert fit_reranking([everybody_alike(LEAST_USERS - 1)], 0.1, keep=0.5) == (Reranking(), [])
    shown = everybody_alike(40)
    nobody = [replace(own, answers={}) for own in shown.scored.ranked if own is not None]
    shown = Lists(shown.questions, replace(shown.scored, ranked=nobody))
    assert fit_reranking([shown], 0.1, keep=0.5) == (Reranking(), [])
    unliked = everybody_alike(40)
    nothing = replace(cast("Any", unliked.questions), answer_items=np.full(80, -1))
    assert fit_reranking([Lists(nothing, unliked.scored)], 0.0, keep=0.9)[0] == Reranking(), "no share is better"


class RarestFirst:
    """A model server that gives the rarest items the highest scores."""

    async def predict(self, _: str, inputs: Mapping[str, NDArray[Any]], **__: Any) -> dict[str, NDArray[Any]]:
        return {"score": -np.asarray(inputs["item_event_count"], dtype=np.float32)}


def test_a_release_decides_how_its_lists_are_made(tmp_path: Path) -> None:
    """With quotas of one channel it gives all candidates; with its whole order mixed in, that order is shown."""
    world = QuestionsWorld(tmp_path, users=("u0",)).write()
    _, origins = load_questions(world.place, QUESTIONS_ID)
    origin = origins[-1]
    snapshot = load_snapshot(world.place, origin.snapshot_pointer)
    ranker = ranker_part("1", signature=ranking(MOVIELENS, ("item_event_count",)).to_json())
    plan = plan_ranking(release_of(NAMESPACE, ranker), snapshot)
    assert isinstance(plan, RankingPlan)
    fields = origin.stored_fields(Asked.AT_ORIGIN)
    redis = StoredUsers({snapshot.layout.key(user): row for user, row in fields.items()})

    def shown(policy: ListPolicy, **changes: Any) -> tuple[list[str], list[float], list[str]]:
        settings = Settings(
            state=tmp_path, namespace=NAMESPACE, recommender_clock=origin.times[Asked.AT_ORIGIN][0], **changes
        )
        online = Online(snapshot, None, plan, policy=policy)
        body: Any = asyncio.run(Engine(settings, redis, RarestFirst()).recommend(online, "u0", 10)).body
        items = body["items"]
        return [each["item_id"] for each in items], [each["score"] for each in items], items[0]["recalled_by"]

    own, scores, _ = shown(DECLARED)
    assert scores == sorted(scores, reverse=True)
    mixed, mixed_scores, found_by = shown(ListPolicy(reranking=Reranking("ease", 1.0)))
    assert mixed != own
    assert "ease" in found_by
    assert mixed_scores != sorted(mixed_scores, reverse=True), "a score stays what the model says"
    only = dict.fromkeys(("popular", "trend", "new", "taste", "item2vec", "liked_30d"), 0)
    assert shown(ListPolicy({**only, "ease": 1}))[0] != own
    of_ease = ListPolicy({**only, "ease": 1})
    assert (
        shown(of_ease, recommender_candidates=100)[0]
        != (shown(of_ease, recommender_candidates=100, recommender_quotas={"ease": 0, "taste": 5})[0])
    ), "a setting wins over the release"
    nobody_gives = ListPolicy({**only, "ease": 0})
    assert len(shown(nobody_gives)[0]) == 10, "what is popular comes after all others"
