"""Metrics of scores against binary labels, vectorised.

AUC counts ties as one half. All take `labels` (0 or 1) and `scores`, `[rows]`; `scores` are probabilities where said.
Scores are finite (`check_finite`): a sort puts NaN somewhere, and every metric would have a figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.datasets import VALUE
from feature_repo.contracts.objectives import Metric
from models.errors import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from models.dataset import Split

    Floats = NDArray[np.float64]

_TINY = 1e-7
"""Probabilities are kept this far from 0 and 1: one certain mistake must not make the mean infinite."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Predicted against observed, over bins of equal row count."""

    predicted: NDArray[np.float64]
    """`[bins]`, mean probability."""
    observed: NDArray[np.float64]
    """`[bins]`, share of positives."""
    rows: NDArray[np.int64]
    expected_calibration_error: float
    """Mean absolute distance between the two, weighted by rows (Naeini et al. 2015, with bins of equal count)."""
    observed_over_expected: float
    """Positives over the sum of probabilities: 1 is right on average."""


def check_finite(scores: NDArray[Any], whose: str) -> NDArray[Any]:
    """Return `scores`, `[rows]`.

    Raises:
        NotFiniteError: One is NaN or infinite; the message says whose, and how many.
    """
    wrong = scores[~np.isfinite(scores)]
    if wrong.size:
        msg = (
            f"scores of {whose}: expected numbers, received {wrong[0]} in {wrong.size} of {scores.size} rows; train it "
            "with another config, or look for huge values in the rows' features"
        )
        raise NotFiniteError(msg)
    return scores


def ranks(scores: NDArray[Any]) -> Floats:
    """Return each score's rank from 1, the mean of the ranks for ties."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: Floats = (last - (counts - 1) / 2.0)[inverse]
    return mean_rank


def auc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Return the area under the ROC curve, by ranks (Mann and Whitney 1947); NaN where one class is missing."""
    positives = int(np.sum(labels))
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    return float((ranks(scores)[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def grouped_auc(labels: NDArray[Any], scores: NDArray[Any], groups: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return each group's AUC and rows, `[groups]`; AUC is NaN for a group that lacks a class.

    `groups` are codes from 0. One sort serves all groups: of integers that hold a row's group, the place of its score,
    and its label, which are sorted faster than rows are put in an order.
    """
    return grouped_auc_of_places(labels, places(scores), groups)


def places(scores: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of each score among the distinct ones, from 0: integers in the same order, with ties."""
    return np.unique(scores, return_inverse=True)[1].astype(np.int64)


def grouped_auc_of_places(
    labels: NDArray[Any], place: NDArray[np.int64], groups: NDArray[Any]
) -> tuple[Floats, Floats]:
    """Return what `grouped_auc` does, of `places`: for who asks for several groupings of the same scores."""
    size = int(groups.max()) + 1 if len(groups) else 0
    most = int(place.max()) + 1 if len(place) else 1
    key = (groups.astype(np.int64) * most + place) * 2 + (labels == 1)
    key.sort()
    tie_key, positive = key >> 1, (key & 1).astype(bool)
    sorted_groups = tie_key // most
    rows = np.bincount(groups, minlength=size).astype(float)
    starts = np.cumsum(rows) - rows
    new_tie = np.ones(len(key), bool)
    new_tie[1:] = tie_key[1:] != tie_key[:-1]
    tie = np.cumsum(new_tie) - 1
    tie_rows = np.bincount(tie)
    rank = (np.cumsum(tie_rows) - (tie_rows - 1) / 2.0)[tie] - starts[sorted_groups]
    rank_sum = np.bincount(sorted_groups[positive], weights=rank[positive], minlength=size)
    positives = np.bincount(sorted_groups[positive], minlength=size).astype(float)
    pairs = positives * (rows - positives)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas = np.where(pairs > 0, (rank_sum - positives * (positives + 1) / 2) / pairs, np.nan)
    return areas, rows


def gauc(labels: NDArray[Any], scores: NDArray[Any], groups: NDArray[Any]) -> float:
    """Return the mean of the users' AUCs, weighted by rows, over users that have both classes (Zhu et al. 2017)."""
    areas, rows = grouped_auc(labels, scores, groups)
    judged = ~np.isnan(areas)
    return float(np.average(areas[judged], weights=rows[judged])) if judged.any() else float("nan")


def log_losses(labels: NDArray[Any], probabilities: NDArray[Any]) -> Floats:
    """Return each row's log loss in nats, `[rows]`."""
    clipped = np.clip(probabilities.astype(np.float64), _TINY, 1 - _TINY)
    losses: Floats = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    return losses


def log_loss(labels: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Return the mean log loss in nats."""
    return float(log_losses(labels, probabilities).mean())


def squared_errors(values: NDArray[Any], scores: NDArray[Any]) -> Floats:
    """Return each row's squared distance from its value, `[rows]`."""
    errors: Floats = np.square(scores.astype(np.float64) - values.astype(np.float64))
    return errors


def brier(labels: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Return the mean squared distance of probabilities from labels (Brier 1950)."""
    return float(squared_errors(labels, probabilities).mean())


def rmse(values: NDArray[Any], scores: NDArray[Any]) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(squared_errors(values, scores).mean()))


def of_scores(split: Split, scores: NDArray[Any], defined: Collection[str], bins: int) -> dict[str, float]:
    """Return the metrics of a split's scores by name: those that are `defined`, and how probabilities fit."""
    labels, users = split.labels, split.users
    found = {}
    if Metric.AUC in defined:
        found[Metric.AUC.value] = auc(labels, scores)
    if Metric.GAUC in defined:
        found[Metric.GAUC.value] = gauc(labels, scores, users)
    if Metric.RMSE in defined:
        found[Metric.RMSE.value] = rmse(split.target(VALUE), scores)
    if Metric.LOG_LOSS in defined:
        fit = calibration(labels, scores, bins)
        found |= {
            Metric.LOG_LOSS.value: log_loss(labels, scores),
            "brier": brier(labels, scores),
            "ece": fit.expected_calibration_error,
            "observed_over_expected": fit.observed_over_expected,
        }
    return found


def calibration(labels: NDArray[Any], probabilities: NDArray[Any], bins: int) -> Calibration:
    """Compare predicted with observed over `bins` bins of equal row count (fewer where there are fewer rows)."""
    order = np.argsort(probabilities, kind="stable")
    edges = np.unique(np.linspace(0, len(order), bins + 1).astype(np.int64))
    rows = np.diff(edges)
    predicted = np.add.reduceat(probabilities[order].astype(np.float64), edges[:-1]) / rows
    observed = np.add.reduceat(labels[order].astype(np.float64), edges[:-1]) / rows
    total = float(probabilities.sum(dtype=np.float64))
    return Calibration(
        predicted=predicted,
        observed=observed,
        rows=rows,
        expected_calibration_error=float(np.average(np.abs(predicted - observed), weights=rows)),
        observed_over_expected=float(labels.sum()) / total if total > 0 else float("inf"),
    )


def roc(labels: NDArray[Any], scores: NDArray[Any], points: int = 200) -> tuple[Floats, Floats]:
    """Return false and true positive rates for a plot, at most about `points` of them."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    kept = ends[np.unique(np.linspace(0, len(ends) - 1, min(points, len(ends))).astype(np.int64))]
    hits = np.cumsum(labels[order] == 1)[kept]
    positives = max(int(labels.sum()), 1)
    negatives = max(len(labels) - int(labels.sum()), 1)
    return np.append(0.0, (kept + 1 - hits) / negatives), np.append(0.0, hits / positives)
