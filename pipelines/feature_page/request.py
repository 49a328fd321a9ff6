"""On-demand features by hand, for the page's examples: what the models' graphs compute, before they encode it.

The graph's layers are the model plane's, which this plane does not import; a test holds the two to the same values.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.features import HALF_LIFE_DAYS
from feature_repo.contracts.on_demand import Computation, OnDemandFeature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DAY_S = 86_400
_YEAR_DAYS = 365.2425
_DAYS_OF_DECEMBER = 31
_PSEUDO_COUNT = 5

ENCODINGS = {
    Computation.HOUR: "category of 24",
    Computation.WEEKDAY: "category of 7",
    Computation.SEASON: "category of 4",
    Computation.ELAPSED: "log(1 + x) over that of a day",
    Computation.DECAYED_COUNT: "log2(1 + x)",
    Computation.MEAN_PRODUCT: "as it is",
    Computation.NUMERIC_MATCH: "as it is",
    Computation.TERM_MATCH: "as it is",
}
"""What the graph does to the value."""


def value_at_request(feature: OnDemandFeature, inputs: Mapping[str, Any], prior_mean: float) -> float:
    """Return a feature of raw inputs that are all there; `prior_mean` is the mean of all values."""
    values = [inputs[name] for name in feature.inputs]
    if feature.computation is Computation.MEAN_PRODUCT:
        user_count, user_mean, item_count, item_mean = values
        return _excess(user_count, user_mean, prior_mean) * _excess(item_count, item_mean, prior_mean)
    return _COMPUTATIONS[feature.computation](*values)


def _excess(count: int, mean: float, prior_mean: float) -> float:
    return count * (mean - prior_mean) / (count + _PSEUDO_COUNT)


def _season(request_time: int) -> int:
    quarters = (request_time // _DAY_S + _DAYS_OF_DECEMBER) * 4 / _YEAR_DAYS
    return int(quarters) % 4


def _shared(item_terms: list[str], user_terms: list[str]) -> float:
    terms = [term for term in item_terms if term]
    return sum(term in user_terms for term in terms) / len(terms)


_COMPUTATIONS: dict[Computation, Callable[..., float]] = {
    Computation.HOUR: lambda time: datetime.fromtimestamp(time, UTC).hour,
    Computation.WEEKDAY: lambda time: datetime.fromtimestamp(time, UTC).weekday(),
    Computation.SEASON: _season,
    Computation.ELAPSED: lambda time, moment: max(time - moment, 0),
    Computation.DECAYED_COUNT: lambda time, until: 2.0 ** ((until - time / _DAY_S) / HALF_LIFE_DAYS),
    Computation.NUMERIC_MATCH: lambda item, mean, spread: abs(item - mean) / spread,
    Computation.TERM_MATCH: _shared,
}
