"""What users notice of rollouts: errors and slow calls while versions are promoted and rolled back under load."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from infra.bench.load import Calls

_SETTLE_S = 3.0
_PAUSE_S = 2.0
"""Between two swaps, so that there are steady seconds to compare with."""


@dataclass(frozen=True, slots=True)
class Swap:
    """One step that changed who serves, or loaded a version: from when to when, in seconds since the epoch."""

    step: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class SwapFigures:
    """Calls in the seconds in which something was swapped, beside those of the other seconds; milliseconds."""

    calls: int
    failed: int
    steady_p50_ms: float
    steady_p99_ms: float
    worst_swap_p99_ms: float
    swap_seconds: int
    slowest_ms: float

    @property
    def ratio(self) -> float:
        """The worst swap second's p99 over the steady one."""
        return self.worst_swap_p99_ms / self.steady_p99_ms


def run_swaps(steps: Iterable[tuple[str, Callable[[], object]]]) -> list[Swap]:
    """Take the steps one after another, with pauses, and say when each was at work."""
    time.sleep(_SETTLE_S)
    swaps = []
    for name, step in steps:
        began = time.time()
        step()
        swaps.append(Swap(name, began, time.time()))
        time.sleep(_PAUSE_S)
    return swaps


def swap_figures(calls: Calls, swaps: Sequence[Swap]) -> SwapFigures:
    """Divide the calls by the second in which they ended: those touched by a swap, and the steady ones.

    The first second, in which connections are made, counts for neither.
    """
    second = np.floor(calls.began + calls.seconds).astype(np.int64)
    touched = {each for swap in swaps for each in range(int(swap.began), int(swap.ended) + 1)}
    in_swap = np.isin(second, sorted(touched))
    steady = ~in_swap & (second > second.min())
    milliseconds = calls.seconds * 1000
    worst = max(float(np.percentile(milliseconds[second == each], 99)) for each in touched & set(second.tolist()))
    return SwapFigures(
        calls=len(second),
        failed=int(calls.failed.sum()),
        steady_p50_ms=float(np.percentile(milliseconds[steady], 50)),
        steady_p99_ms=float(np.percentile(milliseconds[steady], 99)),
        worst_swap_p99_ms=worst,
        swap_seconds=len(touched),
        slowest_ms=float(milliseconds[~(second == second.min())].max()),
    )
