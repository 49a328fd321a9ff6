"""Questions → lists: the recommender's own engine, with a file in place of Redis and the question's moment as clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.questions import LIST_DEPTH, Asked
from serving.lists.errors import UnansweredError
from serving.lists.stored_users import StoredUsers
from serving.protocol.client import AsyncPredictClient
from serving.recommender.answers import Missing
from serving.recommender.engine import Engine, Online
from serving.recommender.recall.blending import blend
from serving.recommender.release import RankingOff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from serving.lists.questions import OriginQuestions
    from serving.recommender.ranking import Predictor
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


@dataclass(frozen=True, slots=True)
class Recall:
    """What the channels found, in positions of the catalogue; -1 where there is no more."""

    candidates: NDArray[np.intp]
    """`[users, candidates]`, blended, in recall order: the first of them are what is ranked."""
    channels: Mapping[str, NDArray[np.intp]]
    """Channel → `[users, candidates]`, what it found by itself."""


@dataclass(frozen=True, slots=True)
class Answering:
    """Where the questions of one origin are asked."""

    settings: Settings
    """Of the recommender: quotas, candidates."""
    questions: OriginQuestions
    snapshot: Snapshot

    def recommended(self, plan: RankingPlan, server: str, asked: Asked) -> NDArray[np.intp]:
        """Return what every user would be shown, `[users, LIST_DEPTH]`; -1 where a list has ended.

        Args:
            plan: How the model is asked.
            server: The model server's gRPC side.
            asked: When.

        Raises:
            UnansweredError: The model server did not answer, or a stage failed.
        """
        return asyncio.run(self._ranked(plan, server, asked))

    def unranked(self, asked: Asked) -> NDArray[np.intp]:
        """Return what every user would be shown where no model is in force; as `recommended` does."""
        return asyncio.run(self._shown(RankingOff("no model is asked"), _NOBODY, asked))

    async def _ranked(self, plan: RankingPlan, server: str, asked: Asked) -> NDArray[np.intp]:
        predictor = AsyncPredictClient(server, timeout_s=_PATIENCE_MS / 1000)
        try:
            return await self._shown(plan, predictor, asked)
        finally:
            await predictor.close()

    async def _shown(self, plan: RankingPlan | RankingOff, predictor: Predictor, asked: Asked) -> NDArray[np.intp]:
        lists = np.full((len(self.questions.users), LIST_DEPTH), -1, dtype=np.intp)
        online = Online(self.snapshot, None, plan)

        async def one(place: int, user: str, engine: Engine) -> None:
            body: dict[str, Any] = (await engine.recommend(online, user, LIST_DEPTH)).body
            if without := _UNMEASURABLE.intersection(body["degraded"]):
                msg = (
                    f"user {user}: expected an answer that lacks nothing, received one without "
                    f"{', '.join(sorted(without))}: the log above says why; if it was too slow, run the job again when "
                    "the machine is less busy"
                )
                raise UnansweredError(msg)
            positions = [self.snapshot.catalogue.positions[item["item_id"]] for item in body["items"]]
            lists[place, : len(positions)] = positions

        await self._each(asked, predictor, self.settings.recommender_candidates, one)
        return lists

    def recalled(self, asked: Asked) -> Recall:
        """Ask every channel for CANDIDATES items, or as many as are ranked if more, and blend them as for users.

        Channels take turns by quota, so that the first candidates of many are the candidates of a request for few.
        """
        return asyncio.run(self._recalled(asked))

    async def _recalled(self, asked: Asked) -> Recall:
        shape = (len(self.questions.users), max(CANDIDATES, self.settings.recommender_candidates))
        online = Online(self.snapshot, None, RankingOff("only recall is measured"))
        candidates = np.full(shape, -1, dtype=np.intp)
        channels: dict[str, NDArray[np.intp]] = {}

        async def one(place: int, user: str, engine: Engine) -> None:
            found = await engine.channels(online, user)
            for recalled, _ in found:
                own = channels.setdefault(recalled.channel, np.full(shape, -1, dtype=np.intp))
                own[place, : len(recalled.positions)] = recalled.positions
            blended = blend(found, shape[1]).positions
            candidates[place, : len(blended)] = blended

        await self._each(asked, _NOBODY, shape[1], one)
        return Recall(candidates, channels)

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


class _NoPredictor:
    """Stands where no model is asked."""

    async def predict(self, *_: object, **__: object) -> dict[str, NDArray[Any]]:
        msg = "expected that nothing is ranked where only recall is measured"
        raise AssertionError(msg)


_NOBODY = _NoPredictor()
