"""Paired bootstrap intervals, resampling users.

A user's rows stand or fall together (they come in bursts, and share the user's features), so users are drawn, not rows:
Field and Welsh, Bootstrapping clustered data (2007). All models are measured on the same draws, which makes the
intervals of differences paired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from models.evaluation.metrics import grouped_auc, log_losses, squared_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_BINS = 4096
"""Distinct scores that a resampled AUC tells apart; what falls together counts as a tie. Exact below."""
_DRAWN_AT_ONCE = 8_000_000

Statistic = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
"""How often each user is drawn, `[resamples, users]` → the metric of each resample, `[resamples]`."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends; None where there are none."""
        return (self.low, self.high) if np.isfinite([self.low, self.high]).all() else None

    def contains(self, value: float) -> bool:
        """Tell whether `value` lies between the ends, both included."""
        return self.low <= value <= self.high


def auc_statistic(labels: NDArray[Any], scores: NDArray[Any], users: NDArray[Any]) -> Statistic:
    """Return the AUC of resamples, by histograms: each user's positives and negatives per distinct score."""
    distinct, dense = np.unique(scores, return_inverse=True)
    bins = min(len(distinct), MAX_BINS)
    binned = dense * bins // len(distinct)
    shape = (int(users.max()) + 1, bins)
    positives, negatives = (
        sparse.coo_array((np.ones(int(of.sum())), (users[of], binned[of])), shape=shape).tocsr()
        for of in (labels == 1, labels != 1)
    )

    def statistic(draws: Floats) -> Floats:
        hits, misses = draws @ positives, draws @ negatives
        below = np.cumsum(misses, axis=1) - misses / 2
        pairs = hits.sum(axis=1) * misses.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            areas: Floats = np.einsum("ij,ij->i", hits, below) / pairs
        return areas

    return statistic


def gauc_statistic(labels: NDArray[Any], scores: NDArray[Any], users: NDArray[Any]) -> Statistic:
    """Return the GAUC of resamples: a user's own AUC does not change with who else is drawn."""
    areas, rows = grouped_auc(labels, scores, users)
    judged = np.where(np.isnan(areas), 0.0, rows)
    return ratio(judged * np.nan_to_num(areas), judged)


def log_loss_statistic(labels: NDArray[Any], probabilities: NDArray[Any], users: NDArray[Any]) -> Statistic:
    """Return the mean log loss of resamples."""
    losses = np.bincount(users, weights=log_losses(labels, probabilities)).astype(np.float64)
    return ratio(losses, np.bincount(users).astype(np.float64))


def observed_over_expected_statistic(
    labels: NDArray[Any], probabilities: NDArray[Any], users: NDArray[Any], size: int
) -> Statistic:
    """Return, of resamples of `size` users, how many rows are positive for each one that probabilities add up to."""
    observed, expected = (
        np.bincount(users, weights=of, minlength=size).astype(np.float64) for of in (labels, probabilities)
    )
    return ratio(observed, expected)


def rmse_statistic(values: NDArray[Any], scores: NDArray[Any], users: NDArray[Any]) -> Statistic:
    """Return the root of the mean squared error of resamples."""
    errors = np.bincount(users, weights=squared_errors(values, scores)).astype(np.float64)
    mean = ratio(errors, np.bincount(users).astype(np.float64))
    return lambda draws: np.sqrt(mean(draws))


def ratio(numerator: Floats, denominator: Floats) -> Statistic:
    """Return one sum over users divided by another, of resamples; each `[users]`."""

    def statistic(draws: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Floats = (draws @ numerator) / (draws @ denominator)
        return means

    return statistic


def resample(statistics: dict[str, Statistic], users: int, resamples: int, seed: int) -> dict[str, Floats]:
    """Return each statistic over the same draws of as many users as there are, `[resamples]`."""
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // max(users, MAX_BINS))
    parts: dict[str, list[Floats]] = {name: [] for name in statistics}
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        draws = random.multinomial(users, np.full(users, 1 / users), size=size).astype(float)
        for name, statistic in statistics.items():
            parts[name].append(statistic(draws))
    return {name: np.concatenate(values) for name, values in parts.items()}


def percentile_interval(values: Floats, confidence: float) -> Interval:
    """Return the central interval of `values`; resamples that left the metric undefined are left out."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return Interval(float("-inf"), float("inf"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))
