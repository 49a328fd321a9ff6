"""Observed over expected of probabilities, whole and by tenth, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluation.metrics import calibration
from models.gates.bootstrap import Interval, observed_over_expected_statistic, percentile_interval, resample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from models.gates.bootstrap import Statistic
    from models.gates.margins import Margins

_WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of rows with probabilities alike, in ascending order of these."""

    predicted: float
    """Mean probability."""
    observed: float
    """Share of positives."""
    rows: int
    interval: Interval
    """Of observed over expected, resampling users."""

    def as_record(self) -> dict[str, Any]:
        """Return what the report holds; a ratio is None where nothing is expected."""
        ratio = self.observed / self.predicted if self.predicted else None
        ends = self.interval.ends
        return {
            "predicted": self.predicted,
            "observed": self.observed,
            "rows": self.rows,
            "observed_over_expected": ratio,
            "interval": list(ends) if ends else None,
        }


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How well probabilities fit."""

    error: float
    """Expected calibration error over the bins."""
    ratio: float
    """Observed over expected of all rows."""
    interval: Interval
    """Of `ratio`."""
    bins: list[Bin]


def judge_calibration(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    users: NDArray[Any],
    *,
    bins: int,
    margins: Margins,
    seed: int,
) -> CalibrationFigures:
    """Compare predicted with observed; all arrays are `[rows]`, and every interval is of the same draws of users."""
    found = calibration(labels, probabilities, bins)
    statistics = dict(_statistics(labels, probabilities, users, found.rows))
    draws = resample(statistics, int(users.max()) + 1, margins.resamples, seed)
    intervals = {name: percentile_interval(drawn, margins.confidence) for name, drawn in draws.items()}
    return CalibrationFigures(
        found.expected_calibration_error,
        found.observed_over_expected,
        intervals.pop(_WHOLE),
        [
            Bin(float(predicted), float(observed), int(rows), interval)
            for predicted, observed, rows, interval in zip(
                found.predicted, found.observed, found.rows, intervals.values(), strict=True
            )
        ],
    )


def _statistics(
    labels: NDArray[Any], probabilities: NDArray[Any], users: NDArray[Any], rows: NDArray[np.int64]
) -> Iterator[tuple[str, Statistic]]:
    """Return the statistic of all rows, and that of each bin, in the bins' order."""
    size = int(users.max()) + 1
    yield _WHOLE, observed_over_expected_statistic(labels, probabilities, users, size)
    order = np.argsort(probabilities, kind="stable")
    for place, of in enumerate(np.split(order, np.cumsum(rows)[:-1])):
        yield f"{place}", observed_over_expected_statistic(labels[of], probabilities[of], users[of], size)
