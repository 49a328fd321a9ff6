"""How far two distributions are apart, and how far chance alone would take them.

Of samples of one distribution the population stability index (`feature_repo.stability_index`) is about
(1/n + 1/m) times a chi-squared variable with bins - 1 degrees of freedom (Yurdakul 2018, Statistical Properties of
Population Stability Index), so that small samples look different when nothing has changed. Events of one user are
alike: n and m count users (or items), not events.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from feature_repo.stability_index import smoothed_shares, stability_index

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEVIATIONS = 3.0
"""Chance is believed up to so many standard deviations above its mean."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each bin occurs, and from how many independent units (users, items) that effectively comes."""

    counts: Mapping[str, float]
    units: float

    @property
    def total(self) -> float:
        """All cases."""
        return sum(self.counts.values())

    def shares(self, bins: list[str]) -> list[float]:
        """Return the smoothed share of each of `bins`."""
        return [float(share) for share in smoothed_shares(self.of(bins))]

    def of(self, bins: list[str]) -> list[float]:
        """Return how often each of `bins` occurs."""
        return [self.counts.get(name, 0) for name in bins]


def population_stability_index(recent: Histogram, now: Histogram) -> float:
    """Return the index of two histograms; 0 for equal ones, symmetric in its arguments."""
    bins = _bins(recent, now)
    return stability_index(recent.of(bins), now.of(bins))


def index_by_chance(recent: Histogram, now: Histogram) -> float:
    """Return what the index may reach, at so few units, though both come from one distribution."""
    freedom = len(_bins(recent, now)) - 1
    if freedom < 1 or not recent.units or not now.units:
        return 0.0
    return (1 / recent.units + 1 / now.units) * (freedom + _DEVIATIONS * sqrt(2 * freedom))


def _bins(recent: Histogram, now: Histogram) -> list[str]:
    return sorted({*recent.counts, *now.counts})
