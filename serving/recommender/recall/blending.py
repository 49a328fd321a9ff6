"""Joins what the channels found: in proportion to quotas, each item once, with the names of all its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from serving.recommender.recall.channel import Recalled


_NOTHING, _NO_TURNS = np.empty(0, dtype=np.intp), np.empty(0)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Items to be ranked, in recall order, each once."""

    positions: NDArray[np.intp]
    """`[candidates]`"""
    channels: tuple[str, ...]
    found_by: NDArray[np.bool_]
    """`[candidates, channels]`"""

    def __len__(self) -> int:
        return len(self.positions)

    def channels_of(self, row: int) -> list[str]:
        """Return the names of the channels that found a candidate."""
        return [name for name, found in zip(self.channels, self.found_by[row].tolist(), strict=True) if found]


def blend(recalled: Sequence[tuple[Recalled, float]], n: int) -> Candidates:
    """Return up to `n` candidates from channels with their quotas.

    The channels take turns in proportion to their quotas (the first channel first where turns coincide), and what one
    channel cannot fill the others do. An item that several found takes its earliest turn.
    """
    channels = tuple(channel.channel for channel, _ in recalled)
    positions = np.concatenate([_NOTHING, *(channel.positions for channel, _ in recalled)])
    counts = np.array([len(channel.positions) for channel, _ in recalled], dtype=np.intp)
    sources = np.repeat(np.arange(len(recalled)), counts)
    turns = np.concatenate(
        [_NO_TURNS, *((np.arange(len(channel.positions)) + 0.5) / quota for channel, quota in recalled)]
    )
    order = np.lexsort((sources, turns))
    positions, sources = positions[order], sources[order]
    items, first, item_of_row = np.unique(positions, return_index=True, return_inverse=True)
    found_by = np.zeros((len(items), len(channels)), dtype=np.bool_)
    found_by[item_of_row, sources] = True
    kept = np.argsort(first)[:n]
    return Candidates(items[kept], channels, found_by[kept])
