"""What a data set has: its kinds of events, their values, and the attributes of its items and users.

A schema is declared once: by the adapter of a published layout, or by whoever brings their own events. The tables of
items and users, the feature groups and the inputs of the models follow from it (`datasets`, `features`, `signatures`).
Records that are switched by (training set, online snapshot) carry the schema that they were made with.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from feature_repo.contracts.columns import NUMBER_ENCODINGS, Curve, Encoding, float32
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.publishing import CorruptRecordError, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_repo.contracts.places import Namespace

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED = frozenset({"item_id", "user_id", "title", "event_time", "event_type", "value", "label", "score"})
_MOST_STEPS = float(1 << 24)
"""float32, in which values are stored, counts whole steps exactly up to here."""
LIKED_ITEMS, MOST_LIKED_ITEMS = 1_000, 100_000
"""How many liked items are kept for each user where nothing is said of it, and how many may be."""


class SchemaError(JobError):
    """A schema makes no sense; the message names the declaration, what was expected and what was received."""

    def __init__(self, message: str, *key: str) -> None:
        """`key` leads to what is wrong, as `Schema` calls it: ("value",)."""
        super().__init__(message)
        self.key = key


class Kind(StrEnum):
    """What an attribute's values are."""

    CATEGORICAL = "categorical"
    """One term, such as a country."""
    MULTI_VALUED = "multi_valued"
    """Any number of terms, such as genres."""
    NUMERIC = "numeric"
    """A number, such as a price."""
    TEXT = "text"
    """Free text, shown to people; no feature is made of it."""


class Reduction(StrEnum):
    """How one value of an item or a user is made of what its event rows said by the end of a day."""

    LATEST = "latest"
    """That of the latest event; ties by the value."""
    MOST_COMMON = "most_common"
    """That of most rows; ties by the value."""
    MEDIAN = "median"
    """Of numbers: the middle one, the lower of two."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something that a source says of an item or a user."""

    name: str
    kind: Kind
    meaning: str = ""
    step: float = 1.0
    """Of a numeric one: values are rounded to whole steps, so that sums of them are exact."""
    reduction: Reduction | None = None
    """Of a derived one: how its value follows from the event rows so far, so that it changes with time. None where the
    source states it, for all time."""
    encoding: Encoding = Encoding.STANDARD
    """Of a numeric one: how models read it, as `Column` has it."""
    curve: Curve = Curve.LINEAR
    buckets: int = 0

    def __post_init__(self) -> None:
        """Refuse a name that is none, or is taken, and an encoding that the kind does not have."""
        check_name(self.name, "attribute")
        if self.name in _RESERVED:
            msg = f"attribute {self.name!r}: expected a name other than {sorted(_RESERVED)}; rename it"
            raise SchemaError(msg)
        _check_step(self.step, f"attribute {self.name}")
        self._check_encoding()

    def read_by_default(self) -> Self:
        """Return the same, read by models as where nothing is said of it."""
        return dataclasses.replace(self, **_READ_BY_DEFAULT)

    def _check_encoding(self) -> None:
        own = [name for name, default in _READ_BY_DEFAULT.items() if getattr(self, name) != default]
        fault = ""
        if own and self.kind is not Kind.NUMERIC:
            fault = f"expected {' and '.join(own)} for a numeric attribute only, this one is {self.kind}; remove it"
        elif self.encoding not in NUMBER_ENCODINGS:
            known = ", ".join(sorted(NUMBER_ENCODINGS))
            fault = f"expected an encoding of {known}, received {self.encoding}; correct it"
        elif self.buckets < 2 if self.encoding is Encoding.QUANTILES else self.buckets:  # noqa: PLR2004 - one is none
            fault = (
                f"expected buckets, two or more, for the encoding quantiles and for no other, received {self.buckets} "
                f"for {self.encoding}; correct one of them"
            )
        if fault:
            msg = f"attribute {self.name!r}: {fault}"
            raise SchemaError(msg)

    @property
    def is_term(self) -> bool:
        """Whether its values are terms of a vocabulary."""
        return self.kind in {Kind.CATEGORICAL, Kind.MULTI_VALUED}


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event."""

    name: str
    meaning: str = ""
    counted: bool = True
    """Whether features count it. One that is not counted is kept, and the item counts as seen."""

    def __post_init__(self) -> None:
        """Refuse a name that is none."""
        check_name(self.name, "event type", "event_types", self.name)


@dataclass(frozen=True, slots=True)
class ValueRange:
    """What an event's value may be: whole steps from `minimum` to `maximum`, both included."""

    minimum: float
    maximum: float
    step: float = 1.0
    meaning: str = ""

    def __post_init__(self) -> None:
        """Refuse a range without values, and one that float32 cannot count the steps of."""
        _check_step(self.step, "value")
        if not (math.isfinite(self.maximum) and 0 <= self.minimum <= self.maximum):
            msg = (
                f"value: expected 0 <= minimum <= maximum, received {self.minimum:g} and {self.maximum:g}; correct them"
            )
            raise SchemaError(msg, "value")
        if self.maximum / self.step > _MOST_STEPS:
            msg = (
                f"value: expected at most {_MOST_STEPS:.0f} steps, received {self.minimum:g} to {self.maximum:g} in "
                f"steps of {self.step:g}; choose a larger step"
            )
            raise SchemaError(msg, "value")


@dataclass(frozen=True, slots=True)
class Positive:
    """Which events say that the user likes the item."""

    event_types: tuple[str, ...]
    min_value: float

    @property
    def threshold(self) -> float:
        """The least value as values are stored; every comparison is with this one."""
        return float32(self.min_value)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a data set has."""

    event_types: tuple[EventType, ...]
    value: ValueRange
    positive: Positive
    item_attributes: tuple[Attribute, ...] = ()
    user_attributes: tuple[Attribute, ...] = ()
    is_implicit: bool = False
    """Whether users only show what they like: then what a model is to tell apart from it is drawn from other items."""
    has_relations: bool = False
    """Whether it is known who follows whom."""
    liked_items: int = LIKED_ITEMS
    """So many of the items that a user liked last are kept for recall."""

    def __post_init__(self) -> None:
        """Refuse names that occur twice, attributes of two origins, and positives of types that are not counted."""
        if not self.event_types:
            msg = "schema: expected at least one event type, received none"
            raise SchemaError(msg)
        for key in ("event_types", "item_attributes", "user_attributes"):
            _check_distinct(key, [each.name for each in getattr(self, key)])
        for owner, attributes in (("item", self.item_attributes), ("user", self.user_attributes)):
            if len({attribute.reduction is None for attribute in attributes}) > 1:
                derived = [attribute.name for attribute in attributes if attribute.reduction]
                msg = f"schema: expected {owner} attributes that are all derived, or none, received {derived} alone"
                raise SchemaError(msg)
        counted = self.counted_types
        other = sorted(set(self.positive.event_types) - set(counted))
        if other or not self.positive.event_types:
            received = other or "none"
            msg = (
                f"positive: expected event types among the counted ones {list(counted)}, received {received}; "
                "correct it, or declare and count them"
            )
            raise SchemaError(msg, "positive", "event_types")
        if not self.value.minimum <= self.positive.min_value <= self.value.maximum:
            msg = (
                f"positive: expected a min_value in the range of values, {self.value.minimum:g} to "
                f"{self.value.maximum:g}, received {self.positive.min_value:g}; correct it, or leave it out "
                "if any value will do"
            )
            raise SchemaError(msg, "positive", "min_value")
        if not (type(self.liked_items) is int and 1 <= self.liked_items <= MOST_LIKED_ITEMS):
            msg = (
                f"liked_items: expected a whole number from 1 to {MOST_LIKED_ITEMS:,}, received {self.liked_items!r}; "
                f"correct it, or leave it out for {LIKED_ITEMS:,}"
            )
            raise SchemaError(msg, "liked_items")

    @property
    def items_are_derived(self) -> bool:
        """Whether the attributes of items are read off event rows, and so have a value as of a time only."""
        return any(attribute.reduction for attribute in self.item_attributes)

    @property
    def users_are_derived(self) -> bool:
        """Whether the attributes of users are read off event rows."""
        return any(attribute.reduction for attribute in self.user_attributes)

    @property
    def counted_types(self) -> tuple[str, ...]:
        """The names of the event types that features count."""
        return tuple(event_type.name for event_type in self.event_types if event_type.counted)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON values; `from_json` reads them."""
        record: dict[str, Any] = dataclasses.asdict(self)
        record["event_types"] = list(record["event_types"])
        record["positive"]["event_types"] = list(record["positive"]["event_types"])
        record["item_attributes"] = [_without_nothing(each) for each in record["item_attributes"]]
        record["user_attributes"] = [_without_nothing(each) for each in record["user_attributes"]]
        if not self.has_relations:
            del record["has_relations"]
        if self.liked_items == LIKED_ITEMS:
            del record["liked_items"]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; SchemaError names what does not fit."""
        try:
            return cls(
                event_types=tuple(EventType(**each) for each in record["event_types"]),
                value=ValueRange(**record["value"]),
                positive=Positive(tuple(record["positive"]["event_types"]), record["positive"]["min_value"]),
                item_attributes=tuple(_attribute(each) for each in record["item_attributes"]),
                user_attributes=tuple(_attribute(each) for each in record["user_attributes"]),
                is_implicit=record["is_implicit"],
                has_relations=record.get("has_relations", False),
                liked_items=record.get("liked_items", LIKED_ITEMS),
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = f"schema: expected the fields that this version writes, received {sorted(record)} ({error!r})"
            raise SchemaError(msg) from error


def read_schema(place: Namespace) -> Schema:
    """Return the schema of a namespace; SchemaError where nothing was ingested yet, or it cannot be read."""
    try:
        return Schema.from_json(read_json(place.schema))
    except FileNotFoundError as error:
        msg = f"namespace {place.name}: expected {place.schema}, found none; run 'python -m pipelines ingest' first"
        raise SchemaError(msg) from error


def write_schema(place: Namespace, schema: Schema) -> None:
    """Make `schema` that of the namespace; nothing is written where it is already."""
    record = schema.to_json()
    try:
        held = read_json(place.schema)
    except (FileNotFoundError, CorruptRecordError):
        held = None
    if held != record:
        write_json(place.schema, record)


def check_name(name: str, what: str, *key: str) -> str:
    """Return `name`, which becomes part of column names; SchemaError, with `key`, where it cannot."""
    if not _NAME.fullmatch(name):
        msg = (
            f"{what} {name!r}: expected up to 40 lower case letters, digits and underscores, a letter first; rename it"
        )
        raise SchemaError(msg, *key)
    return name


def _attribute(record: Mapping[str, Any]) -> Attribute:
    kinds = {kind.value for kind in Kind}
    if record.get("kind") not in kinds:
        msg = f"attribute {record.get('name')!r}: expected a kind of {sorted(kinds)}, received {record.get('kind')!r}"
        raise SchemaError(msg)
    reduction = record.get("reduction")
    fields = {
        "kind": Kind(record["kind"]),
        "reduction": None if reduction is None else Reduction(reduction),
        "encoding": Encoding(record.get("encoding", Encoding.STANDARD)),
        "curve": Curve(record.get("curve", Curve.LINEAR)),
    }
    return Attribute(**{**record, **fields})


def _without_nothing(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attribute's record without what says nothing: records are compared and hashed."""
    silent = {"reduction": None, **_READ_BY_DEFAULT}
    return {name: value for name, value in record.items() if name not in silent or value != silent[name]}


def _check_step(step: float, what: str) -> None:
    if not (math.isfinite(step) and step > 0):
        msg = f"{what}: expected a step above 0, received {step}"
        raise SchemaError(msg)


def _check_distinct(key: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        msg = f"schema: expected {key.replace('_', ' ')} of different names, received {list(names)}; rename one"
        raise SchemaError(msg, key)


_READ_BY_DEFAULT: Mapping[str, Any] = {"encoding": Encoding.STANDARD, "curve": Curve.LINEAR, "buckets": 0}
"""How models read a numeric attribute whose source says nothing of it."""

MOVIELENS = Schema(
    event_types=(EventType("rating", "The user rated the item"),),
    value=ValueRange(0.5, 5.0, 0.5, "Stars"),
    positive=Positive(("rating",), 4.0),
    item_attributes=(
        Attribute("release_year", Kind.NUMERIC, "Year of release"),
        Attribute("genres", Kind.MULTI_VALUED, "Genres in the source's order"),
    ),
    user_attributes=(
        Attribute("age", Kind.NUMERIC, "Age in years"),
        Attribute("gender", Kind.CATEGORICAL, "As the source codes it"),
        Attribute("occupation", Kind.CATEGORICAL, "As the source codes it"),
    ),
)
"""All published releases of MovieLens; those that say nothing of users leave the attributes empty."""
