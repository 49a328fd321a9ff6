"""Comparing an interval with the recent past: the index, what chance does to it, windows and corridors."""

from datetime import UTC, datetime, timedelta
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.checks.drift import Histogram, index_by_chance, population_stability_index
from pipelines.checks.windows import Window, corridor, windows

DAY = timedelta(days=1)
START = datetime(1998, 3, 1, tzinfo=UTC)


def test_index_by_hand():
    past, now = Histogram({"a": 79.5, "b": 19.5}, 100), Histogram({"a": 39.5, "b": 59.5}, 100)
    expected = (0.4 - 0.8) * log(0.4 / 0.8) + (0.6 - 0.2) * log(0.6 / 0.2)
    assert population_stability_index(past, now) == pytest.approx(expected)


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), min_size=1)


@given(counts, counts)
def test_index_is_symmetric_never_negative_and_zero_for_equal_histograms(one, other):
    first, second = Histogram(one, 10), Histogram(other, 10)
    index = population_stability_index(first, second)
    assert index >= 0
    assert index == pytest.approx(population_stability_index(second, first))
    assert population_stability_index(first, first) == 0


@pytest.mark.parametrize("units", [(50, 200), (1000, 4000)])
def test_samples_of_one_distribution_stay_below_what_chance_explains_and_others_do_not(units):
    rng = np.random.default_rng(5)
    shares = np.array([0.4, 0.3, 0.15, 0.1, 0.05])

    def sample(size, weights):
        return Histogram(dict(zip("abcde", rng.multinomial(size, weights).tolist(), strict=True)), size)

    def exceeds(weights):
        now, past = sample(units[0], weights), sample(units[1], shares)
        return population_stability_index(past, now) > index_by_chance(past, now)

    assert np.mean([exceeds(shares) for _ in range(500)]) < 0.02
    assert np.mean([exceeds(shares[::-1]) for _ in range(100)]) == 1


def test_one_bin_or_no_units_leave_nothing_to_chance():
    assert index_by_chance(Histogram({"a": 3}, 3), Histogram({"a": 9}, 9)) == 0
    assert index_by_chance(Histogram({"a": 3, "b": 1}, 0), Histogram({"a": 9}, 9)) == 0


def test_recent_windows_are_as_long_as_the_interval_and_lie_within_the_history():
    found = windows(START - 17 * DAY + timedelta(hours=5), START, START + 7 * DAY, number=4)
    assert found.recent == (Window(START - 7 * DAY, START), Window(START - 14 * DAY, START - 7 * DAY))
    assert found.past == Window(START - 14 * DAY, START)
    assert len(found.interval.days) == 7


def test_without_a_whole_window_of_history_there_is_no_past():
    assert windows(START - 6 * DAY, START, START + 7 * DAY, number=4).past is None


def test_a_corridor_is_the_median_widened_to_what_the_past_has_seen():
    events = {START + number * DAY: count for number, count in enumerate([100, 100, 100, 2000, 3])}
    bounds = corridor(events, Window(START, START + 5 * DAY), ratio=5)
    assert (bounds.low, bounds.high) == (3, 2000)
    assert corridor({}, Window(START, START + 2 * DAY), ratio=5).low == 0, "days without events count"
