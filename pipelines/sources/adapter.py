"""What an adapter of a kind of source gives: events as typed columns in DuckDB, items and users as tables.

An adapter reads and never judges: which values are allowed follows from the schema (`pipelines.checks`). Adapters:
`published` (the layouts of MovieLens) and `mapped` (whatever a YAML describes, Online Retail among it).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    import duckdb
    import pyarrow as pa

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.schemas import Attribute, Reduction, Schema

TYPED_EVENTS = (
    "_line",
    "_fault",
    "_fault_column",
    "_fault_expected",
    "_fault_received",
    "user_id",
    "item_id",
    "event_type",
    "value",
    "micros",
    "_user_text",
    "_item_text",
    "_type_text",
    "_value_text",
    "_time_text",
    "_skip",
)
"""The columns of an event part's query, before those of the attributes that are derived.

`_fault` is the reason why the row could not be read at all, null where it could. `value` is a DOUBLE and `micros` the
microseconds since 1970, null where they are none. The texts are what the row had. `_skip` is the number of the rule by
which the row is left out, null where none applies. For each derived attribute: its column, and that of its text.

Whatever is no attribute, and could have the name of one, begins with an underscore: no attribute's name does.
"""


def text_column(name: str) -> str:
    """Return the column of the text that an attribute, or a title, was read from."""
    return f"_text_{name}"


REPEATED = "repeated"
"""The reason by which rows are counted that went into another one, beside those of the rules of a source."""


class Duplicates(StrEnum):
    """What becomes of rows of one ingestion that describe one event: equal user, item, type and time.

    Of an event that the lake has already, whatever a later part makes of its rows is a correction (decision 0086).
    """

    REFUSE = "refuse"
    """The first counts, the others go to the quarantine."""
    FIRST = "first"
    LAST = "last"
    SUM = "sum"
    """One event with the sum of the values, as of the lines of one invoice."""


@dataclass(frozen=True, slots=True)
class TimeField:
    """What the source calls a time, for messages."""

    column: str
    expected: str
    """What a time looks like, in words."""
    number_expected: str = ""
    """What is wanted where a time is a bare number, though none is expected."""
    unit: str = ""
    """Of times that are numbers, where a mapping says it: s, ms, us or ns."""


@dataclass(frozen=True, slots=True)
class EventFields:
    """What the source calls the fields of an event, for messages."""

    user: str
    item: str
    event_type: str
    value: str
    time: TimeField


@dataclass(frozen=True, slots=True)
class RelationFields:
    """What the source calls the fields of a relation between users, for messages."""

    user: str
    other: str
    since: TimeField | None
    """None where the source does not say since when."""


@dataclass(frozen=True, slots=True)
class Derived:
    """An attribute of items or users that is read off event rows."""

    owner: str
    """`item` or `user`."""
    column: Column
    """As the observations dataset stores it; its name begins with the owner."""
    attribute: Attribute | None
    """None for the title."""
    reduction: Reduction
    source_column: str
    separator: str | None = None
    """Of a multi-valued one that is written as text."""

    @property
    def target(self) -> str:
        """The column of the items or users dataset."""
        return self.column.name.removeprefix(f"{self.owner}_")


class TypedPart(Protocol):
    """One file of events, items, users or relations."""

    @property
    def file(self) -> str:
        """Its name, relative to the source."""

    def typed(self, database: duckdb.DuckDBPyConnection) -> AbstractContextManager[str]:
        """Give a query of typed columns; valid within the block, read once.

        Of events: `TYPED_EVENTS` and what is derived. Of items and users: the first five of those, `id`, `id_text`,
        `title` (of items), and the attributes, each with its text. Of relations: the first five, `user_id`,
        `other_user_id`, `micros`, and the three texts.

        Raises:
            SourceError: the file turns out to be damaged on the way.
        """


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """The rows of a table that passed, those that did not, and how many there were in each file."""

    accepted: pa.Table
    refused: pa.Table
    rows: Mapping[str, int]


class Source(Protocol):
    """An opened source, whose kind and files are known."""

    @property
    def name(self) -> str:
        """What a person calls the kind of source."""

    @property
    def is_mapped(self) -> bool:
        """Whether a mapping says how it is read, whose keys may mend what is refused."""

    @property
    def schema(self) -> Schema:
        """What the data set has."""

    @property
    def meaning(self) -> Mapping[str, object]:
        """What decides, beside the schema, how rows are read, as JSON: parts of one data set have the same."""

    @property
    def fields(self) -> EventFields:
        """What the source calls the fields of an event."""

    @property
    def duplicates(self) -> Duplicates:
        """What becomes of rows that describe one event."""

    @property
    def skips(self) -> Sequence[str]:
        """Names of the rules by which rows are left out, counted and not refused."""

    @property
    def derived(self) -> Sequence[Derived]:
        """The attributes that are read off event rows."""

    @property
    def derives_items(self) -> bool:
        """Whether an item is whatever has an event."""

    def check(self) -> None:
        """Look at the beginning of every file; SourceError for a fault that no single row is to blame for."""

    def event_parts(self) -> Iterator[TypedPart]:
        """Yield the files of events in their order."""

    def items(self) -> CheckedTable | None:
        """Read and check the items; None where the source has no file of them, or they are derived."""

    def users(self) -> CheckedTable | None:
        """Read and check the users; None as for items."""

    def relations(self, clock: datetime) -> CheckedTable | None:
        """Read and check who follows whom, at `clock` at the latest; None where the source does not say."""
