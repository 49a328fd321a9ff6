"""Who liked what before a moment, as sparse matrices: what every simple list and every fitted channel is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from feature_repo.contracts.datasets import ITEM_ID, USER_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from pipelines.questions.asked import Likes


@dataclass(frozen=True, slots=True)
class LikeMatrix:
    """Who liked what before a moment, by numbers; items in the order of falling popularity, ties by id."""

    items: NDArray[np.str_]
    """`[items]`, every id that can be recommended."""
    counts: NDArray[np.int64]
    """`[items]`, by how many users each is liked."""
    liked: sparse.csr_array
    """`[users, items]`, 1 where the user likes the item."""
    ages: sparse.csr_array
    """`[users, items]`, days since then, plus one so that 0 stays "not liked"."""
    users: NDArray[np.str_]
    """`[users]`, ids, ascending: those who like anything."""

    @property
    def liked_items(self) -> int:
        """How many items anybody likes: the first ones."""
        return int((self.counts > 0).sum())


def like_matrix(likes: Likes, catalogue: NDArray[np.str_] | None = None) -> LikeMatrix:
    """Number users and items; likes of items outside the catalogue are left out.

    Args:
        likes: What was liked.
        catalogue: Ids of the items that can be recommended, ascending; None: those that are liked.
    """
    items = likes.item_ids if catalogue is None else catalogue
    places = positions(items, likes.item_ids)[likes.items]
    known = places >= 0
    counts = np.bincount(places[known], minlength=len(items))
    order = np.argsort(-counts, kind="stable")
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    has_likes = np.bincount(likes.users[known], minlength=len(likes.user_ids)) > 0
    rows, columns = (np.cumsum(has_likes) - 1)[likes.users[known]], ranks[places[known]]
    shape = (int(has_likes.sum()), len(items))
    ones = np.ones(len(rows), dtype=np.float32)
    return LikeMatrix(
        items=items[order],
        counts=counts[order],
        liked=sparse.csr_array((ones, (rows, columns)), shape=shape),
        ages=sparse.csr_array((likes.age_days[known] + 1, (rows, columns)), shape=shape),
        users=likes.user_ids[has_likes],
    )


def positions(ascending: NDArray[np.str_], wanted: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return where each wanted id stands among ascending ones; -1 for one that is not there."""
    if not len(ascending):
        return np.full(len(wanted), -1, dtype=np.intp)
    places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[places] == wanted, places, -1)


def item_positions(matrix: LikeMatrix, wanted: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the column of each wanted id in the matrix; -1 for an item that it does not have."""
    order = np.argsort(matrix.items)
    places = positions(matrix.items[order], wanted)
    return np.where(places >= 0, order[places] if len(order) else places, -1)


def likes_of(matrix: LikeMatrix, users: Sequence[str]) -> sparse.csr_array:
    """Return `[users, items]`, ages as in `matrix.ages` of what each likes; nothing for who liked nothing."""
    wanted = np.array(users, dtype=np.str_)
    if not len(matrix.users) or not len(wanted):
        return sparse.csr_array((len(wanted), len(matrix.items)), dtype=np.float64)
    places = positions(matrix.users, wanted)
    is_known = places >= 0
    chosen = sparse.csr_array(
        (np.ones(int(is_known.sum())), (np.flatnonzero(is_known), places[is_known])),
        shape=(len(wanted), len(matrix.users)),
    )
    return sparse.csr_array(chosen @ matrix.ages)


def seen_by(matrix: LikeMatrix, users: Sequence[str], seen: pa.Table) -> sparse.csr_array:
    """Return `[users, items]`, whether the user has seen the item.

    Args:
        matrix: Which items there are.
        users: Whose, ascending.
        seen: user_id, item_id of some of them.
    """
    columns = item_positions(matrix, seen.column(ITEM_ID.name).to_numpy().astype(np.str_))
    rows = np.searchsorted(np.array(users, dtype=np.str_), seen.column(USER_ID.name).to_numpy().astype(np.str_))
    is_known = columns >= 0
    ones = np.ones(int(is_known.sum()), dtype=np.bool_)
    return sparse.csr_array((ones, (rows[is_known], columns[is_known])), shape=(len(users), len(matrix.items)))
