"""The on-demand features of a signature, as layers: of the request's time, and of user and item together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_repo.contracts.features import HALF_LIFE_DAYS, MISSING
from feature_repo.contracts.on_demand import CALENDAR, Computation, OnDemandFeature
from feature_repo.contracts.signatures import Scope
from models.encoded_columns import EncodedColumns, Vocabulary
from models.layers.calendar_index import CalendarIndex
from models.layers.decayed_count import DecayedCount
from models.layers.elapsed import Elapsed
from models.layers.numeric_match import NumericMatch
from models.layers.smoothed_mean import SmoothedMean
from models.layers.term_match import TermMatch

if TYPE_CHECKING:
    from collections.abc import Callable

PSEUDO_COUNT = 5.0
"""How many values of the prior mean a user or an item starts with; the same as in the mean baseline."""
_LEAST_SPREAD = 0.1
"""A user whose items all have the same number is taken to vary by so much of the number's spread over train rows."""


def add_on_demand(columns: EncodedColumns) -> None:
    """Add every on-demand feature of the signature. User columns may have one row where item columns have many."""
    for feature in columns.signature.on_demand:
        scope = Scope.of_all(columns.scope_of(name) for name in feature.inputs)
        if feature.computation in CALENDAR:
            values = Vocabulary(CALENDAR[feature.computation])
            indices = CalendarIndex(feature.computation.value, name=feature.name)(columns.inputs[feature.inputs[0]])
            columns.add_indices(feature.name, indices, scope, feature.name, values)
        else:
            columns.add_numbers(feature.name, _NUMBERS[feature.computation](columns, feature), scope)


def smoothed_mean(columns: EncodedColumns, count: str, mean: str, name: str) -> Any:
    """Return a smoothed mean, `[batch, 1]`."""
    layer = SmoothedMean(columns.transforms.prior_mean, PSEUDO_COUNT, name=name)
    return layer(columns.inputs[count], columns.inputs[mean])


def _elapsed(columns: EncodedColumns, feature: OnDemandFeature) -> Any:
    return Elapsed(name=feature.name)(*(columns.inputs[name] for name in feature.inputs))


def _decayed_count(columns: EncodedColumns, feature: OnDemandFeature) -> Any:
    return DecayedCount(HALF_LIFE_DAYS, name=feature.name)(*(columns.inputs[name] for name in feature.inputs))


def _mean_product(columns: EncodedColumns, feature: OnDemandFeature) -> Any:
    user_count, user_mean, item_count, item_mean = feature.inputs
    user = smoothed_mean(columns, user_count, user_mean, f"{feature.name}_user")
    return user * smoothed_mean(columns, item_count, item_mean, f"{feature.name}_item")


def _numeric_match(columns: EncodedColumns, feature: OnDemandFeature) -> Any:
    scaling = columns.transforms.scalings.get(feature.inputs[0])
    least = _LEAST_SPREAD * scaling.scale if scaling else 1.0
    return NumericMatch(MISSING, least, name=feature.name)(*(columns.inputs[name] for name in feature.inputs))


def _term_match(columns: EncodedColumns, feature: OnDemandFeature) -> Any:
    item, user = feature.inputs
    vocabulary = columns.vocabularies[columns.categorical[item]]
    return TermMatch(vocabulary.terms, name=feature.name)(columns.outputs[item], columns.outputs[user])


_NUMBERS: dict[Computation, Callable[[EncodedColumns, OnDemandFeature], Any]] = {
    Computation.ELAPSED: _elapsed,
    Computation.DECAYED_COUNT: _decayed_count,
    Computation.MEAN_PRODUCT: _mean_product,
    Computation.NUMERIC_MATCH: _numeric_match,
    Computation.TERM_MATCH: _term_match,
}

if undefined := set(Computation) - _NUMBERS.keys() - CALENDAR.keys():
    message = f"on-demand computations without a layer: {sorted(undefined)}; write one"
    raise LookupError(message)
