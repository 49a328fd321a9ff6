"""How far two counts by bin are apart: the population stability index, sum((p - q) * ln(p / q)) over bins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_HALF_A_CASE = 0.5
"""Added to every bin, so that an empty one has a logarithm, and few cases prove little."""


def smoothed_shares(counts: ArrayLike) -> NDArray[np.float64]:
    """Return the share of each bin, `[bins]`, above 0."""
    smoothed = np.asarray(counts, np.float64) + _HALF_A_CASE
    shares: NDArray[np.float64] = smoothed / smoothed.sum()
    return shares


def stability_index(before: ArrayLike, after: ArrayLike) -> float:
    """Return the index of two counts of the same bins, `[bins]` each; 0 for equal shares, symmetric."""
    p, q = smoothed_shares(before), smoothed_shares(after)
    return float(np.sum((p - q) * np.log(p / q)))
