"""What is computed about users and items, keyed by what, and which model reads it: all of it follows from the schema.

A feature view's name carries the hash of its definition (`user_activity_1a2b3c4d`), offline and in Redis alike: a
changed feature never overwrites what the serving champion reads.

Every row of a feature group holds what was known *after* the events at its `event_time`. Whoever joins features to a
label takes the latest row *strictly before* the label's time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding, Scalar, check_distinct, definition_hash
from feature_repo.contracts.datasets import (
    EVENT_TIME,
    EVENT_TYPE,
    ITEM_ID,
    ITEMS,
    RELATIONS,
    USER_ID,
    USERS,
    items_dataset,
)
from feature_repo.contracts.schemas import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from feature_repo.contracts.schemas import Attribute, Schema


MISSING = -1.0
"""What a figure is where there is nothing to compute it from."""


class Freshness(StrEnum):
    """When a group gets a new row."""

    PER_EVENT = "per_event"
    """One row for each (key, time) that has an event, partitioned by event date."""
    DAILY = "daily"
    """One row for each (key, day) on which a figure changes, because an event enters a window of whole days or leaves
    it, or because the day's events say something else of the key; stamped with the day's last microsecond, when it is
    complete, partitioned by date. So the latest row before any moment is exact as of that moment's midnight."""
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
    """How long a row counts as known after its event time, on the platform's clock; 0 is for ever (decision 0092)."""
    window: str = "all time"
    """What its values look back on, for people; a column may say otherwise of itself."""
    source: str = "events"
    """The tables that it is computed from."""
    owner: str = "data plane: features"
    """Who answers for it: the plane, and what of it writes the values."""
    streamed: bool = False
    """Whether the stream job writes it online, too, between two refreshes."""
    lookback_days: int = 0
    """A row follows from the events of so many days before its own, and of its own; 0 is all of history."""

    def __post_init__(self) -> None:
        """Refuse a lifetime that makes no sense: rows valid for all time are stamped 1970."""
        if self.ttl_days < 0 or (self.ttl_days and self.freshness is Freshness.STATIC):
            msg = (
                f"feature group {self.name}: expected ttl_days of 0 or more, and 0 where rows are valid for all time, "
                f"received {self.ttl_days} ({self.freshness})"
            )
            raise ValueError(msg)

    def is_too_old(self, as_of: datetime, now: datetime) -> bool:
        """Return whether a row of the event time `as_of` is older at `now` than it may be."""
        return self.ttl_days > 0 and now - as_of > timedelta(days=self.ttl_days)

    @property
    def by_date(self) -> bool:
        """Whether the group's table is partitioned by date."""
        return self.freshness in {Freshness.PER_EVENT, Freshness.DAILY}

    @property
    def time_column(self) -> Column:
        """The column that carries the group's event time where rows of several groups are joined into one."""
        name = f"{self.name}_{EVENT_TIME.name}"
        return Column(name, Dtype.TIMESTAMP, f"Event time of the row of {self.name}", nullable=True)

    @property
    def definition(self) -> dict[str, object]:
        """Whatever, if changed, changes the values that readers of the group get."""
        lifetime = {"ttl_days": self.ttl_days} if self.ttl_days else {}
        return {
            "entity": self.entity.name,
            "freshness": self.freshness.value,
            "features": [column.definition for column in self.features],
            "parameters": dict(self.parameters),
            **lifetime,
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
        check_distinct(f"features of the service {self.name}", (column.name for column in self.columns))

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
_LAST_EVENTS = f"the last {LAST_ITEMS} events"
_LAST_SESSION = "the last session"
_BATCH_AND_STREAM = "data plane: features, stream"
TOP_TERMS = 5
ITEM_TERMS = 3
SEQUENCE_ITEMS = 50
"""So many events a sequence model reads."""
_SEQUENCE = f"the last {SEQUENCE_ITEMS} events"
CIRCLE_ITEMS = 50
"""So many items of what others liked are kept for a user who follows them."""
SESSION_GAP_S = 1800
"""A session ends when nothing happens for longer than so many seconds."""
WINDOW_DAYS = (7, 30, 90)
"""Whole days that a window holds, the last of them the row's own."""
TREND_DAYS, TREND_BASE_DAYS = 7, 30
"""A trend compares the events a day of the last days with those of the days before these."""
TREND_PSEUDO_COUNT = 5
"""So many events are taken to have happened in the trend's days, and in proportion in those before."""
HALF_LIFE_DAYS = 14
"""In so many days an event comes to count half as much."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Every feature group of a schema. One that it has nothing for, as of users without attributes, is None."""

    schema: Schema
    user_activity: FeatureGroup
    user_session: FeatureGroup
    user_windows: FeatureGroup
    user_profile: FeatureGroup | None
    user_relations: FeatureGroup | None
    item_activity: FeatureGroup
    item_windows: FeatureGroup
    item_profile: FeatureGroup | None
    user_sequence: FeatureGroup
    user_history: FeatureGroup
    user_liked_items: FeatureGroup
    user_circle: FeatureGroup | None
    user_state: FeatureGroup

    def __post_init__(self) -> None:
        """Refuse attributes by which two things would have one name; ValueError says which.

        Features lie beside their keys and the times of their groups, those of an item in the catalogue beside what is
        said of it, and terms are looked up by the attribute's own name. An attribute is `item_<name>` wherever event
        rows say it, also where no feature is made of it.
        """
        schema = self.schema
        said = (("item", schema.item_attributes), ("user", schema.user_attributes))
        texts = (f"{owner}_{each.name}" for owner, some in said for each in some if each.kind is Kind.TEXT)
        features = (column.name for group in self.groups for column in group.features)
        times = (group.time_column.name for group in self.groups)
        own = (
            USER_ID.name,
            USER_ID.vocabulary,
            EVENT_TIME.name,
            EVENT_TYPE.name,
            ITEM_ID.vocabulary,
            *items_dataset(schema).column_names,
        )
        check_distinct("columns and vocabularies", (*own, *times, *features, *texts))

    @property
    def ranking(self) -> FeatureService:
        """What ranking models read."""
        return FeatureService("ranking", (*self.user_ranking, *self.item_ranking))

    @property
    def ranking_windows(self) -> FeatureService:
        """The same and the windows: what a training set for ranking has for whoever asks for it."""
        known = self.ranking.groups
        windows = (group for group in (self.user_windows, self.item_windows) if group not in known)
        return FeatureService("ranking_windows", (*known, *windows))

    @property
    def ranking_sequences(self) -> FeatureService:
        """The same and the last events: most of a row's bytes, so that only who asks for them has them."""
        return FeatureService("ranking_sequences", (*self.ranking_windows.groups, self.user_sequence))

    @property
    def retrieval(self) -> FeatureService:
        """What retrieval models read: the user's side and the item's, each for a tower of its own."""
        return FeatureService("retrieval", self.ranking_sequences.groups)

    @property
    def services(self) -> tuple[FeatureService, ...]:
        """Every service. What is known as of a label's time is in one of them; what is LATEST can be in none."""
        return (self.ranking, self.ranking_windows, self.ranking_sequences, self.retrieval)

    @property
    def known_by_time(self) -> FeatureService:
        """Every group that is known as of a label's time, so that a model can learn from it."""
        groups = {group.name: group for service in self.services for group in service.groups}
        return FeatureService("known_by_time", tuple(groups.values()))

    @property
    def user_ranking(self) -> tuple[FeatureGroup, ...]:
        """The groups of users that ranking models read."""
        groups = (self.user_activity, self.user_session, self.user_profile, self.user_relations)
        return tuple(group for group in groups if group is not None)

    @property
    def item_ranking(self) -> tuple[FeatureGroup, ...]:
        """The groups of items that ranking models read."""
        return tuple(group for group in (self.item_activity, self.item_profile) if group is not None)

    @property
    def groups(self) -> tuple[FeatureGroup, ...]:
        """Every group."""
        return (*self.retrieval.groups, *self.user_latest, self.user_state)

    @property
    def users(self) -> tuple[FeatureGroup, ...]:
        """The groups of users that recommenders can read, which lie in one hash online."""
        return (*self.user_ranking, self.user_windows, self.user_sequence, *self.user_latest)

    @property
    def items(self) -> tuple[FeatureGroup, ...]:
        """The groups of items that recommenders read, which lie in the catalogue."""
        return (*self.item_ranking, self.item_windows)

    @property
    def user_unstreamed(self) -> tuple[FeatureGroup, ...]:
        """Those of `users` that events say nothing of: the stream writes that nothing is known of a new user."""
        return tuple(group for group in self.users if not group.streamed)

    @property
    def user_latest(self) -> tuple[FeatureGroup, ...]:
        """The groups of users that recall and its filter read, of which only the latest row is known."""
        groups = (self.user_history, self.user_liked_items, self.user_circle)
        return tuple(group for group in groups if group is not None)


@cache
def declared(schema: Schema) -> Declared:
    """Return the feature groups that follow from a schema."""
    return Declared(
        schema,
        user_activity=_user_activity(schema),
        user_session=_user_session(schema),
        user_windows=_windows("user", USER_ID, schema),
        user_profile=_user_profile(schema),
        user_relations=_USER_RELATIONS if schema.has_relations else None,
        item_activity=_item_activity(schema),
        item_windows=_windows("item", ITEM_ID, schema),
        item_profile=_item_profile(schema),
        user_sequence=_user_sequence(schema),
        user_history=_USER_HISTORY,
        user_liked_items=_user_liked_items(schema),
        user_circle=_user_circle(schema) if schema.has_relations else None,
        user_state=_user_state(schema),
    )


def _mean(name: str, meaning: str, window: str = "") -> Column:
    return Column(name, Dtype.FLOAT32, meaning, missing=MISSING, encoding=Encoding.STANDARD, window=window)


def _count(name: str, meaning: str, window: str = "") -> Column:
    return Column(name, Dtype.INT64, meaning, missing=0, encoding=Encoding.STANDARD, curve=Curve.LOG, window=window)


def _moment(name: str, meaning: str) -> Column:
    """Return a time, of which models read how long ago it was (`on_demand`)."""
    return Column(name, Dtype.INT64, meaning, missing=0)


def _strings(name: str, vocabulary: str, length: int, meaning: str) -> Column:
    return Column(
        name, Dtype.STRING, meaning, length=length, missing="", encoding=Encoding.VOCABULARY, vocabulary=vocabulary
    )


def _counting(schema: Schema) -> dict[str, Scalar]:
    """Return what decides which events are counted, and in which steps."""
    return {"counted": ",".join(schema.counted_types), "step": schema.value.step}


def _liking(schema: Schema) -> dict[str, Scalar]:
    """Return what decides which events say that a user likes an item."""
    return {"liked_types": ",".join(schema.positive.event_types), "liked_value": schema.positive.threshold}


def _user_activity(schema: Schema) -> FeatureGroup:
    numeric = [attribute for attribute in schema.item_attributes if attribute.kind is Kind.NUMERIC]
    terms = [attribute for attribute in schema.item_attributes if attribute.is_term]
    return FeatureGroup(
        name="user_activity",
        entity=USER_ID,
        freshness=Freshness.PER_EVENT,
        features=(
            replace(
                _strings(
                    "user_last_items", "item", LAST_ITEMS, "The items of the last events, latest first; ties by id"
                ),
                window=_LAST_EVENTS,
            ),
            Column(
                "user_last_values",
                Dtype.FLOAT32,
                "Their values, in the same order",
                length=LAST_ITEMS,
                missing=MISSING,
                window=_LAST_EVENTS,
            ),
            _count("user_event_count", "How many events the user has"),
            _mean("user_value_mean", "Mean of their values"),
            _mean("user_value_std", "Population standard deviation of their values"),
            *(
                column
                for attribute in numeric
                for column in (
                    _mean(f"user_{attribute.name}_mean", f"Mean {attribute.name} of the events' items, where known"),
                    _mean(f"user_{attribute.name}_std", f"Population standard deviation of that {attribute.name}"),
                )
            ),
            *(
                _strings(
                    f"user_top_{attribute.name}",
                    attribute.name,
                    TOP_TERMS,
                    f"The {attribute.name} liked most often, most first; ties by name",
                )
                for attribute in terms
            ),
        ),
        meaning="What the user has done so far",
        parameters=MappingProxyType(
            {
                **_counting(schema),
                "last_items": LAST_ITEMS,
                "top_terms": TOP_TERMS,
                **_liking(schema),
                **{f"step_{attribute.name}": attribute.step for attribute in numeric},
                **_reductions(schema.item_attributes),
            }
        ),
        source="events, items",
        owner=_BATCH_AND_STREAM,
        streamed=True,
    )


def _user_state(schema: Schema) -> FeatureGroup:
    """Return what the streamed groups are made of, in whole numbers: the stream counts on from it.

    The last events are in `user_sequence`, too, and what was liked when in `user_liked_items`. They are here as well
    because the stream has to begin anew from what the batch knew: a corrected event takes back what the stream has made
    of it, and no list of the latest items says what would be there without it. Times from which an order or a session
    follows are exact here.
    """
    numeric = ("value", *(attribute.name for attribute in schema.item_attributes if attribute.kind is Kind.NUMERIC))
    terms = tuple(attribute.name for attribute in schema.item_attributes if attribute.is_term)
    return FeatureGroup(
        name="user_state",
        entity=USER_ID,
        freshness=Freshness.LATEST,
        features=(
            Column("state_last_time", Dtype.INT64, "Microseconds since 1970 of the last event, counted or not"),
            *(
                Column(f"state_last_{name}", dtype, meaning, length=-1, window=_SEQUENCE)
                for name, dtype, meaning in (
                    ("items", Dtype.STRING, "The items of the last counted events, latest first"),
                    ("times", Dtype.INT64, "When these were, in seconds since 1970"),
                    ("types", Dtype.STRING, "What these were: event types of the schema"),
                    ("values", Dtype.FLOAT32, "Their values"),
                    ("sessions", Dtype.INT64, "Which of the user's sessions each was in: 1 is the first"),
                )
            ),
            Column("state_first_counted_time", Dtype.INT64, "Microseconds of the first counted event; -1: none"),
            Column("state_last_counted_time", Dtype.INT64, "Microseconds of the last counted event; -1: none"),
            Column(
                "state_session_time",
                Dtype.INT64,
                "Microseconds of its session's first counted event; -1: none",
                window=_LAST_SESSION,
            ),
            Column("state_session_count", Dtype.INT64, "How many sessions the user has had"),
            Column(
                "state_session_event_count",
                Dtype.INT64,
                "How many counted events the last session has",
                window=_LAST_SESSION,
            ),
            *(
                Column(f"state_{name}_{part}", Dtype.INT64, f"{meaning} of the {name}, over the counted events")
                for name in numeric
                for part, meaning in (
                    ("count", "How many know"),
                    ("sum", "Sum in steps"),
                    ("squares", "Sum of squares in steps"),
                )
            ),
            *(
                column
                for name in terms
                for column in (
                    Column(f"state_{name}_terms", Dtype.STRING, f"Every counted term of {name} liked", length=-1),
                    Column(f"state_{name}_counts", Dtype.INT64, "How often, in the same order", length=-1),
                )
            ),
            Column(
                "state_liked_items",
                Dtype.STRING,
                "The items liked last, each once, latest first; ties by id",
                length=-1,
                window=_last_liked(schema),
            ),
            Column(
                "state_liked_times",
                Dtype.INT64,
                "Microseconds since 1970 of the last like of each, in the same order",
                length=-1,
                window=_last_liked(schema),
            ),
        ),
        meaning="What the user's features are made of as of the cutoff: the stream counts on from here",
        parameters=MappingProxyType(
            {
                **_user_activity(schema).parameters,
                **_user_sequence(schema).parameters,
                "liked_items": schema.liked_items,
            }
        ),
        source="events, items",
    )


def _last_liked(schema: Schema) -> str:
    return f"the last {schema.liked_items} items"


def _user_liked_items(schema: Schema) -> FeatureGroup:
    return FeatureGroup(
        name="user_liked_items",
        entity=USER_ID,
        freshness=Freshness.LATEST,
        features=(
            Column(
                "user_liked_items",
                Dtype.STRING,
                "Every item that the user likes, each once, the one liked last first; ties by id",
                length=-1,
                missing="",
            ),
            Column(
                "user_liked_times",
                Dtype.INT64,
                "When each was liked last, in seconds since 1970, in the same order",
                length=-1,
                missing=0,
            ),
        ),
        meaning="What the user likes, for recall",
        parameters=MappingProxyType({**_liking(schema), "liked_items": schema.liked_items}),
        window=_last_liked(schema),
        owner=_BATCH_AND_STREAM,
        streamed=True,
    )


def _item_activity(schema: Schema) -> FeatureGroup:
    return FeatureGroup(
        name="item_activity",
        entity=ITEM_ID,
        freshness=Freshness.PER_EVENT,
        features=(
            _count("item_event_count", "How many events the item has"),
            _mean("item_value_mean", "Mean of their values"),
            _mean("item_value_std", "Population standard deviation of their values"),
            _moment("item_first_event_time", "When the item's first event was, in seconds since 1970"),
            _moment("item_last_event_time", "When its last event was, in seconds since 1970"),
            Column(
                "item_popular_until",
                Dtype.FLOAT32,
                f"When the count of its events, each halved every {HALF_LIFE_DAYS} days, will have fallen to one, in "
                "days since 1970: what is decayed on demand needs no new row",
                missing=MISSING,
                window=f"all time, halved every {HALF_LIFE_DAYS} days",
            ),
        ),
        meaning="What users have done with the item so far",
        parameters=MappingProxyType({**_counting(schema), "half_life_days": HALF_LIFE_DAYS}),
    )


def _user_session(schema: Schema) -> FeatureGroup:
    return FeatureGroup(
        name="user_session",
        entity=USER_ID,
        freshness=Freshness.PER_EVENT,
        features=(
            _moment("user_first_event_time", "When the user's first event was, in seconds since 1970"),
            _moment("user_last_event_time", "When the last event was, in seconds since 1970"),
            _count("user_session_count", "How many sessions the user has had, the last one included"),
            _count("user_session_event_count", "How many events the last session has", _LAST_SESSION),
            Column(
                "user_session_seconds",
                Dtype.INT64,
                "How long the last session has lasted, from its first event to its last, in whole seconds",
                missing=-1,
                encoding=Encoding.STANDARD,
                curve=Curve.LOG,
                window=_LAST_SESSION,
            ),
        ),
        meaning="When the user was here, and for how long: an event after a longer pause begins a session",
        parameters=MappingProxyType({**_counting(schema), "session_gap_s": SESSION_GAP_S}),
        owner=_BATCH_AND_STREAM,
        streamed=True,
    )


def _windows(owner: str, entity: Column, schema: Schema) -> FeatureGroup:
    """Return what happened in the last days; items have a trend, too."""
    trend = (
        Column(
            "item_trend",
            Dtype.FLOAT32,
            f"Events a day of the last {TREND_DAYS} days against the {TREND_BASE_DAYS} before, smoothed, as a power of "
            "two: 1 is twice as many, -1 half as many",
            missing=0.0,
            encoding=Encoding.STANDARD,
            window=f"the last {TREND_DAYS} days, and the {TREND_BASE_DAYS} before",
        ),
    )
    lasts = {days: f"the last {days} days" for days in WINDOW_DAYS}
    longest = max(*WINDOW_DAYS, TREND_DAYS + TREND_BASE_DAYS)
    return FeatureGroup(
        name=f"{owner}_windows",
        entity=entity,
        freshness=Freshness.DAILY,
        features=(
            *(
                _count(f"{owner}_event_count_{days}d", f"How many events {last} have", last)
                for days, last in lasts.items()
            ),
            *(
                _mean(f"{owner}_value_mean_{days}d", f"Mean of their values in {last}", last)
                for days, last in lasts.items()
            ),
            *(trend if owner == "item" else ()),
        ),
        meaning=f"What happened with the {owner} in the last days, as of midnight",
        parameters=MappingProxyType(
            {
                **_counting(schema),
                "windows": ",".join(map(str, WINDOW_DAYS)),
                **(
                    {"trend": TREND_DAYS, "trend_base": TREND_BASE_DAYS, "trend_pseudo_count": TREND_PSEUDO_COUNT}
                    if owner == "item"
                    else {}
                ),
            }
        ),
        # So long after its midnight, everything that a row counted has left every window.
        ttl_days=longest,
        lookback_days=longest,
    )


def _user_sequence(schema: Schema) -> FeatureGroup:
    """Return the last events. Sessions are counted from the user's first on, so that a new event changes no other."""
    return FeatureGroup(
        name="user_sequence",
        entity=USER_ID,
        freshness=Freshness.PER_EVENT,
        features=(
            _strings(
                "user_sequence_items", "item", SEQUENCE_ITEMS, "The items of the last events, latest first; ties by id"
            ),
            Column(
                "user_sequence_times",
                Dtype.INT64,
                "When these were, in seconds since 1970",
                length=SEQUENCE_ITEMS,
                missing=0,
            ),
            _strings("user_sequence_types", "event_type", SEQUENCE_ITEMS, "What these were: event types of the schema"),
            Column("user_sequence_values", Dtype.FLOAT32, "Their values", length=SEQUENCE_ITEMS, missing=MISSING),
            Column(
                "user_sequence_sessions",
                Dtype.INT64,
                "Which of the user's sessions each was in: 1 is the first that the user had",
                length=SEQUENCE_ITEMS,
                missing=0,
            ),
        ),
        meaning="The user's last events, for sequence models",
        parameters=MappingProxyType(
            {**_counting(schema), "sequence_items": SEQUENCE_ITEMS, "session_gap_s": SESSION_GAP_S}
        ),
        window=_SEQUENCE,
        owner=_BATCH_AND_STREAM,
        streamed=True,
    )


def _user_profile(schema: Schema) -> FeatureGroup | None:
    features = tuple(_profile_feature("user", attribute) for attribute in _featured(schema.user_attributes))
    return _profile("user_profile", USER_ID, features, schema.user_attributes)


def _item_profile(schema: Schema) -> FeatureGroup | None:
    features = tuple(_profile_feature("item", attribute) for attribute in _featured(schema.item_attributes))
    return _profile("item_profile", ITEM_ID, features, schema.item_attributes)


def _featured(attributes: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    return tuple(attribute for attribute in attributes if attribute.kind is not Kind.TEXT)


def _profile_feature(owner: str, attribute: Attribute) -> Column:
    """Return an attribute as a feature: what an item and a user say of the same name is of one vocabulary."""
    name = f"{owner}_{attribute.name}"
    vocabulary = attribute.name if owner == "item" else name
    match attribute.kind:
        case Kind.MULTI_VALUED:
            return _strings(name, vocabulary, ITEM_TERMS, f"{attribute.meaning}, the first {ITEM_TERMS}")
        case Kind.CATEGORICAL:
            return _strings(name, vocabulary, 0, attribute.meaning)
        case _:
            as_is = _mean(name, attribute.meaning)
            return replace(as_is, encoding=attribute.encoding, curve=attribute.curve, buckets=attribute.buckets)


def _profile(
    name: str, entity: Column, features: tuple[Column, ...], attributes: tuple[Attribute, ...]
) -> FeatureGroup | None:
    """Return what is said of users or items: by the source for all time, or by event rows as of each midnight."""
    if not features:
        return None
    owner = name.removesuffix("_profile")
    reductions = _reductions(_featured(attributes))
    return FeatureGroup(
        name,
        entity,
        Freshness.DAILY if reductions else Freshness.STATIC,
        features,
        f"What event rows say of the {owner}, as of midnight" if reductions else f"What the source says of the {owner}",
        MappingProxyType({"terms": ITEM_TERMS, **reductions}),
        window="all days before" if reductions else "none: it does not change",
        source="events" if reductions else ITEMS if entity is ITEM_ID else USERS,
        owner="data plane: features" if reductions else "data plane: features; the source, for what it says",
    )


def _reductions(attributes: tuple[Attribute, ...]) -> dict[str, Scalar]:
    """Return how derived attributes follow from event rows; nothing for those that the source states."""
    return {f"reduce_{each.name}": each.reduction.value for each in attributes if each.reduction}


_USER_RELATIONS = FeatureGroup(
    name="user_relations",
    entity=USER_ID,
    freshness=Freshness.DAILY,
    features=(
        _count("user_followed_count", "How many others the user follows"),
        _count("user_follower_count", "How many others follow the user"),
    ),
    meaning="Who follows whom, as of midnight",
    source=RELATIONS.name,
)


def _user_circle(schema: Schema) -> FeatureGroup:
    return FeatureGroup(
        name="user_circle",
        entity=USER_ID,
        freshness=Freshness.LATEST,
        features=(
            Column(
                "user_circle_items",
                Dtype.STRING,
                "What others whom the user follows liked last, each item once, latest first; ties by id",
                length=-1,
                missing="",
                window=f"the last {CIRCLE_ITEMS} items",
            ),
        ),
        meaning="What the user's circle likes, for recall",
        parameters=MappingProxyType({**_liking(schema), "circle_items": CIRCLE_ITEMS}),
        source=f"{RELATIONS.name}, events",
    )


_USER_HISTORY = FeatureGroup(
    name="user_history",
    entity=USER_ID,
    freshness=Freshness.LATEST,
    features=(
        Column("user_seen_items", Dtype.STRING, "Every item the user has an event with, sorted", length=-1, missing=""),
    ),
    meaning="The user's whole history, for the filter of what was seen",
    owner=_BATCH_AND_STREAM,
    streamed=True,
)
