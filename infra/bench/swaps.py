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
    """One step of a rollout: from when to when it was at work, in seconds since the epoch."""

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
    worst_steady_p99_ms: float
    """The p99 of the worst second in which nothing was at work: what the machine does by itself."""
    swap_p99_ms: dict[str, float]
    """Step → the p99 of its worst second."""
    swap_seconds: int
    slowest_ms: float

    @property
    def worst_swap_p99_ms(self) -> float:
        """The p99 of the worst second in which anything was at work."""
        return max(self.swap_p99_ms.values())

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
    seconds_of = {step: _seconds(swap for swap in swaps if swap.step == step) for step in {s.step for s in swaps}}
    touched = set[int]().union(*seconds_of.values())
    in_swap = np.isin(second, sorted(touched))
    steady = ~in_swap & (second > second.min())
    milliseconds = calls.seconds * 1000
    seen = set(second.tolist())
    p99_of = {each: float(np.percentile(milliseconds[second == each], 99)) for each in seen}
    return SwapFigures(
        calls=len(second),
        failed=int(calls.failed.sum()),
        steady_p50_ms=float(np.percentile(milliseconds[steady], 50)),
        steady_p99_ms=float(np.percentile(milliseconds[steady], 99)),
        worst_steady_p99_ms=max(p99_of[each] for each in set(second[steady].tolist())),
        swap_p99_ms={step: max(p99_of[each] for each in here & seen) for step, here in seconds_of.items()},
        swap_seconds=len(touched),
        slowest_ms=float(milliseconds[~(second == second.min())].max()),
    )


def _seconds(swaps: Iterable[Swap]) -> set[int]:
    return {each for swap in swaps for each in range(int(swap.began), int(swap.ended) + 1)}
