"""Questions → lists, and what they are made from: the recommender's own engine, with a file in place of Redis.

Its clock stands at the question's moment.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.channels import MISSING_RANK, MISSING_SCORE, PERSONAL_CHANNELS, Figure
from feature_repo.contracts.list_policy import DECLARED
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.questions import LIST_DEPTH, Asked
from serving.lists.errors import QuestionsError, UnansweredError
from serving.lists.stored_users import StoredUsers
from serving.protocol.client import AsyncPredictClient
from serving.recommender.answers import Missing
from serving.recommender.engine import Engine, Online
from serving.recommender.errors import SnapshotError
from serving.recommender.release import RankingOff
from serving.recommender.reranking import reranked
from serving.recommender.slate import order_slate
from serving.recommender.snapshot import load_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
    from datetime import datetime
    from typing import Self

    from numpy.typing import NDArray

    from feature_repo.contracts.list_policy import ListPolicy, Reranking
    from feature_repo.contracts.places import Namespace
    from serving.lists.questions import OriginQuestions
    from serving.recommender.engine import Found, SentRequest
    from serving.recommender.pair_features import PairPlan
    from serving.recommender.ranking import Predictor
    from serving.recommender.recall.channel import Recalled
    from serving.recommender.release import RankingPlan
    from serving.recommender.settings import Settings
    from serving.recommender.snapshot import Snapshot

CANDIDATES = 500
"""So many items each channel is asked for where recall is measured; the recommender asks for as many as it ranks."""
_AT_ONCE = 4
_PATIENCE_MS = 10_000
"""How long a stage may take: measuring waits where serving would answer without it."""
_UNMEASURABLE = {Missing.MODEL_SERVER, Missing.REDIS, Missing.INTERNAL}
"""Without these an answer is not what the recommender would show."""
_NATURAL = {Missing.UNKNOWN_USER, Missing.USER_FEATURES}
"""What recall may lack because of who is asked."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What would be ranked for one question: a row for each candidate and channel that found it, in this order."""

    items: NDArray[np.int32]
    """`[rows]`, positions in the catalogue, ascending."""
    channels: NDArray[np.int8]
    """`[rows]`, places among the names of the channels, ascending for each item."""
    ranks: NDArray[np.int32]
    """`[rows]`, from 1."""
    scores: NDArray[np.float32]
    """`[rows]`, MISSING_SCORE where the channel has none."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What the channels found, in positions of the catalogue; -1 where there is no more."""

    candidates: NDArray[np.intp]
    """`[users, candidates]`, blended, in recall order: the first of them are what is ranked."""
    channels: Mapping[str, NDArray[np.intp]]
    """Channel → `[users, candidates]`, what it found by itself."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a user's list follows from."""

    positions: NDArray[np.intp]
    """`[candidates]`, in the catalogue."""
    scores: NDArray[np.float32]
    """`[candidates]`, the model's."""
    answers: Mapping[str, Recalled]
    """Channel that tells users apart → what it found."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Users' lists, and the scores that they follow from."""

    snapshot: Snapshot
    lists: NDArray[np.intp]
    """`[users, LIST_DEPTH]`, as shown; -1 where a list has ended."""
    ranked: Sequence[Ranked | None]
    """`[users]`; None of a user of whom nothing is known."""

    def reordered(self, reranking: Reranking) -> NDArray[np.intp]:
        """Return `[users, LIST_DEPTH]`, what would be shown with another order mixed into the model's."""
        lists = self.lists.copy()
        for row, own in enumerate(self.ranked):
            if own is not None:
                order = reranked(own.scores, own.positions, own.answers, reranking)
                rows = order_slate(self.snapshot.catalogue, own.positions, order, LIST_DEPTH)
                lists[row] = -1
                lists[row, : len(rows)] = own.positions[rows]
        return lists


@dataclass(frozen=True, slots=True)
class Answering:
    """Where the questions of one origin are asked."""

    settings: Settings
    """Of the recommender: candidates, and quotas that win over the policy's."""
    questions: OriginQuestions
    snapshot: Snapshot
    policy: ListPolicy = DECLARED
    """Quotas, and what is mixed into the model's order."""

    @classmethod
    def at(
        cls, settings: Settings, place: Namespace, questions: OriginQuestions, policy: ListPolicy = DECLARED
    ) -> Self:
        """Load what is known as of an origin, and be ready to answer there.

        Raises:
            QuestionsError: The origin has no snapshot, or one that lacks a file: the recommender would answer without
                it, so that lists would be worse than those that users get.
        """
        remedy = "run `python -m pipelines questions` again, which writes anew what is missing"
        try:
            snapshot = load_snapshot(place, questions.snapshot_pointer)
        except (OSError, SnapshotError, CorruptRecordError) as error:
            msg = (
                f"{questions.role} origin {questions.record['origin']}: expected its snapshot, "
                f"{questions.snapshot_pointer}, received {error}; {remedy}"
            )
            raise QuestionsError(msg) from error
        problems = "; ".join(filter(None, (snapshot.vectors_problem, *snapshot.table_problems.values())))
        if problems:
            msg = f"{questions.role} origin {questions.record['origin']}: {problems}; {remedy}"
            raise QuestionsError(msg)
        return cls(settings, questions, snapshot, policy)

    def scored(self, plan: RankingPlan, server: str, asked: Asked) -> Scored:
        """Return what every user would be shown, and what it follows from: other orders of it need no more requests.

        Args:
            plan: How the model is asked.
            server: The model server's gRPC side.
            asked: When.

        Raises:
            UnansweredError: The model server did not answer, or a stage failed.
        """
        return asyncio.run(self._ranked(plan, server, asked))

    def unranked(self, asked: Asked) -> NDArray[np.intp]:
        """Return what every user would be shown where no model is in force, `[users, LIST_DEPTH]`."""
        return asyncio.run(self._shown(RankingOff("no model is asked"), _NOBODY, asked)).lists

    async def _ranked(self, plan: RankingPlan, server: str, asked: Asked) -> Scored:
        predictor = AsyncPredictClient(server, timeout_s=_PATIENCE_MS / 1000)
        try:
            return await self._shown(plan, predictor, asked)
        finally:
            await predictor.close()

    async def _shown(self, plan: RankingPlan | RankingOff, predictor: Predictor, asked: Asked) -> Scored:
        lists = np.full((len(self.questions.users), LIST_DEPTH), -1, dtype=np.intp)
        ranked: list[Ranked | None] = [None] * len(lists)
        online = Online(self.snapshot, None, plan, policy=self.policy)

        async def one(place: int, user: str, engine: Engine) -> None:
            answer = await engine.recommend(online, user, LIST_DEPTH)
            ranked[place] = _ranked_for(answer.sent)
            body: dict[str, Any] = answer.body
            _refuse_lacking(user, _UNMEASURABLE.intersection(body["degraded"]))
            positions = [self.snapshot.catalogue.positions[item["item_id"]] for item in body["items"]]
            lists[place, : len(positions)] = positions

        await self._each(asked, predictor, self.settings.recommender_candidates, one)
        return Scored(self.snapshot, lists, ranked)

    def recalled(self, asked: Asked) -> Recall:
        """Ask every channel for CANDIDATES items, or as many as are ranked if more, and blend them as for users.

        Channels take turns by quota, so that the first candidates of many are the candidates of a request for few.
        """
        return asyncio.run(self._recalled(asked))

    async def _recalled(self, asked: Asked) -> Recall:
        shape = (len(self.questions.users), max(CANDIDATES, self.settings.recommender_candidates))
        online = Online(self.snapshot, None, RankingOff("only recall is measured"), policy=self.policy)
        candidates = np.full(shape, -1, dtype=np.intp)
        channels: dict[str, NDArray[np.intp]] = {}

        async def one(place: int, user: str, engine: Engine) -> None:
            found = await engine.recall(online, user)
            for recalled, _ in found.channels.recalled:
                own = channels.setdefault(recalled.channel, np.full(shape, -1, dtype=np.intp))
                own[place, : len(recalled.positions)] = recalled.positions
            candidates[place, : len(found.candidates)] = found.candidates.positions

        await self._each(asked, _NOBODY, shape[1], one)
        return Recall(candidates, channels)

    def offers(self, pairs: PairPlan, asked: Asked) -> dict[int, Offer]:
        """Return question's id → what would be ranked, and what channels say of it; nothing is ranked for the unknown.

        Args:
            pairs: How every channel's figures are read; an offer's channels are places in `channels_of` it.
            asked: When.

        Raises:
            UnansweredError: A channel failed.
        """
        return asyncio.run(self._offers(pairs, asked))

    async def _offers(self, pairs: PairPlan, asked: Asked) -> dict[int, Offer]:
        online = Online(self.snapshot, None, RankingOff("only candidates are asked for"), policy=self.policy)
        ids = self.questions.ids[asked].tolist()
        offers: dict[int, Offer] = {}

        async def one(place: int, user: str, engine: Engine) -> None:
            found = await engine.recall(online, user)
            # Of nobody is known that features are absent: where they are said to be, they could not be read.
            natural = _NATURAL if found.known else {Missing.UNKNOWN_USER}
            _refuse_lacking(user, [each for each in found.degraded if each not in natural])
            if found.known:
                offers[ids[place]] = _offer(found, pairs)

        await self._each(asked, _NOBODY, self.settings.recommender_candidates, one)
        return offers

    async def _each(
        self,
        asked: Asked,
        predictor: Predictor,
        candidates: int,
        one: Callable[[int, str, Engine], Coroutine[None, None, None]],
    ) -> None:
        """Call `one` for every user, a few at once, each with an engine whose clock stands at the question's moment."""
        redis, gate = self._stored(asked), asyncio.Semaphore(_AT_ONCE)

        async def at_its_moment(place: int, user: str, moment: datetime) -> None:
            async with gate:
                await one(place, user, Engine(self._settings_at(moment, candidates), redis, predictor))

        moments = self.questions.times[asked]
        try:
            async with asyncio.TaskGroup() as tasks:
                for place, (user, moment) in enumerate(zip(self.questions.users.tolist(), moments, strict=True)):
                    tasks.create_task(at_its_moment(place, user, moment))
        except ExceptionGroup as failed:  # the first is why the others were cancelled
            raise failed.exceptions[0] from None

    def _stored(self, asked: Asked) -> StoredUsers:
        layout = self.snapshot.layout
        return StoredUsers({layout.key(user): row for user, row in self.questions.stored_fields(asked).items()})

    def _settings_at(self, moment: datetime, candidates: int) -> Settings:
        return self.settings.model_copy(
            update={
                "recommender_clock": moment,
                "recommender_candidates": candidates,
                "recommender_redis_ms": _PATIENCE_MS,
                "recommender_ranking_ms": _PATIENCE_MS,
                "recommender_remembered_users": 0,
            }
        )


def _ranked_for(sent: SentRequest | None) -> Ranked | None:
    """Return of a request as much as other orders take: the tensors of all users would fill the memory."""
    if sent is None or sent.scores is None:
        return None
    answers = {name: found for name, found in sent.answers.items() if name in PERSONAL_CHANNELS}
    return Ranked(sent.positions, sent.scores, answers)


def channels_of(pairs: PairPlan) -> list[str]:
    """Return the channels whose figures are read, in the order of their names."""
    return sorted(pairs.as_of)


def _offer(found: Found, pairs: PairPlan) -> Offer:
    """Return the rows of one question: figures are those that a model would be sent."""
    positions = np.sort(found.candidates.positions)
    values = pairs.values(found.channels.answers, positions)
    figures = {(pair.channel, pair.figure): values[column.name] for column, pair in pairs.inputs}
    names, unscored = channels_of(pairs), np.full(len(positions), MISSING_SCORE, dtype=np.float32)
    ranks = np.stack([figures[name, Figure.RANK] for name in names], axis=1)
    scores = np.stack([figures.get((name, Figure.SCORE), unscored) for name in names], axis=1)
    rows, channels = np.nonzero(ranks != MISSING_RANK)
    return Offer(
        items=positions[rows].astype(np.int32),
        channels=channels.astype(np.int8),
        ranks=ranks[rows, channels].astype(np.int32),
        scores=scores[rows, channels],
    )


def _refuse_lacking(user: str, without: Collection[str]) -> None:
    """UnansweredError if an answer lacks anything."""
    if without:
        msg = (
            f"user {user}: expected an answer that lacks nothing, received one without {', '.join(sorted(without))}: "
            "the log above says why; if it was too slow, run the job again when the machine is less busy"
        )
        raise UnansweredError(msg)


class _NoPredictor:
    """Stands where no model is asked."""

    async def predict(self, *_: object, **__: object) -> dict[str, NDArray[Any]]:
        msg = "expected that nothing is ranked where only recall is measured"
        raise AssertionError(msg)


_NOBODY = _NoPredictor()
