"""One request through all stages. Each stage has a deadline and something to fall back on; nobody gets an error page.

features ─▶ recall ─▶ seen filter ─▶ ranking ─▶ re-ranking ─▶ slate
   │ no user, no Redis                  │ no model server, no release
   └─▶ the simple list that is          └─▶ the simple list that is
       best for who is new                  best for such users
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.list_policy import DECLARED
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.questions import LONG_HISTORY, Audience
from feature_repo.feast_redis import StoredValueError
from serving.recommender.answers import Missing, Shown, encode_items, missing_channel
from serving.recommender.errors import RankingError, UserFeaturesError
from serving.recommender.ranking import Predictor, ranking_inputs, score
from serving.recommender.reasons import POPULAR_REASON, Told, similar_reason
from serving.recommender.recall.asking import Channels, ask_channels
from serving.recommender.recall.blending import Candidates, blend
from serving.recommender.recall.embedding import recall_near
from serving.recommender.recall.fitted import NO_LIKES, recall_fitted
from serving.recommender.recall.popular import recall_popular
from serving.recommender.release import Canary, RankingOff, RankingPlan
from serving.recommender.reranking import reranked
from serving.recommender.seen import SeenMemory, unseen_items
from serving.recommender.slate import order_slate
from serving.recommender.user_features import Commands, UserFeatures, UserLayout, read_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from feature_repo.contracts.list_policy import ListPolicy
    from feature_repo.contracts.manifests import Release
    from feature_repo.feast_redis import Stored
    from serving.recommender.embeddings import ItemVectors
    from serving.recommender.recall.channel import Recalled
    from serving.recommender.settings import Settings
    from serving.recommender.snapshot import Snapshot

_log = logging.getLogger(__name__)
_BEFORE_ALL = 1_000_000_000
"""A quota that gives a channel the first turns, as many as it has items."""


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A ranking request as it was sent, and what came of it: to be recorded, and to be sent to a canary."""

    online: Online
    plan: RankingPlan
    user: Mapping[str, Stored | None]
    """What was known of the user, the id included, and of the request: its time."""
    positions: NDArray[np.intp]
    inputs: Mapping[str, NDArray[Any]]
    scores: NDArray[np.float32] | None
    """None where the model server did not answer."""
    took_ms: float
    now: datetime
    """The platform's clock when it was sent."""
    answers: Mapping[str, Recalled] = field(default_factory=dict)
    """Channel → what it found for the user, of those that were asked."""

    @property
    def channels_as_of(self) -> dict[str, str]:
        """Channel whose figures were sent → exclusive end of the interval that it knows."""
        return {name: as_of for name, as_of in self.plan.pairs.as_of.items() if name in self.answers}


@dataclass(frozen=True, slots=True)
class Answer:
    """A `Recommendation`, and the ranking request that was sent for it, if any."""

    body: dict[str, object]
    sent: SentRequest | None


@dataclass(frozen=True, slots=True)
class Online:
    """What requests are answered from, replaced as a whole: one request never sees two snapshots, or two releases."""

    snapshot: Snapshot
    release: Release | None
    ranking: RankingPlan | RankingOff
    stale: bool = False
    """Whether a newer snapshot exists that could not be loaded, or does not fit the release."""
    canary: Canary | None = None
    policy: ListPolicy = DECLARED
    """The release's: quotas, and what is mixed into the model's order."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Part, of release or snapshot, that is left out because it lacks what it needs of the other → the reason."""

    @property
    def user_groups(self) -> frozenset[str]:
        """Names of the feature groups of users that recall or the model reads: an answer is degraded without one."""
        recall = self.snapshot.layout.recall
        return recall | self.ranking.groups if isinstance(self.ranking, RankingPlan) else recall

    @property
    def layout(self) -> UserLayout:
        """Where what is fetched of users lies: what recall and the model read, and the canary."""
        canary = frozenset[str]() if self.canary is None else self.canary.plan.groups
        return self.snapshot.layout.for_models(self.user_groups, canary)

    @property
    def vectors(self) -> dict[str, ItemVectors]:
        """Kind → item vectors that may be asked: those that go with the release."""
        return {kind: vectors for kind, vectors in self.snapshot.vectors.items() if kind not in self.unfit}

    @property
    def vectors_problem(self) -> str:
        """Why there are not the vectors of every kind; empty if there are."""
        unfit = (reason for kind, reason in self.unfit.items() if kind in self.snapshot.vectors)
        return "; ".join(filter(None, (self.snapshot.vectors_problem, *unfit)))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates with their scores, if there are any, and what reasons are told by."""

    candidates: Candidates
    scores: NDArray[np.float32] | None
    told: Told
    sent: SentRequest | None = None
    order: NDArray[np.floating] | None = None
    """`[candidates]`, by what they are ordered, the greatest first; None leaves recall order."""


@dataclass(frozen=True, slots=True)
class Found:
    """What recall finds for a user."""

    channels: Channels
    candidates: Candidates
    """Blended in recall order, as many as are ranked."""
    known: bool
    """Whether anything is known of the user: nothing is ranked for others."""
    degraded: Sequence[str]
    """What recall had to do without."""


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._took: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self._took[stage] = round((now - self._last) * 1000, 3)
        self._last = now

    def read(self) -> dict[str, float]:
        """Return the stages so far, and their total."""
        return {**self._took, "total": round((time.perf_counter() - self._start) * 1000, 3)}


class Engine:
    """Answers requests from an `Online`, Redis and the model server."""

    def __init__(self, settings: Settings, redis: Commands, predictor: Predictor) -> None:
        self._settings = settings
        self._redis = redis
        self._predictor = predictor
        self._seen = SeenMemory(settings.recommender_remembered_users)
        self._down: set[Missing] = set()

    async def recommend(self, online: Online, user_id: str, k: int) -> Answer:
        """Return `k` items for a user, fewer only where the user has seen nearly everything."""
        watch = Stopwatch()
        degraded: list[str] = [Missing.SNAPSHOT] if online.stale else []
        user: UserFeatures | None = None
        try:
            user = await self._user(online, user_id, degraded)
            watch.lap("features")
            if user is None or not user.known:
                ranked = self._popular(online, user_id)
                watch.lap("recall")
            else:
                ranked = await self._rank_for(online, user_id, user, degraded, watch)
        except Exception:  # noqa: BLE001 - the last resort: whatever nobody thought of, the user still gets a list
            _log.exception("user %r: a stage failed in a way that it has no fallback for", user_id)
            degraded.append(Missing.INTERNAL)
            ranked = self._popular(online, user_id)
        slate = _slate(online.snapshot, ranked, k)
        plan = online.ranking
        watch.lap("slate")
        body: dict[str, object] = {
            "user": user_id,
            "k": k,
            "items": encode_items(online.snapshot.catalogue, slate),
            "degraded": degraded,
            "model": {"name": plan.model, "version": str(plan.version), "objective": plan.objective}
            if isinstance(plan, RankingPlan) and ranked.scores is not None
            else None,
            "features_as_of": online.snapshot.manifest.cutoff,
            "channels_as_of": ranked.sent.channels_as_of if ranked.sent is not None else {},
            "took_ms": watch.read(),
        }
        return Answer(body, ranked.sent)

    async def _rank_for(
        self, online: Online, user_id: str, user: UserFeatures, degraded: list[str], watch: Stopwatch
    ) -> Ranked:
        found = self._recalled(online, user, degraded)
        channels = found.channels
        watch.lap("recall")
        known = {USER_ID.name: user_id, **user.values}
        sent = await self._scores(online, known, found.candidates, channels.answers, degraded)
        watch.lap("ranking")
        told = Told(channels.likes, channels.nearest, user.taste())
        if sent is None or sent.scores is None:
            return Ranked(self._unranked(online.snapshot, user, channels), None, told, sent)
        order = reranked(sent.scores, sent.positions, sent.answers, online.policy.reranking)
        return Ranked(found.candidates, sent.scores, told, sent, order)

    def _unranked(self, snapshot: Snapshot, user: UserFeatures, found: Channels) -> Candidates:
        """Return the items of the simple list that did best on validation for such users, then what others found."""
        count = user.values.get("user_event_count")
        audience = Audience.KNOWN if isinstance(count, int) and count >= LONG_HISTORY else Audience.NEW
        best = snapshot.best_list(audience, personal=len(found.likes.positions) > 0)
        first = [(answer, _BEFORE_ALL) for name, answer in found.answers.items() if name == best]
        others = [(answer, quota) for answer, quota in found.recalled if answer.channel != best]
        return blend([*first, *others], self._settings.recommender_candidates)

    async def _user(self, online: Online, user_id: str, degraded: list[str]) -> UserFeatures | None:
        settings = self._settings
        try:
            now = settings.now(online.snapshot.manifest.cutoff)
            user = await read_user(self._redis, online.layout, user_id, now, settings.recommender_redis_ms / 1000)
        except UserFeaturesError as error:
            self._went_down(Missing.REDIS, error)
            degraded.append(Missing.REDIS)
            return None
        except StoredValueError as error:
            _log.warning("user %r: %s", user_id, error)
            degraded.append(Missing.USER_FEATURES)
            return None
        self._works(Missing.REDIS)
        if not user.known:
            degraded.append(Missing.UNKNOWN_USER)
            return user
        self._seen.keep(user_id, user.seen)
        if not online.user_groups.isdisjoint(user.missing):
            degraded.append(Missing.USER_FEATURES)
        return user

    def _went_down(self, part: Missing, error: Exception) -> None:
        """Log a part's failure once, not with every request until it is back."""
        if part not in self._down:
            _log.warning("%s; its next failures are not logged until it works again", error)
            self._down.add(part)

    def _works(self, part: Missing) -> None:
        if part in self._down:
            _log.info("%s works again", part)
            self._down.remove(part)

    def _popular(self, online: Online, user_id: str) -> Ranked:
        """Return the simple list that did best on validation for those of whom nothing is known, then what is popular.

        What the user has seen is left out as far as it is remembered.
        """
        snapshot, wanted = online.snapshot, self._settings.recommender_candidates
        allowed = unseen_items(snapshot.catalogue, self._seen.recall(user_id))
        recalled = [(recall_popular(snapshot.catalogue, allowed, wanted), 1)]
        best = snapshot.best_list(Audience.NEW, personal=False)
        if best is not None:
            recalled.insert(0, (recall_fitted(best, snapshot.tables[best], NO_LIKES, allowed, wanted), _BEFORE_ALL))
        return Ranked(blend(recalled, wanted), None, Told())

    def _recalled(self, online: Online, user: UserFeatures, degraded: list[str]) -> Found:
        """Ask every channel for as many items as there are candidates, and blend what they find."""
        settings, snapshot = self._settings, online.snapshot
        channels = ask_channels(
            online,
            user,
            settings.now(snapshot.manifest.cutoff),
            unseen_items(snapshot.catalogue, user.seen),
            settings.recommender_candidates,
            {**online.policy.quotas, **settings.recommender_quotas},
            degraded,
        )
        return Found(channels, blend(channels.recalled, settings.recommender_candidates), known=True, degraded=degraded)

    async def recall(self, online: Online, user_id: str) -> Found:
        """Return what would be ranked for a user, and what each channel says of it: for measuring and for learning.

        No channel is asked about somebody who is not known: what is popular is all that they are offered.
        """
        degraded: list[str] = []
        user = await self._user(online, user_id, degraded)
        if user is None or not user.known:
            allowed = unseen_items(online.snapshot.catalogue, self._seen.recall(user_id))
            wanted = self._settings.recommender_candidates
            popular = Channels([(recall_popular(online.snapshot.catalogue, allowed, wanted), 1)], NO_LIKES, {})
            return Found(popular, blend(popular.recalled, wanted), known=False, degraded=degraded)
        return self._recalled(online, user, degraded)

    async def _scores(
        self,
        online: Online,
        user: Mapping[str, Stored | None],
        candidates: Candidates,
        answers: Mapping[str, Recalled],
        degraded: list[str],
    ) -> SentRequest | None:
        plan = online.ranking
        if isinstance(plan, RankingOff):
            degraded.append(Missing.RELEASE)
            return None
        if not len(candidates):
            return None
        now = self._settings.now(online.snapshot.manifest.cutoff)
        known = {**user, REQUEST_TIME.name: int(now.timestamp())}
        try:
            inputs = ranking_inputs(plan, known, candidates.positions, now, answers)
        except StoredValueError as error:
            _log.warning("%s", error)
            degraded.append(Missing.USER_FEATURES)
            return None
        lacking = map(missing_channel, plan.pairs.lacking(answers))
        degraded += (name for name in lacking if name not in degraded)
        start, scores = time.perf_counter(), None
        try:
            deadline_s = self._settings.recommender_ranking_ms / 1000
            scores = await score(self._predictor, plan, inputs, len(candidates), deadline_s)
        except RankingError as error:
            self._went_down(Missing.MODEL_SERVER, error)
            degraded.append(Missing.MODEL_SERVER)
        else:
            self._works(Missing.MODEL_SERVER)
        took_ms = (time.perf_counter() - start) * 1000
        return SentRequest(online, plan, known, candidates.positions, inputs, scores, took_ms, now, answers)

    async def try_ranking(self, online: Online, candidates: int, timeout_s: float) -> None:
        """Score the most popular items for nobody: proves that ranking works, and warms what is slow the first time.

        Raises:
            RankingError: It does not.
        """
        if isinstance(online.ranking, RankingOff):
            raise RankingError(online.ranking.reason)
        positions = online.snapshot.catalogue.popular[:candidates]
        inputs = ranking_inputs(online.ranking, {}, positions, self._settings.now(online.snapshot.manifest.cutoff))
        await score(self._predictor, online.ranking, inputs, len(positions), timeout_s)

    def similar(self, online: Online, position: int, k: int, by: str | None) -> dict[str, object]:
        """Return `k` items near the one at `position`, as a `Similar`; popular ones where it has no vector.

        `by` is a kind of embedding that the snapshot names, None for its first.
        """
        watch = Stopwatch()
        catalogue = online.snapshot.catalogue
        kind = by or next(iter(online.snapshot.kinds), "")
        vectors = online.vectors.get(kind)
        degraded = [Missing.SNAPSHOT] if online.stale else []
        allowed = np.ones(len(catalogue), dtype=np.bool_)
        allowed[position] = False
        if vectors is None or not vectors.known[position]:
            degraded.append(Missing.EMBEDDINGS)
            recalled = recall_popular(catalogue, allowed, k)
            slate = [Shown(row, None, [recalled.channel], POPULAR_REASON) for row in recalled.positions.tolist()]
        else:
            near = recall_near(kind, vectors, np.array([position]), allowed, k)
            reason = similar_reason(catalogue.titles[position])
            slate = [
                Shown(row, cosine, [kind], reason)
                for row, cosine in zip(near.recalled.positions.tolist(), near.similarity.tolist(), strict=True)
            ]
        return {
            "item": catalogue.item_ids[position],
            "title": catalogue.titles[position],
            "k": k,
            "items": encode_items(catalogue, slate),
            "degraded": degraded,
            "features_as_of": online.snapshot.manifest.cutoff,
            "took_ms": watch.read(),
        }


def _slate(snapshot: Snapshot, ranked: Ranked, k: int) -> list[Shown]:
    candidates, scores = ranked.candidates, ranked.scores
    rows = order_slate(snapshot.catalogue, candidates.positions, ranked.order, k).tolist()
    positions = candidates.positions[rows]
    channels = [candidates.channels_of(row) for row in rows]
    reasons = ranked.told.reasons(snapshot, positions, channels)
    return [
        Shown(position, None if scores is None else float(scores[row]), found_by, reason)
        for row, position, found_by, reason in zip(rows, positions.tolist(), channels, reasons, strict=True)
    ]
