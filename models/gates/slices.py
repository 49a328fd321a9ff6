"""Whether a candidate puts a slice's rows in a worse order than its reference does, with simultaneous intervals.

A gap between slices that every model has is no fault of the candidate, and one that grew because the other slices got
better harms nobody. So a slice's *lag* is how much GAUC the candidate loses there against the reference, beyond what it
loses in every other slice: `d(slice) - min(0, max d(other))`, with `d` = the candidate's GAUC minus the reference's.
Below 0 is worse. The intervals hold for all slices of a kind at once (max-t of the same bootstrap draws), as the worst
of many is bad by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluation.metrics import places
from models.evaluation.slices import sizes, user_aucs
from models.gates.bootstrap import Interval, ratio, resample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.evaluation.slices import Sliced
    from models.gates.bootstrap import Statistic
    from models.gates.margins import Margins

    Floats = NDArray[np.float64]

_CANDIDATE, _REFERENCE = 0, 1


@dataclass(frozen=True, slots=True)
class SliceLag:
    """One slice that has users enough."""

    name: str
    candidate: float
    """GAUC of its rows."""
    reference: float
    lag: float
    interval: Interval
    """Of the lag; together with the others' of its kind."""


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """The slices of one kind."""

    judged: list[SliceLag]
    """None where fewer than two have users enough: one alone has no gap."""
    thin: list[str]
    """Those with too few users who have rows of both classes: they decide nothing."""

    @property
    def worst(self) -> SliceLag:
        """The one that lags most."""
        return min(self.judged, key=lambda each: each.lag)

    @property
    def gaps(self) -> tuple[float, float]:
        """Largest difference in GAUC between two slices: the candidate's, and the reference's."""
        figures = np.array([(each.candidate, each.reference) for each in self.judged])
        candidate, reference = np.ptp(figures, axis=0)
        return float(candidate), float(reference)


def judge_slices(
    slices: Mapping[str, Sliced],
    labels: NDArray[Any],
    users: NDArray[Any],
    candidate: NDArray[Any],
    reference: NDArray[Any],
    *,
    margins: Margins,
    seed: int,
) -> dict[str, SliceFigures]:
    """Return kind → the candidate's GAUC by slice beside the reference's; all arrays are `[rows]`.

    All kinds are measured on the same draws, which take longer than what is measured on them.
    """
    places_of = [places(scores) for scores in (candidate, reference)]
    kinds = {kind: _kind(sliced, labels, users, places_of, margins.min_users) for kind, sliced in slices.items()}
    statistics = {
        f"{kind}.{name}": statistic for kind, found in kinds.items() for name, statistic in found.statistics.items()
    }
    draws = resample(statistics, int(users.max()) + 1, margins.resamples, seed)
    return {
        kind: _judged(found, {name: draws[f"{kind}.{name}"] for name in found.statistics}, margins.confidence)
        for kind, found in kinds.items()
    }


@dataclass(frozen=True, slots=True)
class _Kind:
    """The slices of one kind before they are resampled."""

    names: list[str]
    """Those that have users enough; none if fewer than two have."""
    thin: list[str]
    figures: Floats
    """GAUC of candidate and reference, `[2, slices]`."""
    statistics: Mapping[str, Statistic]
    """`<model>.<place>` → GAUC of resamples."""


def _kind(
    sliced: Sliced, labels: NDArray[Any], users: NDArray[Any], places_of: list[NDArray[np.int64]], min_users: int
) -> _Kind:
    enough = [size.judged_users >= min_users for size in sizes(sliced, labels, users)]
    names = [name for name, is_enough in zip(sliced.names, enough, strict=True) if is_enough]
    thin = [name for name, is_enough in zip(sliced.names, enough, strict=True) if not is_enough]
    if len(names) < 2:  # noqa: PLR2004 - a gap is between two
        return _Kind([], thin, np.empty((2, 0)), {})
    statistics: dict[str, Statistic] = {}
    figures = np.empty((2, len(names)))
    for model, place_of in enumerate(places_of):
        areas, rows = (each[enough] for each in user_aucs(sliced, labels, place_of, users))
        weights = np.where(np.isnan(areas), 0.0, rows)
        hits = weights * np.nan_to_num(areas)
        figures[model] = hits.sum(axis=1) / weights.sum(axis=1)
        statistics |= {f"{model}.{place}": ratio(hits[place], weights[place]) for place in range(len(names))}
    return _Kind(names, thin, figures, statistics)


def _judged(kind: _Kind, draws: Mapping[str, Floats], confidence: float) -> SliceFigures:
    if not kind.names:
        return SliceFigures([], kind.thin)
    own, other = (_stacked(draws, model, len(kind.names)) for model in (_CANDIDATE, _REFERENCE))
    lags, drawn = _lags(kind.figures[_CANDIDATE] - kind.figures[_REFERENCE]), _lags(own - other)
    reach = _simultaneous(drawn - lags, confidence)
    return SliceFigures(
        [
            SliceLag(
                name,
                float(kind.figures[_CANDIDATE, place]),
                float(kind.figures[_REFERENCE, place]),
                float(lag),
                Interval(float(lag - by), float(lag + by)),
            )
            for place, (name, lag, by) in enumerate(zip(kind.names, lags, reach, strict=True))
        ],
        kind.thin,
    )


def _stacked(draws: Mapping[str, Floats], model: int, slices: int) -> Floats:
    return np.stack([draws[f"{model}.{place}"] for place in range(slices)], axis=-1)


def _lags(differences: Floats) -> Floats:
    """Return each slice's lag of differences in GAUC, `[..., slices]`."""
    count = differences.shape[-1]
    lags = np.empty_like(differences)
    for place in range(count):
        others = np.delete(differences, place, axis=-1)
        lags[..., place] = differences[..., place] - np.minimum(0.0, others.max(axis=-1))
    return lags


def _simultaneous(deviations: Floats, confidence: float) -> Floats:
    """Return how far each interval reaches, `[slices]`, so that all of them hold at once (Romano and Wolf 2005)."""
    defined = deviations[np.isfinite(deviations).all(axis=1)]
    errors = defined.std(axis=0)
    largest = np.abs(defined / np.where(errors > 0, errors, 1.0)).max(axis=1)
    reach: Floats = np.quantile(largest, confidence) * errors
    return reach
