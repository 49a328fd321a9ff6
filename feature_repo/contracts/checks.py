"""What must hold of the lake before anything is computed from it, derived from what is declared elsewhere.

Types, nulls, keys and references follow from the datasets, range, step and event types from the data set's schema.
Volume and distribution are judged against recent partitions.

A check's severity says what its failure means: an error ends the run before anything is computed, a warning is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import (
    EVENT_TYPE,
    EVENTS,
    ITEM_ID,
    ITEMS,
    RELATIONS,
    USER_ID,
    USERS,
    VALUE,
    items_dataset,
    relation_datasets,
    users_dataset,
)
from feature_repo.contracts.schemas import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_repo.contracts.columns import Dtype
    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.schemas import Schema

PSI_MAJOR = 0.25
"""Above this population stability index two distributions count as different ones: the usual rule of thumb."""
VOLUME_RATIO = 5.0
"""How many times more, or fewer, events than the median of the recent days a day may have."""


class Severity(StrEnum):
    """What a failure means."""

    ERROR = "error"
    """The run ends before anything is computed: figures from such data would be wrong."""
    WARNING = "warning"
    """The data may be right and yet unusual: a person should look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold of a dataset; the kinds below say what."""

    dataset: str
    column: str = ""
    """Empty where it is about whole rows."""
    severity: Severity = Severity.ERROR

    @property
    def kind(self) -> str:
        """The kind's name in one word, the last part of `name`."""
        return type(self).__name__.lower()

    @property
    def name(self) -> str:
        """Its name, such as `events.value.range`; what KESTREL_CHECK_ACCEPTED takes."""
        return ".".join(part for part in (self.dataset, self.column, self.kind) if part)

    @property
    def expected(self) -> str:
        """What is wanted, for a person."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Type(Check):
    """The column is there and has the declared type."""

    dtype: Dtype
    is_list: bool = False

    @property
    def expected(self) -> str:
        """The type in the contracts' words."""
        return f"a list of {self.dtype}" if self.is_list else str(self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Present(Check):
    """No row is without a value."""

    @property
    def expected(self) -> str:
        """What is wanted."""
        return "a value in every row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(Check):
    """Every value lies between two, both included; a missing bound is none."""

    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        """Refuse a range that holds nothing, or everything."""
        if self.minimum is None and self.maximum is None:
            msg = f"check {self.name}: expected a minimum or a maximum, received neither"
            raise ValueError(msg)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            msg = f"check {self.name}: expected minimum <= maximum, received {self.minimum} and {self.maximum}"
            raise ValueError(msg)

    @property
    def expected(self) -> str:
        """The bounds."""
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        return f"at most {self.maximum:g}" if self.minimum is None else f"{self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Check):
    """Every value is a whole number of steps."""

    step: float

    def __post_init__(self) -> None:
        """Refuse a step that leads nowhere."""
        if self.step <= 0:
            msg = f"check {self.name}: expected a step above 0, received {self.step}"
            raise ValueError(msg)

    @property
    def expected(self) -> str:
        """The step."""
        return f"steps of {self.step:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf(Check):
    """Every value is one of those listed."""

    values: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The list."""
        return "one of " + ", ".join(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique(Check):
    """No two rows share a key."""

    key: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The key."""
        return f"one row for each {', '.join(self.key)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Check):
    """Every value is the key of a row of another dataset."""

    to: str
    key: str = ""
    """That dataset's column, where it has another name than this one."""

    @property
    def expected(self) -> str:
        """The other dataset."""
        return f"a row of {self.to}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Check):
    """The interval has an event at all, where the recent past had many."""

    @property
    def expected(self) -> str:
        """What is wanted."""
        return "at least one event in the interval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Check):
    """Each day of the interval has about as many events as the recent days, or lies within what these have seen."""

    ratio: float

    @property
    def expected(self) -> str:
        """The corridor."""
        return f"between 1/{self.ratio:g} and {self.ratio:g} times the median of the recent days, or within their range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution(Check):
    """A figure is distributed in the interval as in the recent past, by the population stability index."""

    limit: float

    @property
    def expected(self) -> str:
        """The limit."""
        return f"a population stability index of at most {self.limit:g}"


VALUE_FIGURE, TYPE_FIGURE = VALUE.name, EVENT_TYPE.name
EVENTS_PER_USER, EVENTS_PER_ITEM = "user_activity", "item_popularity"
"""Figures of the events that are no column of theirs: how many an active user, or an item, has."""


def row_checks(schema: Schema) -> tuple[Check, ...]:
    """Return what must hold of the rows of the lake's tables: types, nulls, keys, references, values."""
    structure = (check for dataset in checked_datasets(schema) for check in _structure(dataset))
    references = (*_REFERENCES, *(_OF_RELATIONS if schema.has_relations else ()))
    return (*structure, *references, *value_rules(schema))


def checked_datasets(schema: Schema) -> tuple[Dataset, ...]:
    """Return the tables of the lake that are judged: events first, then what is said of items and users."""
    return (EVENTS, items_dataset(schema), users_dataset(schema), *relation_datasets(schema))


def value_rules(schema: Schema) -> tuple[Range, Step, OneOf]:
    """Return what an event's value and type may be. Rows are refused by these at the door, too (`pipelines.checks`)."""
    value = schema.value
    return (
        Range(dataset=EVENTS.name, column=VALUE.name, minimum=value.minimum, maximum=value.maximum),
        Step(dataset=EVENTS.name, column=VALUE.name, step=value.step),
        OneOf(
            dataset=EVENTS.name,
            column=EVENT_TYPE.name,
            values=tuple(event_type.name for event_type in schema.event_types),
        ),
    )


def recent_checks(schema: Schema) -> tuple[Check, ...]:
    """Return what is judged against recent partitions: delivery, volume, and the distribution of each figure."""
    return (
        Delivery(dataset=EVENTS.name),
        Volume(dataset=EVENTS.name, ratio=VOLUME_RATIO, severity=Severity.WARNING),
        *(
            Distribution(dataset=EVENTS.name, column=figure, limit=PSI_MAJOR, severity=Severity.WARNING)
            for figure in _figures(schema)
        ),
    )


def attribute_figure(dataset: str, attribute: str) -> str:
    """Return the name of the figure that an attribute of items or users is among the events."""
    return f"{dataset}.{attribute}"


_REFERENCES = (
    Reference(dataset=EVENTS.name, column=ITEM_ID.name, to=ITEMS),
    Reference(dataset=EVENTS.name, column=USER_ID.name, to=USERS),
)


_OF_RELATIONS = tuple(
    Reference(dataset=RELATIONS.name, column=name, to=USERS, key=USER_ID.name) for name in RELATIONS.key
)


def _structure(dataset: Dataset) -> Iterator[Check]:
    for column in dataset.columns:
        yield Type(dataset=dataset.name, column=column.name, dtype=column.dtype, is_list=column.length != 0)
        if not column.nullable:
            yield Present(dataset=dataset.name, column=column.name)
    yield Unique(dataset=dataset.name, key=dataset.key)


def _figures(schema: Schema) -> Iterator[str]:
    """Yield the figures that can differ: one value or one type for all is no distribution."""
    if schema.value.minimum < schema.value.maximum:
        yield VALUE_FIGURE
    if len(schema.event_types) > 1:
        yield TYPE_FIGURE
    yield from (EVENTS_PER_USER, EVENTS_PER_ITEM)
    for dataset, attributes in ((ITEMS, schema.item_attributes), (USERS, schema.user_attributes)):
        yield from (attribute_figure(dataset, each.name) for each in attributes if each.kind is not Kind.TEXT)
