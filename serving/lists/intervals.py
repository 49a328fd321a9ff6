"""Intervals by resampling users with all their questions: one user's questions are not independent of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 64
"""Resamples whose weights are in memory at a time."""


def interval(values: NDArray[np.float64], users: NDArray[np.intp], seed: int) -> tuple[float, float] | None:
    """Return the bounds of the mean's percentile interval (Efron 1979); None for fewer than two users.

    Args:
        values: `[questions]`, one figure each.
        users: `[questions]`, whose question it is, numbers from 0.
        seed: Of the resampling.
    """
    sums, counts = np.bincount(users, weights=values), np.bincount(users).astype(np.float64)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(counts) < 2:  # noqa: PLR2004 - one user has no spread
        return None
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _CHUNK):
        size = min(_CHUNK, RESAMPLES - start)
        weights = random.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=size)
        means[start : start + size] = (weights @ sums) / (weights @ counts)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high
