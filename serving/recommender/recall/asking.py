"""Asks every channel that is online what it finds for a user. One that fails takes no other with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.channels import CIRCLE, NEW, POPULAR, TASTE, TREND, channels
from serving.recommender.answers import Missing, missing_channel
from serving.recommender.recall.attributes import recall_new, recall_taste, recall_trending
from serving.recommender.recall.circle import recall_circle
from serving.recommender.recall.embedding import recall_near
from serving.recommender.recall.fitted import Likes, recall_fitted
from serving.recommender.recall.popular import recall_popular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from feature_repo.contracts.schemas import Schema
    from serving.recommender.embeddings import ItemVectors
    from serving.recommender.engine import Online
    from serving.recommender.recall.channel import Recalled
    from serving.recommender.snapshot import Snapshot
    from serving.recommender.user_features import UserFeatures

_log = logging.getLogger(__name__)
_DAY_S = 86_400
_LAST = 1e-9
"""A quota that gives a channel the turns after all others'."""
_UNDECLARED_QUOTA = 10
"""Of a channel that the snapshot has and this code does not know."""


@dataclass(frozen=True, slots=True)
class Channels:
    """What the channels found."""

    recalled: list[tuple[Recalled, float]]
    """Those with a share of the candidates, each with its quota."""
    likes: Likes
    """What they were told that the user likes."""
    answers: dict[str, Recalled]
    """Channel → what it found, if only that there is nothing; who is not among them is away."""
    nearest: dict[int, int] = field(default_factory=dict)
    """Position of an item → position of the liked item whose vector it is near."""


def ask_channels(  # noqa: PLR0917 - whom, about whom, as of when, of what, for how much
    online: Online,
    user: UserFeatures,
    now: datetime,
    allowed: NDArray[np.bool_],
    wanted: int,
    quotas: Mapping[str, int],
    degraded: list[str],
) -> Channels:
    """Ask every channel for up to `wanted` of the `allowed` items; `degraded` gets those that are away.

    Args:
        online: What is online.
        user: Whom the items are for.
        now: The platform's clock, by which likes grow old.
        allowed: `[items]`
        wanted: How many items a channel finds at most.
        quotas: Channel → its quota, where that is another than it is declared with.
        degraded: What the answer has to do without.
    """
    snapshot = online.snapshot
    likes = liked(snapshot, user, now)
    catalogue = snapshot.catalogue
    lately = catalogue.find(user.liked(snapshot.schema.positive.threshold))
    nearest: dict[int, int] = {}
    asked: dict[str, Callable[[], Recalled]] = {
        name: partial(recall_fitted, name, table, likes, allowed, wanted) for name, table in snapshot.tables.items()
    }
    asked[POPULAR] = partial(recall_popular, catalogue, allowed, wanted)
    if catalogue.trending is not None:
        asked[TREND] = partial(recall_trending, catalogue, allowed, wanted)
    asked[NEW] = partial(recall_new, catalogue, now, allowed, wanted)
    asked[TASTE] = partial(recall_taste, catalogue, user.taste(), allowed, wanted)
    for kind, vectors in online.vectors.items():
        asked[kind] = partial(_near, kind, vectors, lately, allowed, wanted, nearest)
    asked[CIRCLE] = partial(recall_circle, catalogue.find(user.circle()), allowed, wanted)
    answers = _answers(asked)
    failed = [name for name in asked if name not in answers]
    if online.vectors_problem or not online.vectors.keys().isdisjoint(failed):
        degraded.append(Missing.EMBEDDINGS)
    away = [*snapshot.table_problems, *(name for name in failed if name not in online.vectors)]
    degraded += map(missing_channel, away)
    declared = quotas_in_force(snapshot.schema, quotas)
    shares: dict[str, float] = {name: declared.get(name, quotas.get(name, _UNDECLARED_QUOTA)) for name in answers}
    # Whatever the quotas, nobody gets a list that is too short while there is something popular.
    shares[POPULAR] = shares.get(POPULAR, 0) or _LAST
    recalled = [(found, shares[name]) for name, found in answers.items() if shares[name] and len(found.positions)]
    return Channels(recalled, likes, answers, nearest)


def quotas_in_force(schema: Schema, quotas: Mapping[str, int]) -> dict[str, int]:
    """Return declared channel → its share of the candidates: as it is set, else as it is declared."""
    return {name: quotas.get(name, channel.quota) for name, channel in channels(schema).items()}


def _answers(asked: Mapping[str, Callable[[], Recalled]]) -> dict[str, Recalled]:
    """Return what each channel found; one that failed is logged, and not among them."""
    answers = {}
    for name, channel in asked.items():
        try:
            answers[name] = channel()
        except Exception:  # noqa: BLE001 - whatever nobody thought of, the other channels have something to offer
            _log.exception("channel %s failed", name)
    return answers


def _near(  # noqa: PLR0917 - as `recall_near`, and where the liked items go
    kind: str,
    vectors: ItemVectors,
    liked_lately: NDArray[np.intp],
    allowed: NDArray[np.bool_],
    wanted: int,
    nearest: dict[int, int],
) -> Recalled:
    near = recall_near(kind, vectors, liked_lately, allowed, wanted)
    for position, liked_item in zip(near.recalled.positions.tolist(), near.nearest.tolist(), strict=True):
        nearest.setdefault(position, liked_item)
    return near.recalled


def liked(snapshot: Snapshot, user: UserFeatures, now: datetime) -> Likes:
    """Return what the user likes of the catalogue."""
    items, times = user.likes()
    positions = snapshot.catalogue.places(items)
    ages = (now.timestamp() - np.array(times, dtype=np.float64)) / _DAY_S
    return Likes(positions[positions >= 0], np.maximum(ages[positions >= 0], 0.0))
