"""Bring your own events: what a mapping may say, in the words of its YAML.

A mapping says which files hold events, items, users and their relations, which column means what, and what counts as
liking an item.
docs/bring-your-own-events.md goes through it by example.
"""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from feature_repo.contracts.columns import Curve, Encoding
from feature_repo.contracts.schemas import (
    LIKED_ITEMS,
    Attribute,
    EventType,
    Kind,
    Positive,
    Reduction,
    Schema,
    SchemaError,
    ValueRange,
)
from pipelines.sources.adapter import REPEATED, Duplicates
from pipelines.sources.file_names import ANY_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

Text = Annotated[str, Field(min_length=1, max_length=500)]
Name = Annotated[str, Field(min_length=1, max_length=40)]
Number = Annotated[float, Field(allow_inf_nan=False)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _column(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


Listed = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]
"""One text, or a list of them."""


class Part(BaseModel):
    """Anything that a mapping says: fixed once read, and nothing in it that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)


class FileKind(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSON_LINES = "json_lines"
    PARQUET = "parquet"


class CsvForm(Part):
    """How CSV files are written."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """What parts the fields; `\\t` is a tab."""
    quote: Annotated[str, Field(max_length=1)] = '"'
    """What fields may stand in; empty: nothing."""
    encoding: Text = "utf-8"
    columns: tuple[Text, ...] = ()
    """The columns' names where the files have no header."""
    decimal: Literal[".", ","] = "."
    """What parts a number's fraction."""
    long_texts: bool = False
    """Whether a quoted text may have lines with as many separators as a row; else that is a quote left open."""

    @field_validator("separator", mode="before")
    @classmethod
    def _tab(cls, value: object) -> object:
        return "\t" if value in {"\\t", "tab"} else value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            b"a".decode(value, errors="replace")
        except (LookupError, UnicodeError) as error:
            msg = f"expected an encoding of text such as utf-8 or latin-1, received {value!r}; correct it"
            raise ValueError(msg) from error
        return value

    @model_validator(mode="after")
    def _can_part(self) -> Self:
        given = {"separator": self.separator, "quote": self.quote}
        wrong = {name: text for name, text in given.items() if not text.isascii() or text in {"\n", "\r"}}
        if wrong or self.separator == self.quote:
            msg = (
                "expected an ASCII character as separator, and another one or none as quote, neither of them a line "
                f"end, received {wrong or given}; save the file with others"
            )
            raise ValueError(msg)
        return self


class Files(Part):
    """Which files, and how they are written."""

    files: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = ()
    """Names or globs, relative to the source; `**` is any number of folders (`pipelines.sources.file_names`)."""
    format: FileKind | None = None
    """By default what the names end with say: .csv, .tsv, .txt, .jsonl, .ndjson, .json, .parquet; .gz is unpacked."""
    csv: CsvForm = CsvForm()
    missing: tuple[str, ...] = ()
    """Texts that stand for no value, beside the empty one: NA, NULL."""

    @field_validator("files")
    @classmethod
    def _folders_alone(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if any(ANY_FOLDERS in part and part != ANY_FOLDERS for part in name.split("/")):
                meant = name.replace(ANY_FOLDERS, f"{ANY_FOLDERS}/*")
                msg = f"expected {ANY_FOLDERS} for whole folders, received {name!r}; write {meant!r} for instance"
                raise ValueError(msg)
        return value


class Id(Part):
    """The column of an id."""

    column: Text
    whole_number: bool = False
    """Whether `17850.0` is `17850`, as it is where a spreadsheet or pandas wrote ids as numbers."""


class When(Part):
    """A condition on one column of a row. Exactly one of the others says which."""

    column: Text
    missing: bool | None = None
    equals: Annotated[tuple[str, ...] | None, BeforeValidator(_listed)] = None
    matches: Text | None = None
    """A regular expression (RE2) that the whole text fits."""
    below: Number | None = None
    above: Number | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = self.model_fields_set - {"column"}
        if len(given) != 1:
            received = sorted(given) or "none"
            msg = f"expected exactly one of missing, equals, matches, below, above, received {received}; say one"
            raise ValueError(msg)
        return self

    @property
    def compares(self) -> bool:
        """Whether it compares numbers."""
        return self.below is not None or self.above is not None


class Skip(Part):
    """Rows that are left out on purpose: counted, not refused."""

    reason: Name
    when: When

    @field_validator("reason")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value == REPEATED:
            msg = f"expected another reason than {REPEATED!r}, which counts rows that went into another one; rename it"
            raise ValueError(msg)
        return value


class TypeCase(Part):
    """An event type, and when it is that."""

    type: Name
    when: When


class TypeOf(Part):
    """What an event is: always the same, what a column says, or by cases."""

    constant: Name | None = None
    column: Text | None = None
    mapping: AnyMapping[str, Name] | None = None
    """What the column says → event type; without it, they are the same."""
    cases: tuple[TypeCase, ...] = ()
    """The first that fits counts."""
    otherwise: Name | None = None
    """Where no case fits; without it, such a row is refused."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("constant", "column", "cases") if getattr(self, name)]
        if len(given) != 1:
            msg = f"expected exactly one of constant, column, cases, received {given or 'none'}; say one"
            raise ValueError(msg)
        if (self.mapping and not self.column) or (self.otherwise and not self.cases):
            received = "mapping without a column" if self.mapping and not self.column else "otherwise without cases"
            msg = (
                "expected mapping beside a column only, and otherwise beside cases only, received "
                f"{received}; remove it"
            )
            raise ValueError(msg)
        return self


class TimeOf(Part):
    """When an event happened."""

    column: Text
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Of numbers, counted from 1970 in UTC."""
    format: Text | None = None
    """Of texts, as strptime has it: `%d/%m/%Y %H:%M`. By default ISO 8601."""
    zone: Text = "UTC"
    """Where texts say nothing of it."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.unit and (self.format or "zone" in self.model_fields_set):
            msg = "expected a unit (of numbers, in UTC), or format and zone (of texts), received both; remove one"
            raise ValueError(msg)
        return self


class ValueOf(Part):
    """How strongly, and what is allowed."""

    constant: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    column: Text | None = None
    absolute: bool = False
    """Whether the sign is left out, as of returned quantities."""
    minimum: Number | None = None
    maximum: Number | None = None
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    meaning: str = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.constant is None) == (self.column is None):
            received = "none" if self.column is None else "both"
            msg = f"expected exactly one of constant, column, received {received}; say one"
            raise ValueError(msg)
        if self.column is not None and (self.minimum is None or self.maximum is None):
            lacking = " and ".join(name for name in ("minimum", "maximum") if getattr(self, name) is None)
            msg = f"expected minimum and maximum beside a column, as values beyond them are refused; add {lacking}"
            raise ValueError(msg)
        return self

    @property
    def range(self) -> ValueRange:
        """What is allowed; a constant allows itself, and more where rows are summed."""
        minimum = self.constant if self.minimum is None else self.minimum
        maximum = self.constant if self.maximum is None else self.maximum
        return ValueRange(minimum or 0.0, maximum or 0.0, self.step, self.meaning)


class Events(Files):
    """The files of events, and which column means what."""

    files: Listed
    user: Annotated[Id, BeforeValidator(_column)]
    item: Annotated[Id, BeforeValidator(_column)]
    time: Annotated[TimeOf, BeforeValidator(_column)]
    type: Annotated[TypeOf, BeforeValidator(_column)]
    value: Annotated[ValueOf, BeforeValidator(_column)]
    skip: tuple[Skip, ...] = ()
    duplicates: Duplicates = Duplicates.REFUSE
    each: Text | None = None
    """Of JSON lines: a key, or a path, of a list in each line, whose elements are the events. A column that begins with
    it is of the element, any other of the line."""

    def conditions(self) -> Iterator[tuple[tuple[str | int, ...], When]]:
        """Yield the keys of every condition, and the condition."""
        for number, skip in enumerate(self.skip):
            yield ("skip", number, "when"), skip.when
        for number, case in enumerate(self.type.cases):
            yield ("type", "cases", number, "when"), case.when


class AttributeOf(Part):
    """An attribute of items or users."""

    name: Name
    column: Text | None = None
    """By default that of the attribute's name."""
    kind: Kind
    separator: Annotated[str, Field(min_length=1, max_length=10)] | None = None
    """Of a multi-valued one that is written as text."""
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    meaning: str = ""
    reduce: Reduction | None = None
    """Where it is read off event rows: how one value is made of many."""
    encoding: Literal["standard", "min_max", "robust", "quantiles"] = "standard"
    curve: Curve = Curve.LINEAR
    buckets: Annotated[int, Field(ge=0, le=1000)] = 0

    @property
    def source_column(self) -> str:
        """The column that it is in."""
        return self.column or self.name

    def attribute(self, *, is_derived: bool) -> Attribute:
        """Return it as the schema has it; where it is read off event rows, the latest counts unless it says more."""
        reduction = (self.reduce or Reduction.LATEST) if is_derived else None
        return Attribute(
            self.name, self.kind, self.meaning, self.step, reduction, Encoding(self.encoding), self.curve, self.buckets
        )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.separator and self.kind is not Kind.MULTI_VALUED:
            msg = f"expected a separator for a multi_valued attribute only, this one is {self.kind}; remove it"
            raise ValueError(msg)
        if self.reduce is Reduction.MEDIAN and self.kind is not Kind.NUMERIC:
            msg = f"expected median for a numeric attribute only, this one is {self.kind}; take most_common"
            raise ValueError(msg)
        try:
            self.attribute(is_derived=False)
        except SchemaError as error:
            raise ValueError(str(error)) from error
        return self


class TitleOf(Part):
    """What items are called."""

    column: Text
    reduce: Reduction | None = None

    @field_validator("reduce")
    @classmethod
    def _fits(cls, value: Reduction | None) -> Reduction | None:
        if value is Reduction.MEDIAN:
            msg = "expected latest or most_common for a title, received median; take one of them"
            raise ValueError(msg)
        return value


class Entities(Files):
    """Items or users: of files of their own, or read off the event rows."""

    id: Annotated[Id | None, BeforeValidator(_column)] = None
    """The column of the id in their own files."""
    attributes: tuple[AttributeOf, ...] = ()

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.files) != (self.id is not None):
            received, lacking = ("files", "id") if self.files else ("id", "files")
            msg = (
                f"expected files and id together (files of their own), or neither (read off the event rows), received "
                f"{received} alone; add {lacking}, or remove it"
            )
            raise ValueError(msg)
        wrong = [each.name for each in self.attributes if self.files and each.reduce]
        if wrong:
            msg = (
                f"expected reduce only where attributes are read off the event rows, received it for {wrong}; remove it"
            )
            raise ValueError(msg)
        return self

    @property
    def declared(self) -> tuple[Attribute, ...]:
        """The attributes as the schema has them."""
        return tuple(each.attribute(is_derived=not self.files) for each in self.attributes)


class Items(Entities):
    """Items: by default, whatever has an event."""

    title: Annotated[TitleOf | None, BeforeValidator(_column)] = None
    """By default the id."""


class Relations(Files):
    """Who follows whom: a row for each two users."""

    files: Listed
    user: Annotated[Id, BeforeValidator(_column)]
    other: Annotated[Id, BeforeValidator(_column)]
    """Whom the user follows."""
    since: Annotated[TimeOf | None, BeforeValidator(_column)] = None
    """Without it, all the time."""


class PositiveIf(Part):
    """Which events say that the user likes the item."""

    event_types: Annotated[tuple[Name, ...], BeforeValidator(_listed)]
    min_value: Number | None = None
    """By default any value."""


class TypeDeclaration(Part):
    """An event type."""

    meaning: str = ""
    counted: bool = True
    """Whether features count it; one that is not counted is kept, and its item counts as seen."""


class Mapping(Part):
    """What a YAML says of a source."""

    name: Text
    """What a person calls the source."""
    feedback: Literal["explicit", "implicit"]
    """Whether users say what they do not like, too, or only show what they like."""
    event_types: Annotated[AnyMapping[str, TypeDeclaration], Field(min_length=1)]
    positive: PositiveIf
    liked_items: int = LIKED_ITEMS
    """So many of the items that a user liked last are kept for recall."""
    events: Events
    items: Items = Items()
    users: Entities = Entities()
    relations: Relations | None = None

    @property
    def meaning(self) -> dict[str, Any]:
        """What rows become, as JSON: all of it but its name, names and formats of files, and what is made of rows."""
        of_files: dict[str, Any] = {"files": True, "format": True}
        of_entities = {**of_files, "attributes": {"__all__": {"encoding", "curve", "buckets"}}}
        parts = {"events": of_files, "items": of_entities, "users": of_entities}
        relations = of_files if self.relations else True
        return self.model_dump(
            mode="json", exclude={"name": True, "liked_items": True, **parts, "relations": relations}
        )

    def schema(self) -> Schema:  # type: ignore[override]  # pydantic's own is deprecated
        """Return what the data set has; SchemaError where it makes no sense."""
        allowed = self.events.value.range
        least = self.positive.min_value
        return Schema(
            event_types=tuple(EventType(name, each.meaning, each.counted) for name, each in self.event_types.items()),
            value=allowed,
            positive=Positive(self.positive.event_types, allowed.minimum if least is None else least),
            item_attributes=self.items.declared,
            user_attributes=self.users.declared,
            is_implicit=self.feedback == "implicit",
            has_relations=self.relations is not None,
            liked_items=self.liked_items,
        )
