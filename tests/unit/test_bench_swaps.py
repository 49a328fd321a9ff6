"""The seconds of a swap are told from the steady ones, and failures are counted."""

from __future__ import annotations

import numpy as np

from infra.bench.load import Calls
from infra.bench.swaps import Swap, swap_figures

SECONDS = 10
PER_SECOND = 200


def calls(slow_in: set[int], failed_in: set[int]) -> Calls:
    """Make calls of 10 ms; in some seconds of 50 ms, in some one that fails."""
    began = 1000.0 + np.arange(SECONDS * PER_SECOND) / PER_SECOND
    second = began.astype(np.int64) - 1000
    seconds = np.where(np.isin(second, sorted(slow_in)), 0.050, 0.010)
    failed = np.isin(second, sorted(failed_in)) & (np.arange(len(began)) % PER_SECOND == 0)
    return Calls(began - seconds, seconds, failed)


def test_slow_swap_seconds_are_compared_with_the_others() -> None:
    figures = swap_figures(calls({4, 5}, set()), [Swap("promote", 1004.2, 1005.1)])
    assert figures.calls == SECONDS * PER_SECOND
    assert figures.failed == 0
    assert figures.swap_seconds == 2
    np.testing.assert_allclose([figures.steady_p99_ms, figures.worst_swap_p99_ms, figures.ratio], [10, 50, 5])


def test_slow_seconds_without_a_swap_are_steady_ones() -> None:
    figures = swap_figures(calls({7}, {7}), [Swap("promote", 1004.2, 1004.9)])
    assert figures.failed == 1
    np.testing.assert_allclose([figures.worst_swap_p99_ms, figures.steady_p99_ms], [10, 50])
    np.testing.assert_allclose(figures.worst_steady_p99_ms, 50)
    np.testing.assert_allclose(figures.slowest_ms, 50)


def test_connecting_counts_for_neither() -> None:
    figures = swap_figures(calls({0}, set()), [Swap("promote", 1004.2, 1004.9)])
    np.testing.assert_allclose([figures.steady_p99_ms, figures.slowest_ms], [10, 10])
