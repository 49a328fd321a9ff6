"""A source in one of the published layouts of MovieLens."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.checks.small_tables import check_items, check_users
from pipelines.checks.whole_file import check_head, has_no_rows
from pipelines.io.sql_text import literal, without_surroundings
from pipelines.sources.adapter import CheckedTable, Derived, Duplicates, EventFields, TimeField
from pipelines.sources.batches import registered
from pipelines.sources.lines import LINES, UNDECODABLE, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import duckdb

    from feature_repo.contracts.schemas import Schema
    from pipelines.sources.archive import SourceFile
    from pipelines.sources.layout import FileFormat, Layout

_LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""
_QUOTED = r'^\s*"([^"]*)"\s*$'


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """A source whose layout is known; a part may have events alone, or items."""

    layout: Layout
    events: SourceFile | None
    item_file: SourceFile | None
    user_file: SourceFile | None
    is_part: bool = False
    is_mapped = False
    duplicates = Duplicates.REFUSE
    skips: Sequence[str] = ()
    derived: Sequence[Derived] = ()
    derives_items = False

    @property
    def name(self) -> str:
        """What a person calls the layout."""
        return self.layout.name

    @property
    def schema(self) -> Schema:
        """What the layout's data sets have."""
        return self.layout.schema

    @property
    def meaning(self) -> Mapping[str, object]:
        """The layout, which says all."""
        return {"layout": self.layout.name}

    @property
    def fields(self) -> EventFields:
        """What the layout calls the fields of an event."""
        user, item, value, time = self.layout.events.columns
        return EventFields(user, item, "", value, TimeField(time, "whole seconds since 1970"))

    @property
    def any_file(self) -> SourceFile:
        """One of the files that it has."""
        return next(file for file in (self.events, self.item_file, self.user_file) if file)

    def check(self) -> None:
        """Look at the beginning of every file; a part's may have no rows, as of a day on which nothing happened."""
        layout = self.layout
        forms = ((self.events, layout.events), (self.item_file, layout.items), (self.user_file, layout.users))
        for file, form in forms:
            if file and form and not (self.is_part and has_no_rows(file, form)):
                check_head(file, form)

    def event_parts(self) -> Iterator[PublishedEvents]:
        """Yield the one file of events, if there is any."""
        if self.events:
            yield PublishedEvents(self.events, self.layout.events)

    def items(self) -> CheckedTable | None:
        """Read and check the items."""
        if self.item_file is None:
            return None
        return check_items(self.item_file, self.layout.items, self.layout.item, self.schema)

    def users(self) -> CheckedTable | None:
        """Read and check the users; None where the layout says nothing of them."""
        if self.user_file is None or self.layout.users is None:
            return None
        return check_users(self.user_file, self.layout.users, self.layout.user, self.schema)

    def relations(self, clock: datetime) -> CheckedTable | None:  # noqa: ARG002 - as every source is asked
        """Return None: none of the layouts says who follows whom."""
        return None


@dataclass(frozen=True, slots=True)
class PublishedEvents:
    """A file of ratings, one in a line."""

    source_file: SourceFile
    form: FileFormat

    @property
    def file(self) -> str:
        """Its name."""
        return self.source_file.name

    @contextmanager
    def typed(self, database: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """Give the file's rows as typed columns, cut by the layout's separator."""
        with registered(database, "lines", LINES, read_lines(self.source_file, self.form)):
            yield _typed(self.form)


def _typed(form: FileFormat) -> str:
    names = ", ".join(map(literal, form.columns))
    count = len(form.columns)
    return f"""
        WITH cut AS (
            SELECT line, text, {_fields(form)} AS fields FROM lines
        ), sorted_out AS (
            SELECT *, len(fields) AS number_of_fields, TRY_CAST(fields[4] AS DOUBLE) AS seconds FROM cut
        ), read AS (
            SELECT *, CASE
                WHEN contains(text, {literal(UNDECODABLE)}) THEN 'undecodable_bytes'
                WHEN number_of_fields < {count} THEN 'missing_field'
                WHEN number_of_fields > {count} THEN 'too_many_fields'
                WHEN {_has_quotes(form)} THEN 'bad_quotes'
            END AS fault FROM sorted_out
        )
        SELECT line AS _line, fault AS _fault,
            CASE WHEN fault = 'missing_field' THEN [{names}][number_of_fields + 1] ELSE '' END AS _fault_column,
            CASE WHEN fault = 'undecodable_bytes' THEN {literal(f"{form.encoding.upper()} text")}
                WHEN fault = 'bad_quotes' THEN 'quotes around whole fields'
                ELSE '{count} fields' END AS _fault_expected,
            text AS _fault_received,
            {without_surroundings("fields[1]")} AS user_id, {without_surroundings("fields[2]")} AS item_id,
            'rating' AS event_type, TRY_CAST(fields[3] AS DOUBLE) AS value,
            CASE WHEN isfinite(seconds) AND seconds = floor(seconds) AND seconds BETWEEN 0 AND {_LAST_SECOND}
                THEN CAST(seconds AS BIGINT) * 1000000 END AS micros,
            fields[1] AS _user_text, fields[2] AS _item_text, '' AS _type_text, fields[3] AS _value_text,
            fields[4] AS _time_text, CAST(NULL AS INTEGER) AS _skip
        FROM read"""  # noqa: S608 - built from the layout's constants


def _fields(form: FileFormat) -> str:
    """Return SQL for the fields of a line, without the quotes that they may stand in."""
    fields = f"string_split(text, {literal(form.separator)})"
    if not form.quoted:
        return fields
    bare = f"list_transform({fields}, lambda field: regexp_replace(field, {literal(_QUOTED)}, '\\1'))"
    return f"CASE WHEN contains(text, '\"') THEN {bare} ELSE {fields} END"


def _has_quotes(form: FileFormat) -> str:
    """Return SQL that tells whether a quote is left in a field."""
    return "contains(text, '\"') AND contains(array_to_string(fields, ''), '\"')" if form.quoted else "false"
