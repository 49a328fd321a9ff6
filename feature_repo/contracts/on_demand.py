"""Features that exist at request time alone: of the moment of the request, or of user and item together.

Nothing of them is stored. The graph of every ranking model computes them from its raw inputs, so that training, where
the request's time is the label's, and serving, where it is the platform's clock, cannot differ. They are declared here
so that whoever asks what a model reads finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.features import HALF_LIFE_DAYS, declared
from feature_repo.contracts.schemas import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feature_repo.contracts.schemas import Attribute, Schema

REQUEST_TIME = Column(
    "request_time",
    Dtype.INT64,
    "When the request is made, in seconds since 1970: the label's time in training, the platform's clock in serving",
    missing=0,
)


class Computation(StrEnum):
    """How an on-demand feature is computed; every plane that computes has one layer or function for each."""

    HOUR = "hour"
    """Hour of the day, UTC: 0 to 23."""
    WEEKDAY = "weekday"
    """Day of the week, UTC: Monday is 0."""
    SEASON = "season"
    """Quarter of the mean year of 365.2425 days that begins on 1 December: 0 is December to February."""
    ELAPSED = "elapsed"
    """Seconds from the second input to the first; a moment that is later counts as now."""
    DECAYED_COUNT = "decayed_count"
    """2 to the power of the half-lives from the first input (a time) to the second (a day since 1970)."""
    MEAN_PRODUCT = "mean_product"
    """Product of two smoothed means, each of a count and a mean, as distances from the mean of all values."""
    NUMERIC_MATCH = "numeric_match"
    """Distance of the first input from the second, in units of the third, or of a tenth of the first's spread over
    train rows where that is larger."""
    TERM_MATCH = "term_match"
    """Share of the first input's terms that are among the second's."""


CALENDAR = {Computation.HOUR: 24, Computation.WEEKDAY: 7, Computation.SEASON: 4}
"""What a moment's place in day, week and year is counted in; these are categories, the others are numbers."""


@dataclass(frozen=True, slots=True)
class OnDemandFeature:
    """A feature that is computed with the request, from the model's raw inputs."""

    name: str
    computation: Computation
    inputs: tuple[str, ...]
    """The raw columns that it is computed from, in the order that the computation has."""
    meaning: str
    window: str = "all time"
    """What it looks back on, for people."""
    owner: str = "model plane: the model's graph"
    """Who answers for it."""

    @property
    def dtype(self) -> Dtype:
        """Of the value, before the graph encodes it."""
        return Dtype.INT64 if self.computation in CALENDAR else Dtype.FLOAT32


_NOW = "none: the moment of the request"
REQUEST_HOUR = OnDemandFeature(
    "request_hour", Computation.HOUR, (REQUEST_TIME.name,), "Hour of the request's day", _NOW
)
REQUEST_WEEKDAY = OnDemandFeature("request_weekday", Computation.WEEKDAY, (REQUEST_TIME.name,), "Day of its week", _NOW)
REQUEST_SEASON = OnDemandFeature("request_season", Computation.SEASON, (REQUEST_TIME.name,), "Season of its year", _NOW)
USER_RECENCY = OnDemandFeature(
    "user_recency",
    Computation.ELAPSED,
    (REQUEST_TIME.name, "user_last_event_time"),
    "Seconds since the user's last event",
    "the last event",
)
USER_TENURE = OnDemandFeature(
    "user_tenure",
    Computation.ELAPSED,
    (REQUEST_TIME.name, "user_first_event_time"),
    "Seconds since the user's first event",
)
ITEM_RECENCY = OnDemandFeature(
    "item_recency",
    Computation.ELAPSED,
    (REQUEST_TIME.name, "item_last_event_time"),
    "Seconds since the item's last event",
    "the last event",
)
ITEM_TENURE = OnDemandFeature(
    "item_tenure",
    Computation.ELAPSED,
    (REQUEST_TIME.name, "item_first_event_time"),
    "Seconds since the item's first event",
)
ITEM_DECAYED_COUNT = OnDemandFeature(
    "item_decayed_count",
    Computation.DECAYED_COUNT,
    (REQUEST_TIME.name, "item_popular_until"),
    f"How many events the item has, each halved every {HALF_LIFE_DAYS} days",
    f"all time, halved every {HALF_LIFE_DAYS} days",
)
MEAN_PRODUCT = OnDemandFeature(
    "mean_product",
    Computation.MEAN_PRODUCT,
    ("user_event_count", "user_value_mean", "item_event_count", "item_value_mean"),
    "Product of the user's and the item's smoothed mean, each as its distance from the mean of all values",
)
CONTEXT = (REQUEST_HOUR, REQUEST_WEEKDAY, REQUEST_SEASON)
ELAPSED = (USER_RECENCY, USER_TENURE, ITEM_RECENCY, ITEM_TENURE)
_OF_EVERY_SCHEMA = (*CONTEXT, *ELAPSED, ITEM_DECAYED_COUNT, MEAN_PRODUCT)
_MATCH = "_match"


def numeric_match(attribute: Attribute) -> OnDemandFeature:
    """Return how near an item's number is to those of the items that the user had to do with."""
    name = attribute.name
    return OnDemandFeature(
        f"{name}{_MATCH}",
        Computation.NUMERIC_MATCH,
        (f"item_{name}", f"user_{name}_mean", f"user_{name}_std"),
        f"How many of the user's standard deviations the item's {name} lies from the user's mean",
    )


def term_match(attribute: Attribute) -> OnDemandFeature:
    """Return how many of an item's terms the user likes most."""
    name = attribute.name
    return OnDemandFeature(
        f"{name}{_MATCH}",
        Computation.TERM_MATCH,
        (f"item_{name}", f"user_top_{name}"),
        f"Share of the item's {name} that are among the user's top",
    )


def check_on_demand(names: Iterable[str]) -> None:
    """Raise ValueError for names that are no computation, and no on-demand feature that any schema gives."""
    known = sorted({*map(str, Computation), *(each.name for each in _OF_EVERY_SCHEMA)})
    if unknown := sorted(name for name in set(names) - set(known) if not name.endswith(_MATCH)):
        msg = f"on_demand {unknown}: expected names among {known}, or <attribute>{_MATCH}; correct or remove them"
        raise ValueError(msg)


@cache
def on_demand(schema: Schema) -> tuple[OnDemandFeature, ...]:
    """Return every feature that follows from a schema and exists at request time alone.

    Raises:
        ValueError: One is made of a column that no ranking model reads.
    """
    matches = (
        numeric_match(attribute) if attribute.kind is Kind.NUMERIC else term_match(attribute)
        for attribute in schema.item_attributes
        if attribute.kind is not Kind.TEXT
    )
    features = (*_OF_EVERY_SCHEMA, *matches)
    known = {REQUEST_TIME.name} | {column.name for column in declared(schema).ranking.columns}
    for feature in features:
        if absent := sorted(set(feature.inputs) - known):
            msg = f"on-demand feature {feature.name}: expected inputs of the ranking models, {absent} are none"
            raise ValueError(msg)
    return features
