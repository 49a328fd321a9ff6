"""Which part works, for a person and for whatever starts and stops this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from serving.recommender.answers import Part, ProblemDetail
from serving.recommender.errors import RankingError
from serving.recommender.release import RankingOff, RankingPlan

if TYPE_CHECKING:
    from serving.recommender.engine import Engine, Online
    from serving.recommender.user_features import Commands
    from serving.recommender.watcher import Watcher


def nothing_to_recommend(watcher: Watcher) -> ProblemDetail:
    """Say why there is nothing to recommend."""
    return ProblemDetail(
        object="recommender",
        expected="an online snapshot",
        received=watcher.snapshot.problem or "none was looked for yet",
        remedy="Run feature_refresh in Airflow (or `make demo`); this service takes the snapshot up by itself.",
    )


async def look_at_parts(watcher: Watcher, engine: Engine, redis: Commands, timeout_s: float) -> dict[str, Part]:
    """Try every part and say how it does, within `timeout_s` seconds for each."""
    online = watcher.online
    redis_part, model_part = await asyncio.gather(_redis_part(redis, timeout_s), _model_part(online, engine, timeout_s))
    return {
        "snapshot": _snapshot_part(watcher),
        "release": _release_part(watcher),
        "redis": redis_part,
        "model_server": model_part,
    }


def _snapshot_part(watcher: Watcher) -> Part:
    online, problem = watcher.online, watcher.snapshot.problem or watcher.unfit
    if online is None:
        return Part(state="missing", detail=problem or "not loaded yet")
    manifest = online.snapshot.manifest
    detail = f"snapshot of {manifest.cutoff}: {len(online.snapshot.catalogue)} items, {manifest.users} users"
    if problem:
        return Part(state="degraded", detail=f"{detail}; {problem}")
    return Part(state="ok", detail=detail)


def _release_part(watcher: Watcher) -> Part:
    online, problem = watcher.online, watcher.release.problem or watcher.unfit
    if online is None:
        return Part(state="missing", detail=problem or "waits for a snapshot")
    if isinstance(online.ranking, RankingOff):
        state = "missing" if online.release is None else "off"
        return Part(state=state, detail=problem or online.ranking.reason)
    detail = f"version {online.ranking.version} of {online.ranking.model}"
    if problem := "; ".join(filter(None, (problem, *online.ranking.pairs.absent.values()))):
        return Part(state="degraded", detail=f"{detail}; {problem}")
    return Part(state="ok", detail=detail)


async def _redis_part(redis: Commands, timeout_s: float) -> Part:
    try:
        async with asyncio.timeout(timeout_s):
            await redis.execute_command("PING")
    except (RedisError, OSError, TimeoutError) as error:
        detail = (
            f"{type(error).__name__}: {error}; KESTREL_REDIS_URL names its address; recommendations are popular items"
        )
        return Part(state="down", detail=detail)
    return Part(state="ok", detail="answers")


async def _model_part(online: Online | None, engine: Engine, timeout_s: float) -> Part:
    if online is None or not isinstance(online.ranking, RankingPlan):
        return Part(state="off", detail="not asked: there is no release to rank with")
    try:
        await engine.try_ranking(online, 1, timeout_s)
    except RankingError as error:
        return Part(state="down", detail=str(error))
    return Part(state="ok", detail=f"scores with version {online.ranking.version}")
