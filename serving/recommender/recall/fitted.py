"""The channels that are fitted on likes: what the user's likes tell of other items, and what many liked lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serving.recommender.recall.channel import Recalled, best

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from serving.recommender.channel_tables import ChannelTable


@dataclass(frozen=True, slots=True)
class Likes:
    """What the user likes, each item once, the one liked last first."""

    positions: NDArray[np.intp]
    """`[likes]`, in the catalogue."""
    age_days: NDArray[np.float64]
    """`[likes]`, how long ago, 0 or more."""

    def weights(self, half_life_days: float) -> NDArray[np.float32]:
        """Return `[likes]`, how much each counts: half with every half-life, alike where that is 0."""
        if not half_life_days:
            return np.ones(len(self.positions), dtype=np.float32)
        return (0.5 ** (self.age_days / half_life_days)).astype(np.float32)


NO_LIKES = Likes(np.empty(0, dtype=np.intp), np.empty(0))


def recall_fitted(channel: str, table: ChannelTable, likes: Likes, allowed: NDArray[np.bool_], n: int) -> Recalled:
    """Return up to `n` allowed items by falling score.

    What likes tell is the sum of what each gives the item, by its age. An item that they tell against, with a sum of 0
    or less, is not found.

    Args:
        channel: Its name.
        table: Its table.
        likes: What the user likes.
        allowed: `[items]`
        n: How many at most.
    """
    scores = table.scores
    if scores is None:
        scores = _told_by(table, likes)
        among = np.flatnonzero(allowed & (scores > 0))
    else:
        among = np.flatnonzero(allowed & (scores > -np.inf))
    found = among[best(scores[among], n)]
    return Recalled(channel, found, scores[found])


def _told_by(table: ChannelTable, likes: Likes) -> NDArray[np.float32]:
    weights = likes.weights(table.half_life_days)
    told: NDArray[np.float32] = weights @ _of(table)[likes.positions]
    return told


def strongest_like(table: ChannelTable, likes: Likes, positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return `[positions]`, for each item the position of the like that adds most to its score; -1 where none adds."""
    if not len(likes.positions) or not len(positions):
        return np.full(len(positions), -1, dtype=np.intp)
    added = _of(table)[likes.positions][:, positions].toarray() * likes.weights(table.half_life_days)[:, None]
    strongest = added.argmax(axis=0)
    adds = added[strongest, np.arange(len(positions))] > 0
    return np.where(adds, likes.positions[strongest], -1)


def _of(table: ChannelTable) -> sparse.csr_array:
    if table.weights is None:
        msg = "expected a table of what likes tell, received one of scores for everybody"
        raise TypeError(msg)
    return table.weights
