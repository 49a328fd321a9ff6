"""From a fitted variant to the first items of users' lists."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from pipelines.channels.fits import VARIANTS, Variant, all_together, shares, similarities
from pipelines.channels.likes import likes_of, seen_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray
    from scipy import sparse

    from pipelines.channels.likes import LikeMatrix

_CHUNK = 256
"""Users whose scores of all items are in memory at a time."""


@dataclass(frozen=True, slots=True)
class FittedVariant:
    """A variant, and the scores that it gives."""

    variant: Variant
    by_item: NDArray[np.float64] | None = None
    """`[items]`, for lists that are the same for everybody."""
    similarity: NDArray[np.float32] | None = None
    """`[head, head]`, from what was liked to what is scored, for the `head` most liked items."""


def fitted_variants(matrix: LikeMatrix, head: int, *, roughly: bool = False) -> Iterator[FittedVariant]:
    """Yield every variant, in the order of VARIANTS; the similarities of one at a time are in memory.

    Args:
        matrix: What was liked.
        head: EASE and ItemCF know so many of the most liked items: they take its square in memory.
        roughly: See `fits.ease_weights`.
    """
    head = min(head, matrix.liked_items)
    together = all_together(matrix.liked[:, :head])
    for (_, _, is_personal), group in groupby(VARIANTS, lambda each: (each.method, each.strength, each.is_personal)):
        same = list(group)
        if is_personal:
            similarity = similarities(together, matrix.counts[:head], same[0], roughly=roughly)
            yield from (FittedVariant(each, similarity=similarity) for each in same)
        else:
            yield from (FittedVariant(each, by_item=shares(matrix, each)) for each in same)


def first_items(
    matrix: LikeMatrix, users: Sequence[str], seen: pa.Table, head: int, k: int, *, roughly: bool = False
) -> Iterator[tuple[Variant, NDArray[np.intp]]]:
    """Yield every variant with the first items of each user's list.

    Args:
        matrix: What was liked before.
        users: Whose lists, ascending.
        seen: user_id, item_id: what is left out of whose list.
        head: See `fitted_variants`.
        k: How long a list may be.
        roughly: See `fits.ease_weights`: for who compares variants, and shows no list.

    Yields:
        The variant, and `[users, k]` or less where there are fewer items: columns of the matrix, -1 where a list ends.
    """
    own, hidden = likes_of(matrix, users), seen_by(matrix, users, seen)
    for fitted in fitted_variants(matrix, head, roughly=roughly):
        chunks = [
            _chunk(fitted, own[start : start + _CHUNK], hidden[start : start + _CHUNK], k)
            for start in range(0, len(users), _CHUNK)
        ]
        yield fitted.variant, np.concatenate([np.empty((0, min(k, len(matrix.items))), dtype=np.intp), *chunks])


def _chunk(fitted: FittedVariant, own: sparse.csr_array, hidden: sparse.csr_array, k: int) -> NDArray[np.intp]:
    scores = _scores(fitted, own)
    scores[hidden.nonzero()] = -np.inf
    return top(scores, k)


def _scores(fitted: FittedVariant, own: sparse.csr_array) -> NDArray[np.floating]:
    """Return `[users, items]`; items that a similarity does not know come last, by popularity."""
    users, items = own.shape
    if fitted.similarity is None:
        return np.tile(np.asarray(fitted.by_item, dtype=np.float64), (users, 1))
    head, half_life = len(fitted.similarity), fitted.variant.half_life
    weights = own.copy()
    counts = 0.5 ** ((weights.data - 1) / half_life) if half_life else np.ones(len(weights.data))
    weights.data = counts.astype(np.float32)
    scores = np.full((users, items), np.finfo(np.float32).min, dtype=np.float32)
    scores[:, :head] = weights[:, :head] @ fitted.similarity  # sparse by dense: nobody likes a large share of the items
    return scores


def top(scores: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Return `[rows, k]`: the places of the greatest of `[rows, items]`, ties by place; -1 where no more exceed -inf.

    There are fewer columns where there are fewer items.
    """
    rows, items = scores.shape
    k = min(k, items)
    found = np.full((rows, k), -1, dtype=np.intp)
    if not rows or not k:
        return found
    kth = np.partition(scores, items - k, axis=1)[:, items - k, None]
    chosen = (scores >= kth) & (scores > -np.inf)
    crowded = np.flatnonzero(chosen.sum(axis=1) > k)
    if len(crowded):
        # Of those that tie with the last no more than fit are sorted: where nothing is known everything ties.
        tied = scores[crowded] == kth[crowded]
        beyond = np.cumsum(tied, axis=1) > k - (scores[crowded] > kth[crowded]).sum(axis=1, keepdims=True)
        chosen[crowded] &= ~(tied & beyond)
    row, column = np.nonzero(chosen)
    order = np.lexsort((-scores[row, column], row))
    found[row, np.arange(len(row)) - np.searchsorted(row, row)] = column[order]
    return found
