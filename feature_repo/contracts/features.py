"""What is computed about users and items, keyed by what, and which model reads it.

A feature view's name carries the hash of its definition (`user_activity_1a2b3c4d`), offline and in Redis alike: a
changed feature never overwrites what the serving champion reads.

Every row of a feature group holds what was known *after* the events at its `event_time`. Whoever joins features to a
label takes the latest row *strictly before* the label's time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Dtype, Encoding, Scalar, definition_hash
from feature_repo.contracts.datasets import EVENT_TIME, ITEM_ID, USER_ID

if TYPE_CHECKING:
    from collections.abc import Mapping


class Freshness(StrEnum):
    """When a group gets a new row."""

    PER_EVENT = "per_event"
    """One row for each (key, second) that has an event, partitioned by event date."""
    STATIC = "static"
    """One row per key, valid for all time (stamped 1970-01-01)."""
    LATEST = "latest"
    """One row per key as of the cutoff; only for the online store, never joined to labels."""


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """Features that share a key and a freshness: one Feast feature view, one Parquet table."""

    name: str
    entity: Column
    freshness: Freshness
    features: tuple[Column, ...]
    meaning: str
    parameters: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    ttl_days: int = 0
    """How long a row counts as known after its event time, on the platform's clock; 0 is for ever."""

    def __post_init__(self) -> None:
        """Refuse a lifetime that makes no sense: rows valid for all time are stamped 1970."""
        if self.ttl_days < 0 or (self.ttl_days and self.freshness is Freshness.STATIC):
            msg = (
                f"feature group {self.name}: expected ttl_days of 0 or more, and 0 where rows are valid for all time, "
                f"received {self.ttl_days} ({self.freshness})"
            )
            raise ValueError(msg)

    @property
    def time_column(self) -> Column:
        """The column that carries the group's event time where rows of several groups are joined into one."""
        name = f"{self.name}_{EVENT_TIME.name}"
        return Column(name, Dtype.TIMESTAMP, f"Event time of the row of {self.name}", nullable=True)

    @property
    def definition(self) -> dict[str, object]:
        """Whatever, if changed, changes the values of the group."""
        return {
            "entity": self.entity.name,
            "freshness": self.freshness.value,
            "features": [column.definition for column in self.features],
            "parameters": dict(self.parameters),
        }

    @property
    def view_name(self) -> str:
        """The name of the feature view: the group's name and the hash of its definition."""
        return f"{self.name}_{definition_hash(self.definition)}"

    def feature_hash(self, name: str) -> str:
        """Return the hash of one feature's definition, so that models can be compared when *other* features change."""
        (column,) = (column for column in self.features if column.name == name)
        return definition_hash({**self.definition, "features": [column.definition]})


@dataclass(frozen=True, slots=True)
class FeatureService:
    """The feature groups that one kind of model reads."""

    name: str
    groups: tuple[FeatureGroup, ...]

    def __post_init__(self) -> None:
        """Refuse two features of the same name: model inputs are found by name."""
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            msg = f"feature service {self.name}: a feature name occurs twice in {names}"
            raise ValueError(msg)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All features, in the groups' order."""
        return tuple(column for group in self.groups for column in group.features)

    @property
    def views(self) -> dict[str, str]:
        """Group name → feature view name, hash included."""
        return {group.name: group.view_name for group in self.groups}

    @property
    def feature_hashes(self) -> dict[str, str]:
        """Feature name → hash of its definition."""
        return {column.name: group.feature_hash(column.name) for group in self.groups for column in group.features}

    @property
    def hash(self) -> str:
        """Changes when any of its views does."""
        return definition_hash(dict(self.views))


LAST_ITEMS = 10
TOP_GENRES = 5
ITEM_GENRES = 3
LIKED_VALUE = 4.0
"""An event of at least this value counts as liking the item. (What a model learns is the training set's setting.)"""


def _mean(name: str, meaning: str) -> Column:
    return Column(name, Dtype.FLOAT32, meaning, missing=-1.0, encoding=Encoding.STANDARD)


def _count(name: str, meaning: str) -> Column:
    return Column(name, Dtype.INT64, meaning, missing=0, encoding=Encoding.LOG_STANDARD)


def _strings(name: str, vocabulary: str, length: int, meaning: str) -> Column:
    return Column(
        name, Dtype.STRING, meaning, length=length, missing="", encoding=Encoding.VOCABULARY, vocabulary=vocabulary
    )


def _label(name: str, meaning: str) -> Column:
    return Column(name, Dtype.STRING, meaning, missing="", encoding=Encoding.VOCABULARY, vocabulary=name)


USER_ACTIVITY = FeatureGroup(
    name="user_activity",
    entity=USER_ID,
    freshness=Freshness.PER_EVENT,
    features=(
        _strings("user_last_items", "item", LAST_ITEMS, "The items rated last, latest first; ties by item id"),
        Column("user_last_values", Dtype.FLOAT32, "Their values, in the same order", length=LAST_ITEMS, missing=-1.0),
        _count("user_rating_count", "How many ratings the user has given"),
        _mean("user_rating_mean", "Their mean"),
        _mean("user_rating_std", "Their population standard deviation"),
        _mean("user_release_year_mean", "Mean release year of the items rated, where known"),
        _mean("user_release_year_std", "Population standard deviation of those years"),
        _strings("user_top_genres", "genre", TOP_GENRES, "Genres liked most often, most first; ties by name"),
    ),
    meaning="What the user has done so far",
    parameters=MappingProxyType({"last_items": LAST_ITEMS, "top_genres": TOP_GENRES, "liked_value": LIKED_VALUE}),
)

USER_PROFILE = FeatureGroup(
    name="user_profile",
    entity=USER_ID,
    freshness=Freshness.STATIC,
    features=(
        Column("user_age", Dtype.FLOAT32, "Age in years", missing=-1.0, encoding=Encoding.STANDARD),
        _label("user_gender", "As the source codes it"),
        _label("user_occupation", "As the source codes it"),
    ),
    meaning="What the source says of the user",
)

ITEM_ACTIVITY = FeatureGroup(
    name="item_activity",
    entity=ITEM_ID,
    freshness=Freshness.PER_EVENT,
    features=(
        _count("item_rating_count", "How many ratings the item has received"),
        _mean("item_rating_mean", "Their mean"),
        _mean("item_rating_std", "Their population standard deviation"),
    ),
    meaning="What users have done with the item so far",
)

ITEM_PROFILE = FeatureGroup(
    name="item_profile",
    entity=ITEM_ID,
    freshness=Freshness.STATIC,
    features=(
        _mean("item_release_year", "Year of release"),
        _strings("item_genres", "genre", ITEM_GENRES, "The first genres, in the source's order"),
    ),
    meaning="What the source says of the item",
    parameters=MappingProxyType({"item_genres": ITEM_GENRES}),
)

USER_HISTORY = FeatureGroup(
    name="user_history",
    entity=USER_ID,
    freshness=Freshness.LATEST,
    features=(
        Column("user_seen_items", Dtype.STRING, "Every item the user has an event with, sorted", length=-1, missing=""),
    ),
    meaning="The user's whole history, for the filter of what was seen",
)

RANKING_FEATURES = FeatureService("ranking", (USER_ACTIVITY, USER_PROFILE, ITEM_ACTIVITY, ITEM_PROFILE))

FEATURE_GROUPS = (*RANKING_FEATURES.groups, USER_HISTORY)
