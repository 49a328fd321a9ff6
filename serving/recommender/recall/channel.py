"""What a recall channel returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Recalled:
    """Items that one channel found, best first, without repeats."""

    channel: str
    positions: NDArray[np.intp]
    """`[found]`"""
    scores: NDArray[np.float32] | None = None
    """`[found]`, falling; None of a channel that has an order and no measure."""


def best(values: NDArray[np.floating], n: int) -> NDArray[np.intp]:
    """Return the indices of the `n` greatest of `values`, greatest first, ties by index."""
    if n <= 0 or not len(values):
        return np.empty(0, dtype=np.intp)
    negated = -values
    if n < len(values):
        # Everything down to the n-th value, ties included, so that the stable sort decides between them by index.
        among = np.flatnonzero(negated <= np.partition(negated, n - 1)[n - 1])
    else:
        among = np.arange(len(values))
    chosen: NDArray[np.intp] = among[np.argsort(negated[among], kind="stable")][:n]
    return chosen
