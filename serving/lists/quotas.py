"""Quotas: how many of the candidates each channel gives, fitted by what it adds to the union at past moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.channels import KNOWN_CHANNELS
from feature_repo.contracts.list_policy import QUOTA_MAX
from serving.lists.simple import judged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from serving.lists.answering import Recall
    from serving.lists.questions import OriginQuestions

FACTORS = (0.0, 0.5, 2.0)
"""What a quota is multiplied by in one step."""
SURE = 2.0
"""So many standard errors above 0 is the gain that a step needs: of a hundred users less is what chance does."""
_STEPS = 20
LEAST_USERS, _MOST_USERS = 20, 500
"""Fewer tell nothing: quotas stay as they are. More tell no more, and take longer."""
_MOST_FIGURES = 50_000_000
"""Of places in channels, which are in memory three times while quotas are tried."""
_TIE = 1e-9
"""Less than two turns of different quotas can be apart: of turns that coincide the first channel's comes first."""


@dataclass(frozen=True, slots=True)
class Found:
    """What channels found for some users, ready to be blended by any quotas."""

    channels: tuple[str, ...]
    turns: NDArray[np.float64]
    """`[channels, users, items]`, the item's place in the channel less a half; infinite where it did not find it. Each
    user has items of their own."""
    answers: NDArray[np.bool_]
    """`[users, items]`, which of the items are answers."""
    counts: NDArray[np.int64]
    """`[users]`, how many answers each has."""


def found_by_channels(asked: Sequence[tuple[OriginQuestions, Recall]], n: int) -> Found:
    """Return what the channels found for those whom verdicts are about, a sample of them where they are many.

    Args:
        asked: Origins, and what channels found there.
        n: How many items of a channel may become candidates.
    """
    names = {name for _, recall in asked for name in recall.channels}
    channels = tuple(name for name in KNOWN_CHANNELS if name in names)  # as the recommender asks them
    every = [each for origin, recall in asked for each in _users(origin, recall, n)]
    width = max((len(items) for items, *_ in every), default=0)
    most = max(LEAST_USERS, min(_MOST_USERS, _MOST_FIGURES // max(1, len(channels) * width)))
    users = every[:: -(-len(every) // most) or 1]
    turns = np.full((len(channels), len(users), width), np.inf)
    answers = np.zeros((len(users), width), dtype=np.bool_)
    for row, (items, own, liked) in enumerate(users):
        for name, positions in own.items():
            turns[channels.index(name), row, np.searchsorted(items, positions)] = np.arange(len(positions)) + 0.5
        answers[row, : len(items)] = np.isin(items, liked)
    return Found(channels, turns, answers, np.array([len(liked) for *_, liked in users], dtype=np.int64))


def _users(
    origin: OriginQuestions, recall: Recall, n: int
) -> Iterator[tuple[NDArray[np.intp], dict[str, NDArray[np.intp]], NDArray[np.intp]]]:
    """Yield of each user the items that any channel found, ascending, those of each channel, and the answers."""
    order = np.argsort(origin.answer_users, kind="stable")
    ends = np.cumsum(origin.answer_counts)
    for user in np.flatnonzero(judged(origin)).tolist():
        own = {name: found[user, :n][found[user, :n] >= 0] for name, found in recall.channels.items()}
        items = np.unique(np.concatenate([*own.values(), np.empty(0, dtype=np.intp)]))
        answers = order[ends[user] - origin.answer_counts[user] : ends[user]]
        yield items, own, origin.answer_items[answers]


def recall_of(found: Found, quotas: Mapping[str, int], n: int) -> NDArray[np.float64]:
    """Return `[users]`, the share of the answers among `n` candidates that quotas blend, of as many as `n` can hold.

    An item takes its earliest turn, and of turns that coincide the first channel's comes first, as in
    `recall.blending`.
    """
    shares = np.array([quotas.get(name, 0) for name in found.channels], dtype=np.float64)
    asked = shares > 0
    if not asked.any() or not found.turns.shape[2]:
        return np.zeros(len(found.counts))
    order = _TIE * np.arange(asked.sum())
    turns = (found.turns[asked] / shares[asked, None, None] + order[:, None, None]).min(axis=0)
    last = min(n, turns.shape[1]) - 1
    within = (turns <= np.partition(turns, last, axis=1)[:, last : last + 1]) & np.isfinite(turns)
    return np.asarray((within & found.answers).sum(axis=1) / np.minimum(found.counts, n))


def fit_quotas(found: Found, quotas: Mapping[str, int], n: int, fixed: Collection[str] = ()) -> dict[str, int]:
    """Return quotas that bring more answers among `n` candidates: step by step the change that adds most.

    A change counts when its gain, user by user, is SURE standard errors above 0. So quotas stay as they are where the
    users are few, or where channels find the same.

    Args:
        found: What the channels found, and the answers.
        quotas: Channel → its quota to begin with.
        n: How many candidates there are.
        fixed: Channels whose quotas somebody has set.
    """
    best = dict(quotas)
    free = [name for name in found.channels if name not in fixed]
    if len(found.counts) < LEAST_USERS:
        return best
    now = recall_of(found, best, n)
    for _ in range(_STEPS):
        tried = [(changed, recall_of(found, changed, n)) for changed in _changed(best, free)]
        gains = [_sure_gain(then - now) for _, then in tried]
        if not gains or max(gains) <= 0:
            break
        best, now = tried[int(np.argmax(gains))]
    return best


def _changed(quotas: Mapping[str, int], channels: Sequence[str]) -> Iterator[dict[str, int]]:
    for name in channels:
        for factor in FACTORS:
            share = min(round(quotas.get(name, 0) * factor), QUOTA_MAX)
            if share != quotas.get(name, 0):
                yield {**quotas, name: share}


def _sure_gain(gains: NDArray[np.float64]) -> float:
    return float(gains.mean() - SURE * gains.std(ddof=1) / np.sqrt(len(gains)))
