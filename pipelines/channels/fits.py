"""How simple lists and fitted channels come by their scores: one code for both.

`most liked` counts the users who like an item, of all time or of the last days, or weighs each like by its age. ItemCF
scores an item by the sum of its cosines with what the user liked (Sarwar et al., WWW 2001), with a shrinkage against
cosines of rarely liked items. EASE is a linear autoencoder in closed form (Steck, WWW 2019): B = I - P / diag(P) for P
the inverse of X'X + λI, without self-loops. In both, what the user liked may count by its age.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from feature_repo.contracts.questions import SimpleList

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy import sparse

    from pipelines.channels.likes import LikeMatrix

HALF_LIVES = (7.0, 30.0, 90.0, 365.0)
"""Days in which a like comes to count half, among the variants."""
SHRINKAGES = (0.0, 10.0, 100.0)
"""Users who are taken to have liked one of two items and not the other, among the variants of ItemCF."""
PENALTIES = (50.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""λ among the variants of EASE."""
_WINDOWS = {SimpleList.MOST_LIKED_7: 7, SimpleList.MOST_LIKED_30: 30}
"""Days whose likes count."""
_CHUNK = 256
"""Rows of a matrix of items by items that are made at a time."""
_ROUGH = 0.01
"""Relative error of a rough inverse, at most: the condition number times the precision of a number."""
EASE_BYTES = 16
"""Of memory for each pair of items that EASE knows: X'X and B in single precision, what is inverted in double."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One simple list with its parameters."""

    method: SimpleList
    strength: float = 0.0
    """The shrinkage of ItemCF, the penalty λ of EASE."""
    half_life: float = 0.0
    """Days in which a like comes to count half: the user's own, of most liked by age everybody's; 0: it does not."""

    @property
    def parameters(self) -> str:
        """What distinguishes it, for people; nothing where a list has no other variant."""
        strengths = {SimpleList.ITEM_CF: f"shrinkage {self.strength:g}", SimpleList.EASE: f"λ {self.strength:g}"}
        named = [strengths[self.method]] if self.method in strengths else []
        return ", ".join([*named, f"half-life {self.half_life:g} days"] if self.half_life else named)

    @property
    def is_personal(self) -> bool:
        """Whether what it shows depends on what the user liked."""
        return self.method.is_personal


def _variants() -> Iterator[Variant]:
    for method in (SimpleList.MOST_LIKED, *_WINDOWS):
        yield Variant(method)
    for half_life in HALF_LIVES:
        yield Variant(SimpleList.RECENCY, half_life=half_life)
    for method, strengths in ((SimpleList.ITEM_CF, SHRINKAGES), (SimpleList.EASE, PENALTIES)):
        for strength in strengths:
            for half_life in (0.0, *HALF_LIVES):
                yield Variant(method, strength, half_life)


VARIANTS = tuple(_variants())
"""Every variant of every simple list; those that share a similarity stand together."""


def shares(matrix: LikeMatrix, variant: Variant) -> NDArray[np.float64]:
    """Return `[items]`, for a list that is the same for everybody: the share of the users who like the item.

    Of all who like anything; of those who did in the last days, the moment that begins them included; or, by age, each
    like counts by its half-life, and a user as much as the latest one.
    """
    days = matrix.ages.data - 1
    if variant.method in _WINDOWS:
        weights = (days <= _WINDOWS[variant.method]).astype(np.float64)
    elif variant.half_life and len(days):
        # The latest like counts 1: however long ago that is, some weights are above 0, and shares are as they were.
        weights = 0.5 ** ((days - days.min()) / variant.half_life)
    else:
        weights = np.ones(len(days))
    summed = np.bincount(matrix.ages.indices, weights=weights, minlength=len(matrix.items))
    users = np.maximum.reduceat(weights, matrix.ages.indptr[:-1]).sum() if len(days) else 0.0
    return np.asarray(summed / users if users else summed, dtype=np.float64)


def liked_together(liked: sparse.csr_array) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield X'X, how many users like both of two items, some rows at a time: never more is in memory.

    Args:
        liked: X, `[users, items]`, 1 where the user likes the item.
    """
    items = liked.shape[1]
    transposed = liked.T.tocsr()
    for start in range(0, items, _CHUNK):
        rows = slice(start, min(start + _CHUNK, items))
        yield rows, np.asarray((transposed[rows] @ liked).toarray(), dtype=np.float32)


def all_together(liked: sparse.csr_array) -> NDArray[np.float32]:
    """Return X'X whole, `[items, items]`."""
    together = np.empty((liked.shape[1], liked.shape[1]), dtype=np.float32)
    for rows, block in liked_together(liked):
        together[rows] = block
    return together


def similarities(
    together: NDArray[np.float32], counts: NDArray[np.int64], variant: Variant, *, roughly: bool = False
) -> NDArray[np.float32]:
    """Return `[items, items]`, from what was liked to what is scored; 0 to itself.

    Args:
        together: X'X, as of `all_together`.
        counts: Its diagonal: how many users like each item.
        variant: Of ItemCF or EASE.
        roughly: See `ease_weights`.
    """
    if variant.method is SimpleList.EASE:
        return ease_weights(together, variant.strength, roughly=roughly)
    return item_cosines(together, counts, variant.strength)


def item_cosines(
    together: NDArray[np.float32], counts: NDArray[np.int64], shrinkage: float, first: int = 0
) -> NDArray[np.float32]:
    """Return `[rows, items]`: users who liked both, over the geometric mean of either plus the shrinkage; 0 to itself.

    Args:
        together: `[rows, items]`, of X'X the rows from `first` on.
        counts: `[items]`, how many users like each item.
        shrinkage: Added to the denominator.
        first: The item of the first row.
    """
    norms = np.sqrt(counts.astype(np.float32))
    rows = slice(first, first + len(together))
    cosines = (together / np.maximum(np.outer(norms[rows], norms) + shrinkage, 1e-9)).astype(np.float32)
    cosines[np.arange(len(together)), np.arange(rows.start, rows.stop)] = 0.0
    return cosines


def ease_weights(together: NDArray[np.float32], penalty: float, *, roughly: bool = False) -> NDArray[np.float32]:
    """Return `[items, items]`, the weights B of EASE, from what is liked to what is scored; 0 to itself.

    Inverted in place, so that it takes EASE_BYTES for each pair of items and no more.

    Args:
        together: X'X, as of `all_together`.
        penalty: λ.
        roughly: In single precision, where that is enough to tell one penalty from another: in about half the time.
    """
    weights = np.empty_like(together)
    if not len(together):
        return weights
    is_single = roughly and _is_well_conditioned(together, penalty)
    gram: NDArray[np.floating] = together.astype(np.float32 if is_single else np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    factorise, invert = linalg.get_lapack_funcs(("potrf", "potri"), (gram,))
    # LAPACK works in place on columns, and the transpose of a symmetric matrix in rows is that.
    factor, _ = factorise(gram.T, lower=True, overwrite_a=True)
    inverse, _ = invert(factor, lower=True, overwrite_c=True)
    diagonal = np.diag(inverse).copy()
    for start in range(0, len(together), _CHUNK):  # it fills one triangle alone
        rows = slice(start, min(start + _CHUNK, len(together)))
        corner = np.tril(inverse[rows, rows], -1)
        weights[rows, :start] = inverse[rows, :start] / -diagonal[:start]
        weights[rows, rows] = (corner + corner.T) / -diagonal[rows]
        weights[rows, rows.stop :] = inverse[rows.stop :, rows].T / -diagonal[rows.stop :]
    return weights


def _is_well_conditioned(together: NDArray[np.float32], penalty: float) -> bool:
    """Tell whether X'X + λI loses at most _ROUGH of its digits: no eigenvalue exceeds the greatest sum of a row."""
    return bool(together.sum(axis=1, dtype=np.float64).max() <= _ROUGH / np.finfo(np.float32).eps * penalty)
