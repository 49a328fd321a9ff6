"""The channels that are fitted on likes: what the user's likes tell of other items, and what many liked lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serving.recommender.recall.channel import Recalled, best

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    if table.scores is not None and table.order is not None:
        found = table.order[allowed[table.order]][:n]
        return Recalled(channel, found, table.scores[found])
    scores = _told_by(table, likes)
    among = np.flatnonzero(allowed & (scores > 0))
    found = among[best(scores[among], n)]
    return Recalled(channel, found, scores[found])


def _told_by(table: ChannelTable, likes: Likes) -> NDArray[np.float32]:
    """Return `[items]`, the sum of what the likes tell of each."""
    rows = table.rows[likes.positions]
    told = table.weights[rows] * likes.weights(table.half_life_days)[:, None]
    to = table.neighbours[rows]
    return np.bincount(to.ravel(), told.ravel(), minlength=len(table.rows)).astype(np.float32)


def strongest_like(table: ChannelTable, likes: Likes, positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return `[positions]`, for each item the position of the like that adds most to its score; -1 where none adds."""
    strongest = np.full(len(positions), -1, dtype=np.intp)
    if not len(positions) or not len(likes.positions) or not table.neighbours.size:
        return strongest
    rows = table.rows[likes.positions]
    places = np.full(len(table.rows), -1, dtype=np.int32)
    places[positions] = np.arange(len(positions))
    to = places[table.neighbours[rows]].ravel()
    told = np.flatnonzero(to >= 0)
    like, column = np.divmod(told, table.neighbours.shape[1])
    added = table.weights[rows[like], column] * likes.weights(table.half_life_days)[like]
    weakest_first = np.argsort(added, kind="stable")
    weakest_first = weakest_first[added[weakest_first] > 0]
    strongest[to[told[weakest_first]]] = likes.positions[like[weakest_first]]
    return strongest
