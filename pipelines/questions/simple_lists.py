"""Lists that anybody could make, fitted on what was liked before an origin.

`most liked` counts the users who like an item, of all time or of the last days, or weighs each like by its age. ItemCF
scores an item by the sum of its cosines with what the user liked (Sarwar et al., WWW 2001), with a shrinkage against
cosines of rarely liked items. EASE is a linear autoencoder in closed form (Steck, WWW 2019): B = I - P / diag(P) for P
the inverse of X'X + λI, without self-loops. In both, what the user liked may count by its age.

Every variant is written. Whoever measures them chooses on validation origins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from scipy import linalg, sparse

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.questions import LIST_DEPTH, METHOD, SIMPLE_LISTS, VARIANT, SimpleList
from pipelines.io.arrow import conform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pipelines.questions.asked import Likes

HALF_LIVES = (7.0, 30.0, 90.0, 365.0)
"""Days in which a like comes to count half, among the variants."""
SHRINKAGES = (0.0, 10.0, 100.0)
"""Users who are taken to have liked one of two items and not the other, among the variants of ItemCF."""
PENALTIES = (50.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""λ among the variants of EASE."""
_CHUNK = 256
"""Users whose scores of all items are in memory at a time."""


@dataclass(frozen=True, slots=True)
class LikeMatrix:
    """Who liked what before an origin, by numbers; items in the order of falling popularity, ties by id."""

    items: NDArray[np.str_]
    """`[items]`, every id that can be recommended."""
    counts: NDArray[np.int64]
    """`[items]`, by how many users each is liked."""
    liked: sparse.csr_array
    """`[users, items]`, 1 where the user likes the item."""
    ages: sparse.csr_array
    """`[users, items]`, days since then, plus one so that 0 stays "not liked"."""
    users: NDArray[np.str_]
    """`[users]`, ids, ascending."""


def like_matrix(likes: Likes, catalogue: NDArray[np.str_]) -> LikeMatrix:
    """Number users and items; likes of items outside the catalogue are left out.

    Args:
        likes: What was liked.
        catalogue: Ids of the items that can be recommended, ascending.
    """
    places = np.minimum(np.searchsorted(catalogue, likes.items), max(len(catalogue) - 1, 0))
    known = catalogue[places] == likes.items if len(catalogue) else np.zeros(len(likes.items), dtype=np.bool_)
    counts = np.bincount(places[known], minlength=len(catalogue))
    order = np.argsort(-counts, kind="stable")
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    users, rows = np.unique(likes.users[known], return_inverse=True)
    shape, columns = (len(users), len(catalogue)), ranks[places[known]]
    ones = np.ones(len(rows), dtype=np.float32)
    return LikeMatrix(
        items=catalogue[order],
        counts=counts[order],
        liked=sparse.csr_array((ones, (rows, columns)), shape=shape),
        ages=sparse.csr_array((likes.age_days[known] + 1, (rows, columns)), shape=shape),
        users=users,
    )


@dataclass(frozen=True, slots=True)
class Variant:
    """One simple list with its parameters, and the scores that it gives."""

    method: SimpleList
    parameters: str
    by_item: NDArray[np.float64] | None = None
    """`[items]`, for lists that are the same for everybody."""
    similarity: NDArray[np.float32] | sparse.csr_array | None = None
    """`[head, head]`, from what was liked to what is scored, for the `head` most liked items."""
    half_life: float = 0.0
    """Days in which what the user liked comes to count half; 0: it does not."""


def variants(matrix: LikeMatrix, ease_items: int) -> Iterator[Variant]:
    """Yield every variant; the similarities of one at a time are in memory.

    Args:
        matrix: What was liked.
        ease_items: EASE and ItemCF know so many of the most liked items: EASE takes their square in memory.
    """
    yield Variant(SimpleList.MOST_LIKED, "", by_item=matrix.counts.astype(np.float64))
    for method, days in ((SimpleList.MOST_LIKED_7, 7), (SimpleList.MOST_LIKED_30, 30)):
        yield Variant(method, "", by_item=_summed(matrix, (matrix.ages.data <= days + 1).astype(np.float64)))
    for half_life in HALF_LIVES:
        weights = 0.5 ** ((matrix.ages.data - 1) / half_life)
        yield Variant(SimpleList.RECENCY, f"half-life {half_life:g} days", by_item=_summed(matrix, weights))
    head = min(ease_items, int((matrix.counts > 0).sum()))
    together = np.asarray((matrix.liked[:, :head].T @ matrix.liked[:, :head]).todense(), dtype=np.float32)
    for shrinkage in SHRINKAGES:
        yield from _aged(SimpleList.ITEM_CF, f"shrinkage {shrinkage:g}", item_cosines(together, shrinkage))
    for penalty in PENALTIES:
        yield from _aged(SimpleList.EASE, f"λ {penalty:g}", ease_weights(together, penalty))


def _aged(method: SimpleList, parameters: str, similarity: NDArray[np.float32]) -> Iterator[Variant]:
    yield Variant(method, parameters, similarity=similarity)
    for days in HALF_LIVES:
        yield Variant(method, f"{parameters}, half-life {days:g} days", similarity=similarity, half_life=days)


def _summed(matrix: LikeMatrix, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.bincount(matrix.ages.indices, weights=weights, minlength=len(matrix.items)), dtype=np.float64)


def item_cosines(together: NDArray[np.float32], shrinkage: float) -> NDArray[np.float32]:
    """Return `[items, items]`: users who liked both, over the geometric mean of either plus the shrinkage; 0 to itself.

    Args:
        together: `[items, items]`, how many users liked both; on the diagonal, how many liked the one.
        shrinkage: Added to the denominator.
    """
    norms = np.sqrt(np.diag(together))
    cosines = (together / np.maximum(np.outer(norms, norms) + shrinkage, 1e-9)).astype(np.float32)
    np.fill_diagonal(cosines, 0.0)
    return cosines


def ease_weights(together: NDArray[np.float32], penalty: float) -> NDArray[np.float32]:
    """Return `[items, items]`, the weights B of EASE, from what is liked to what is scored; 0 to itself.

    Args:
        together: X'X, as for `item_cosines`.
        penalty: λ.
    """
    if not len(together):
        return together
    gram = together.astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    factor, _ = linalg.lapack.dpotrf(gram, lower=True, overwrite_a=True)
    lower, _ = linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)
    off_diagonal = np.tril(lower, -1)  # LAPACK fills this triangle alone
    weights = (off_diagonal + off_diagonal.T) / -np.diag(lower)
    return np.asarray(weights, dtype=np.float32)


def write_lists(matrix: LikeMatrix, users: Sequence[str], seen: pa.Table, ease_items: int) -> pa.Table:
    """Return rows of SIMPLE_LISTS: every variant's list for each of `users`.

    Args:
        matrix: What was liked before the origin.
        users: Whose lists, ascending.
        seen: user_id, item_id: what is left out of whose list.
        ease_items: See `variants`.
    """
    own = _rows_of(matrix, users)
    hidden = _hidden(matrix, users, seen)
    tables = [_table(variant, matrix, users, own, hidden) for variant in variants(matrix, ease_items)]
    return conform(pa.concat_tables(tables), SIMPLE_LISTS)


def _rows_of(matrix: LikeMatrix, users: Sequence[str]) -> sparse.csr_array:
    """Return `[asked users, items]`, ages as in `matrix.ages`; nothing for who liked nothing."""
    wanted = np.array(users, dtype=np.str_)
    if not len(matrix.users) or not len(wanted):
        return sparse.csr_array((len(wanted), len(matrix.items)), dtype=np.float64)
    places = np.minimum(np.searchsorted(matrix.users, wanted), len(matrix.users) - 1)
    is_known = matrix.users[places] == wanted
    chosen = sparse.csr_array(
        (np.ones(int(is_known.sum())), (np.flatnonzero(is_known), places[is_known])),
        shape=(len(wanted), len(matrix.users)),
    )
    return sparse.csr_array(chosen @ matrix.ages)


def _hidden(matrix: LikeMatrix, users: Sequence[str], seen: pa.Table) -> sparse.csr_array:
    """Return `[asked users, items]`, whether the user has seen the item."""
    shape = (len(users), len(matrix.items))
    order = np.argsort(matrix.items)
    names = seen.column("item_id").to_numpy().astype(np.str_)
    if not len(matrix.items) or not len(names):
        return sparse.csr_array(shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(matrix.items, names, sorter=order), len(order) - 1)
    is_known = matrix.items[order[places]] == names
    rows = np.searchsorted(np.array(users, dtype=np.str_), seen.column(USER_ID.name).to_numpy().astype(np.str_))
    ones = np.ones(int(is_known.sum()), dtype=np.bool_)
    return sparse.csr_array((ones, (rows[is_known], order[places[is_known]])), shape=shape)


def _table(
    variant: Variant, matrix: LikeMatrix, users: Sequence[str], own: sparse.csr_array, hidden: sparse.csr_array
) -> pa.Table:
    lengths: list[int] = []
    items: list[NDArray[np.str_]] = []
    for start in range(0, len(users), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(users)))
        scores = _scores(variant, own[rows], len(matrix.items))
        scores[hidden[rows].nonzero()] = -np.inf
        for found in top(scores, LIST_DEPTH):
            lengths.append(len(found))
            items.append(matrix.items[found])
    flat = np.concatenate(items) if items else np.array([], dtype=np.str_)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.table(
        {
            METHOD.name: pa.repeat(pa.scalar(variant.method.value), len(users)),
            VARIANT.name: pa.repeat(pa.scalar(variant.parameters), len(users)),
            USER_ID.name: pa.array(users, pa.string()),
            "items": pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.string())),
        }
    )


def _scores(variant: Variant, own: sparse.csr_array, items: int) -> NDArray[np.floating]:
    """Return `[users, items]`; items that a similarity does not know come last, by popularity."""
    if variant.by_item is not None:
        return np.tile(variant.by_item, (own.shape[0], 1))
    similarity = variant.similarity
    head = 0 if similarity is None else similarity.shape[0]
    weights = own.copy()
    half_life = variant.half_life
    counts = 0.5 ** ((weights.data - 1) / half_life) if half_life else np.ones(len(weights.data))
    weights.data = counts.astype(np.float32)  # in single precision the product takes a fifth of the time
    scores = np.full((own.shape[0], items), np.finfo(np.float32).min, dtype=np.float32)
    scores[:, :head] = weights[:, :head].toarray() @ similarity
    return scores


def top(scores: NDArray[np.floating], k: int) -> Iterator[NDArray[np.intp]]:
    """Yield, for each row of `[users, items]`, the up to `k` places of the greatest scores, ties by place; not -inf."""
    k = min(k, scores.shape[1])
    for row in scores:
        kth = np.partition(row, len(row) - k)[len(row) - k] if k else np.inf
        among = np.flatnonzero((row >= kth) & (row > -np.inf))
        yield among[np.argsort(-row[among], kind="stable")][:k]
