"""A source that a mapping describes: its files found, its cells given the meaning that the mapping says."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn

import duckdb

from feature_repo.contracts.columns import Column
from feature_repo.contracts.datasets import TITLE, attribute_column, items_dataset, users_dataset
from feature_repo.contracts.schemas import Kind, Reduction
from pipelines.checks.entities import check_entities
from pipelines.checks.relations import check_relations
from pipelines.errors import SourceError
from pipelines.io.sql_text import identifier, literal
from pipelines.sources.adapter import Derived, EventFields, RelationFields, TimeField, text_column
from pipelines.sources.cells import FAULT
from pipelines.sources.csv_rows import CsvRows
from pipelines.sources.expressions import holds, id_of, micros_of, number_of, terms_of, text_of, value_of
from pipelines.sources.file_names import FileNames, below_too
from pipelines.sources.first_bytes import what_it_is
from pipelines.sources.found import check_columns
from pipelines.sources.json_rows import JsonRows
from pipelines.sources.mapping import FileKind, Items
from pipelines.sources.parquet_rows import ParquetRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from feature_repo.contracts.schemas import Schema
    from pipelines.sources.adapter import CheckedTable, Duplicates
    from pipelines.sources.archive import SourceFile
    from pipelines.sources.cells import Cells, Rows
    from pipelines.sources.expressions import Cell
    from pipelines.sources.mapping import Entities, Events, Files, Mapping, Relations, TimeOf

_KINDS = {
    ".csv": FileKind.CSV,
    ".tsv": FileKind.CSV,
    ".txt": FileKind.CSV,
    ".jsonl": FileKind.JSON_LINES,
    ".ndjson": FileKind.JSON_LINES,
    ".json": FileKind.JSON_LINES,
    ".parquet": FileKind.PARQUET,
}
_NAMES_SHOWN = 12
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class MappedSource:
    """A source and the mapping that describes it."""

    mapping: Mapping
    schema: Schema
    event_files: Sequence[SourceFile]
    item_files: Sequence[SourceFile]
    user_files: Sequence[SourceFile]
    relation_files: Sequence[SourceFile] = ()
    is_part: bool = False
    is_mapped = True

    @property
    def name(self) -> str:
        """What the mapping calls the source."""
        return self.mapping.name

    @property
    def meaning(self) -> dict[str, object]:
        """What the mapping says, but for its name, and names and formats of files."""
        return self.mapping.meaning

    @property
    def fields(self) -> EventFields:
        """The columns as the mapping names them."""
        events = self.mapping.events
        cases = next((case.when.column for case in events.type.cases), "")
        kind, value = events.type.column or cases, events.value.column or ""
        time = _time_field("events.time", events.time)
        return EventFields(events.user.column, events.item.column, kind, value, time)

    @property
    def duplicates(self) -> Duplicates:
        """What becomes of rows that describe one event."""
        return self.mapping.events.duplicates

    @property
    def skips(self) -> Sequence[str]:
        """The reasons for which rows are left out."""
        return tuple(skip.reason for skip in self.mapping.events.skip)

    @property
    def derived(self) -> Sequence[Derived]:
        """The attributes that are read off event rows."""
        return (
            *_derived_items(self.mapping),
            *_derived("item", self.mapping.items),
            *_derived("user", self.mapping.users),
        )

    @property
    def derives_items(self) -> bool:
        """Whether the mapping names no files of items."""
        return not self.mapping.items.files

    def check(self) -> None:
        """Look at the beginning of every file.

        What says who, what, when and how strongly is in each of them, and so are conditions, but for JSON, where a key
        that is not there is a null. An attribute may be missing in some, as of days before it was known; of a part that
        is read off event rows, or is JSON, in all.
        """
        events, required = self.mapping.events, _needed_columns(self.mapping.events)
        conditions = [column for column in _event_columns(events, ()) if column not in required]
        optional = [column for column in _event_columns(events, self.derived) if column not in required]
        found = [part.rows.found() for part in self.event_parts()]
        if not self.is_part and not any(each.has_rows for each in found):
            msg = (
                f"{', '.join(each.file.name for each in found[:_NAMES_SHOWN])}: expected rows of events, received none"
            )
            raise SourceError(msg)
        check_columns(found, required, () if self.is_part else optional)
        check_columns((each for each in found if not each.leaves_nulls_out), conditions, ())
        for entities, files in ((self.mapping.items, self.item_files), (self.mapping.users, self.user_files)):
            found = [MappedEntities(file, entities).rows.found() for file in files]
            check_columns(found, _distinct([entities.id.column if entities.id else None]), ())
            lacking = (each for each in found if not (self.is_part and each.leaves_nulls_out))
            check_columns(lacking, (), _entity_columns(entities))
        relations = [part.rows for part in self._relation_parts()]
        check_columns([rows.found() for rows in relations], relations[0].columns if relations else (), ())

    def event_parts(self) -> Iterator[MappedEvents]:
        """Yield the files of events in the order of their names."""
        events, derived = self.mapping.events, self.derived
        columns = _event_columns(events, derived)
        for file in self.event_files:
            yield MappedEvents(file.name, _rows(file, events, columns, events.each), events, derived)

    def items(self) -> CheckedTable | None:
        """Read and check the items, where they have files of their own."""
        parts = [MappedEntities(file, self.mapping.items) for file in self.item_files]
        names = _names(self.mapping.items)
        return check_entities(items_dataset(self.schema), self.schema.item_attributes, parts, names) if parts else None

    def users(self) -> CheckedTable | None:
        """Read and check the users, where they have files of their own."""
        parts = [MappedEntities(file, self.mapping.users) for file in self.user_files]
        names = _names(self.mapping.users)
        return check_entities(users_dataset(self.schema), self.schema.user_attributes, parts, names) if parts else None

    def relations(self, clock: datetime) -> CheckedTable | None:
        """Read and check who follows whom, where the mapping says it."""
        parts, how = self._relation_parts(), self.mapping.relations
        if how is None or not parts:
            return None
        since = _time_field(_SINCE, how.since) if how.since else None
        return check_relations(parts, RelationFields(how.user.column, how.other.column, since), clock)

    def _relation_parts(self) -> list[MappedRelations]:
        how = self.mapping.relations
        return [MappedRelations(file, how) for file in self.relation_files] if how else []


_SINCE = "relations.since"


def _time_field(key: str, time: TimeOf) -> TimeField:
    """Return what a message says of a time that the mapping has under `key`."""
    if time.unit:
        return TimeField(time.column, f"a number of {time.unit} since 1970", unit=time.unit)
    expected = f"a time as {time.format or 'ISO 8601'}"
    return TimeField(time.column, expected, f"{expected}; of numbers since 1970, {key}.unit: s, ms, us or ns")


def _names(entities: Entities) -> dict[str, str]:
    """Return id and attributes → the column that each is in."""
    own = {"id": entities.id.column} if entities.id else {}
    return own | {each.name: each.source_column for each in entities.attributes}


def open_mapped(mapping: Mapping, schema: Schema, files: Sequence[SourceFile], *, is_part: bool) -> MappedSource:
    """Find the files that a mapping names among those of a source.

    A part that is one file is one of events, if no name fits it: a day's file is called as the day is.

    Raises:
        SourceError: one of its names fits no file; in a part, all but one may be missing.
    """
    kinds = {"events": mapping.events, "items": mapping.items, "users": mapping.users, "relations": mapping.relations}
    names = FileNames(files)
    found = {key: _matching(key, part, names, is_part=is_part) if part else [] for key, part in kinds.items()}
    if is_part and not any(found.values()):
        if len(files) > 1:
            _refuse_names("events", mapping.events.files[0], names)
        found["events"] = list(files)
    patterns = [pattern for part in kinds.values() if part for pattern in part.files]
    names.tell_left_out(patterns, [file for some in found.values() for file in some])
    return MappedSource(
        mapping, schema, found["events"], found["items"], found["users"], found["relations"], is_part=is_part
    )


def _matching(key: str, part: Files, names: FileNames, *, is_part: bool) -> list[SourceFile]:
    """Return the files that a part of the mapping names, in the order of their names; a part may lack any."""
    found: dict[str, SourceFile] = {}
    for pattern in part.files:
        fitting = names.fitting(pattern)
        if not fitting and (names.below(pattern) or not is_part):
            _refuse_names(key, pattern, names)
        found |= {file.name: file for file in fitting}
    return [found[name] for name in sorted(found)]


def _refuse_names(key: str, pattern: str, names: FileNames) -> NoReturn:
    shown = (names.below(pattern) or names.files)[:_NAMES_SHOWN]
    there = ", ".join(repr(file.name) for file in shown) or "nothing"
    if names.below(pattern):
        remedy = f"names are relative to the source: write {below_too(pattern)!r}, or the folder's name before it"
    else:
        packed = [(file, kind) for file in shown if (kind := what_it_is(file.head())) and kind[0] != "Parquet"]
        remedy = "; ".join(f"{file.name!r} is {kind}: {remedy}" for file, (kind, remedy) in packed)
    msg = (
        f"{key}.files: expected a file that fits {pattern!r}, as the mapping says, received {there}; "
        f"{remedy or 'rename it, or take the mapping of this data set'}"
    )
    raise SourceError(msg)


def _rows(file: SourceFile, part: Files, columns: tuple[str, ...], each: str | None = None) -> Rows:
    """Return the reader of a file's format; SourceError where neither mapping nor name says which."""
    suffix = PurePosixPath(file.plain_name).suffix.lower()
    kind = part.format or _KINDS.get(suffix)
    if each and kind is not FileKind.JSON_LINES:
        msg = f"events.each: expected JSON lines, of which a line may hold a list, received {file.name}; remove it"
        raise SourceError(msg)
    match kind:
        case FileKind.CSV:
            form = part.csv
            if suffix == ".tsv" and "separator" not in form.model_fields_set:
                form = form.model_copy(update={"separator": "\t"})
            return CsvRows(file, form, columns, part.missing)
        case FileKind.JSON_LINES:
            return JsonRows(file, columns, part.missing, each)
        case FileKind.PARQUET:
            return ParquetRows(file, columns, part.missing)
        case _:
            msg = f"{file.name}: expected a name that ends with {', '.join(_KINDS)}, or format: in the mapping; add it"
            raise SourceError(msg)


def _distinct(columns: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column for column in columns if column))


def _needed_columns(events: Events) -> tuple[str, ...]:
    """Return the columns without which no row is an event."""
    needed = (events.user, events.item, events.time, events.type, events.value)
    return _distinct(each.column for each in needed)


def _event_columns(events: Events, derived: Sequence[Derived]) -> tuple[str, ...]:
    return _distinct(
        (
            *_needed_columns(events),
            *(case.when.column for case in events.type.cases),
            *(skip.when.column for skip in events.skip),
            *(each.source_column for each in derived),
        )
    )


def _entity_columns(entities: Entities) -> tuple[str, ...]:
    title = entities.title if isinstance(entities, Items) else None
    return _distinct(
        (
            entities.id.column if entities.id else None,
            title.column if title else None,
            *(each.source_column for each in entities.attributes),
        )
    )


def _derived_items(mapping: Mapping) -> Iterator[Derived]:
    """Yield the title, where items are read off event rows and have one."""
    title = mapping.items.title
    if title and not mapping.items.files:
        column = Column("item_title", TITLE.dtype, TITLE.meaning, nullable=True)
        yield Derived("item", column, None, title.reduce or Reduction.LATEST, title.column)


def _derived(owner: str, entities: Entities) -> Iterator[Derived]:
    if entities.files:
        return
    for each, attribute in zip(entities.attributes, entities.declared, strict=True):
        assert attribute.reduction is not None  # noqa: S101 - there are no files
        stored = attribute_column(attribute)
        column = Column(f"{owner}_{stored.name}", stored.dtype, stored.meaning, stored.length, stored.nullable)
        yield Derived(owner, column, attribute, attribute.reduction, each.source_column, each.separator)


@dataclass(frozen=True, slots=True)
class MappedEvents:
    """A file of events as its mapping reads it."""

    file: str
    rows: Rows
    events: Events
    derived: Sequence[Derived]

    @contextmanager
    def typed(self, database: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """Give the file's rows as typed columns."""
        with _naming(self.file), self.rows.cells(database) as cells:
            yield self._query(cells)

    def _query(self, cells: Cells) -> str:
        events = self.events
        user, item, time = cells[events.user.column], cells[events.item.column], cells[events.time.column]
        value = cells[events.value.column] if events.value.column else None
        kind, kind_text = _type(events, cells)
        skips = " ".join(
            f"WHEN {holds(cells[skip.when.column], skip.when)} THEN {number}" for number, skip in enumerate(events.skip)
        )
        skip = f"CASE WHEN _fault IS NOT NULL THEN NULL {skips} END" if skips else "CAST(NULL AS INTEGER)"
        columns = {
            "user_id": id_of(user, events.user),
            "item_id": id_of(item, events.item),
            "event_type": kind,
            "value": value_of(value, events.value),
            "micros": micros_of(time, events.time, "events.time"),
            "_user_text": user.shown,
            "_item_text": item.shown,
            "_type_text": kind_text,
            "_value_text": value.shown if value else "''",
            "_time_text": time.shown,
            "_skip": skip,
        }
        for each in self.derived:
            kind = each.attribute.kind if each.attribute else Kind.TEXT
            columns |= _attribute(cells[each.source_column], kind, each.column.name, each.separator)
        return _typed(columns, cells, _faults(events, cells))


@dataclass(frozen=True, slots=True)
class MappedEntities:
    """A file of items or users as its mapping reads it."""

    source_file: SourceFile
    entities: Entities

    @property
    def file(self) -> str:
        """Its name."""
        return self.source_file.name

    @property
    def rows(self) -> Rows:
        """The reader of its format."""
        return _rows(self.source_file, self.entities, _entity_columns(self.entities))

    @contextmanager
    def typed(self, database: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """Give the file's rows as typed columns."""
        with _naming(self.file), self.rows.cells(database) as cells:
            yield self._query(cells)

    def _query(self, cells: Cells) -> str:
        entities = self.entities
        assert entities.id is not None  # noqa: S101 - the mapping gives files and id together
        identity = cells[entities.id.column]
        columns = {"_id": id_of(identity, entities.id), "_id_text": identity.shown}
        if isinstance(entities, Items):
            title = text_of(cells[entities.title.column]) if entities.title else "NULL"
            columns["title"] = f"coalesce({title}, {columns['_id']})"
        for each in entities.attributes:
            columns |= _attribute(cells[each.source_column], each.kind, each.name, each.separator)
        return _typed(columns, cells)


@dataclass(frozen=True, slots=True)
class MappedRelations:
    """A file of who follows whom as its mapping reads it."""

    source_file: SourceFile
    relations: Relations

    @property
    def file(self) -> str:
        """Its name."""
        return self.source_file.name

    @property
    def rows(self) -> Rows:
        """The reader of its format."""
        how = self.relations
        columns = _distinct((how.user.column, how.other.column, how.since.column if how.since else None))
        return _rows(self.source_file, how, columns)

    @contextmanager
    def typed(self, database: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """Give the file's rows as typed columns."""
        with _naming(self.file), self.rows.cells(database) as cells:
            yield self._query(cells)

    def _query(self, cells: Cells) -> str:
        how = self.relations
        user, other = cells[how.user.column], cells[how.other.column]
        since = cells[how.since.column] if how.since else None
        columns = {
            "user_id": id_of(user, how.user),
            "other_user_id": id_of(other, how.other),
            "micros": micros_of(since, how.since, _SINCE) if since and how.since else "CAST(0 AS BIGINT)",
            "_user_text": user.shown,
            "_other_text": other.shown,
            "_time_text": since.shown if since else "''",
        }
        return _typed(columns, cells)


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """Have every fault of a file's cells name the file; a row that can be told apart is refused and raises nothing."""
    try:
        yield
    except SourceError as error:
        if str(error).startswith(file):
            raise
        msg = f"{file}: {error}"
        raise SourceError(msg) from error
    except (duckdb.DataError, duckdb.NotSupportedError, duckdb.ProgrammingError) as error:
        said = " ".join(str(error).split())[:_SHOWN]
        msg = (
            f"{file}: expected cells that can be read as the mapping says, received others ({said}); name another "
            "column or kind, or write the column as text"
        )
        raise SourceError(msg) from error


def _typed(columns: dict[str, str], cells: Cells, faults: str = ", ".join(FAULT)) -> str:
    typed = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in columns.items())
    return f"SELECT {faults}, {typed} FROM ({cells.query})"  # noqa: S608 - quoted


def _faults(events: Events, cells: Cells) -> str:
    """Return SQL for `FAULT`: of rows that could not be read, and of texts where a condition compares numbers.

    Such a text is neither below nor above: unseen, the row would be taken for what it may not be.
    """
    compared = [(key, cells[when.column]) for key, when in events.conditions() if when.compares]
    if not compared:
        return ", ".join(FAULT)
    refused = [f"{cell.sql} IS NOT NULL AND coalesce(isnan({number_of(cell)}), true)" for _, cell in compared]
    told = [
        (
            literal("bad_number"),
            literal(cell.column),
            literal(f"a number, which events.{'.'.join(map(str, key))} compares, or nothing"),
            cell.shown,
        )
        for key, cell in compared
    ]
    line, *columns = FAULT
    judged = (
        f"CASE WHEN _fault IS NOT NULL THEN {column} "
        f"{' '.join(f'WHEN {wrong} THEN {part}' for wrong, part in zip(refused, parts, strict=True))} END AS {column}"
        for column, parts in zip(columns, zip(*told, strict=True), strict=True)
    )
    return ", ".join((line, *judged))


def _attribute(cell: Cell, kind: Kind, name: str, separator: str | None) -> dict[str, str]:
    """Return the columns of an attribute or a title: what it is, and its text as it was read."""
    match kind:
        case Kind.NUMERIC:
            sql = number_of(cell)
        case Kind.MULTI_VALUED:
            sql = terms_of(cell, separator)
        case _:
            sql = text_of(cell)
    return {name: sql, text_column(name): f"CAST({cell.known} AS VARCHAR)"}


def _type(events: Events, cells: Cells) -> tuple[str, str]:
    """Return SQL for an event's type, and for the text that it is made of."""
    kind = events.type
    if kind.constant:
        return literal(kind.constant), "''"
    if kind.column:
        cell = cells[kind.column]
        if not kind.mapping:
            return text_of(cell), cell.shown
        cases = " ".join(f"WHEN {literal(text)} THEN {literal(name)}" for text, name in kind.mapping.items())
        return f"CASE {text_of(cell)} {cases} END", cell.shown
    cases = " ".join(
        f"WHEN {holds(cells[case.when.column], case.when)} THEN {literal(case.type)}" for case in kind.cases
    )
    otherwise = literal(kind.otherwise) if kind.otherwise else "NULL"
    return f"CASE {cases} ELSE {otherwise} END", cells[kind.cases[0].when.column].shown
