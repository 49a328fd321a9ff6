"""JSON lines as cells: one object in a line; a column is a key of it, or a path such as /user/id."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, NoReturn

import duckdb

from pipelines.checks.whole_file import check_encoding
from pipelines.errors import SourceError
from pipelines.io.sql_text import literal
from pipelines.sources.batches import registered
from pipelines.sources.cells import Cells, text_cells
from pipelines.sources.first_bytes import what_text_is_not
from pipelines.sources.found import Found
from pipelines.sources.layout import FileFormat
from pipelines.sources.lines import LINES, UNDECODABLE, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.sources.archive import SourceFile

_FORM = FileFormat(".jsonl", (), "")
_ROWS = "json_rows"
_SAMPLE = 1000
_SHOWN = 120
_HEAD = 1 << 16
_SURROGATE = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"


@dataclass(frozen=True, slots=True)
class JsonRows:
    """A file of JSON lines, and which of its columns are wanted."""

    file: SourceFile
    columns: tuple[str, ...]
    missing: tuple[str, ...]
    each: str | None = None
    """A key, or a path, of a list in each line whose elements are the rows; without it, each line is one."""

    def found(self) -> Found:
        """Look at the first lines; SourceError where none is an object."""
        self._check_text()
        check_encoding(self.file, _FORM.encoding)
        with duckdb.connect() as database, self._lines(database):
            sample = database.sql(f"{_OBJECTS} LIMIT {_SAMPLE}").fetchall()
        if not sample:
            return Found(self.file, (), frozenset(), has_rows=False, noun="key")
        first = sample[0][1]
        objects = [row[1] for row in sample if row[2]]
        if not objects or _begins_list(first):
            self._refuse_lines(first)
        keys, there = self._in_sample(objects)
        wanted = frozenset(column for column in self.columns if column in there or self._occurs(column))
        has_rows = len(wanted) == len(self.columns) or not self._are_lists_empty()
        return Found(self.file, keys, wanted, has_rows, noun="key")

    def _are_lists_empty(self) -> bool:
        """Tell whether every line has a list, and no list has an element."""
        if self.each is None:
            return False
        with duckdb.connect() as database, self._lines(database):
            length = f"CASE WHEN {self._has_list} THEN json_array_length(text, {literal(pointer(self.each))}) END"
            query = f"SELECT 1 FROM ({_OBJECTS}) WHERE is_object AND coalesce({length}, 1) > 0 LIMIT 1"  # noqa: S608 - quoted
            return not database.execute(query).fetchall()

    @property
    def _has_list(self) -> str:
        """SQL that tells whether a line has the list that its rows are in."""
        path = literal(pointer(self.each or ""))
        return f"CASE WHEN is_object THEN coalesce(json_type(text, {path}), '') = 'ARRAY' ELSE false END"

    def _check_text(self) -> None:
        if kind := what_text_is_not(self.file.head(_HEAD)):
            msg = f"{self.file.name}, line 1: expected JSON in UTF-8, received {kind[0]}; {kind[1]}"
            raise SourceError(msg)

    def _in_sample(self, objects: list[str]) -> tuple[list[str], set[str]]:
        """Return the keys of some objects, and the wanted columns that are among them."""
        with duckdb.connect() as database:
            database.execute("CREATE TEMP TABLE sample AS SELECT unnest($1::VARCHAR[]) AS text", [objects])
            keys = database.execute(
                "SELECT DISTINCT unnest(json_keys(text)) AS key FROM sample ORDER BY key"
            ).fetchall()
            exist = ", ".join(f"bool_or({self._exists(column)})" for column in self.columns)
            ((*found,),) = database.execute(f"SELECT {exist} FROM sample").fetchall()  # noqa: S608 - quoted
        return [key for (key,) in keys], set(compress(self.columns, found))

    def _occurs(self, column: str) -> bool:
        """Tell whether any line has a key: of one that most lines leave out, the first may come late."""
        with duckdb.connect() as database, self._lines(database):
            # A condition beside AND may come first, and a text that is no JSON ends the query.
            occurs = f"CASE WHEN is_object THEN {self._exists(column)} END"
            query = f"SELECT 1 FROM ({_OBJECTS}) WHERE {occurs} LIMIT 1"  # noqa: S608 - quoted
            return bool(database.execute(query).fetchall())

    def _exists(self, column: str) -> str:
        """Return SQL that tells whether an object, or an element of its list, has a column."""
        inner = self._in_element(column)
        if inner is None or self.each is None:
            return f"json_exists(text, {literal(pointer(column))})"
        elements = f"from_json(json_extract(text, {literal(pointer(self.each))}), '[\"JSON\"]')"
        is_list = f"json_type(text, {literal(pointer(self.each))}) = 'ARRAY'"
        any_has = f"len(list_filter({elements}, lambda each: json_exists(each, {literal(inner or '$')}))) > 0"
        return f"CASE WHEN {is_list} THEN {any_has} ELSE false END"

    def _in_element(self, column: str) -> str | None:
        """Return the pointer of a column in an element of the list, None for one of the line; empty: the element."""
        if self.each is None:
            return None
        of_list, path = pointer(self.each), pointer(column)
        return path.removeprefix(of_list) if path == of_list or path.startswith(f"{of_list}/") else None

    def _refuse_lines(self, first: str) -> NoReturn:
        name = self.file.name
        if first.lstrip().startswith("["):
            remedy = f"one list is no JSON lines: write each element in a line of its own, as `jq -c '.[]' {name}` does"
        elif first.lstrip().startswith("{") and not first.rstrip().endswith("}"):
            remedy = f"an object over several lines is no JSON line: write each in one line, as `jq -c . {name}` does"
        elif "}{" in first.replace(" ", ""):
            remedy = f"several objects in a line: write each in a line of its own, as `jq -c . {name}` does"
        else:
            remedy = "is it another format? Give format: csv, json_lines or parquet in the mapping"
        msg = f"{self.file.name}, line 1: expected a JSON object in each line, received {first[:_SHOWN]!r}; {remedy}"
        raise SourceError(msg)

    @contextmanager
    def cells(self, database: duckdb.DuckDBPyConnection) -> Iterator[Cells]:
        """Give the wanted columns as texts; lists and objects stay JSON."""
        rows = self._of_lists() if self.each else self._of_lines()
        with self._lines(database):
            yield text_cells(rows, self.columns, self.missing, is_json=True)

    def _of_lines(self) -> str:
        paths = ", ".join(literal(pointer(column)) for column in self.columns)
        names = [f"found[{number + 1}] AS r{number}" for number in range(len(self.columns))]
        found = f"CASE WHEN is_object THEN json_extract_string(text, [{paths}]) END AS found"
        return (
            f"{_FAULTS}, {', '.join(names)} FROM (SELECT line, text, {_FAULT} AS fault, '' AS wanted, {found} "  # noqa: S608 - quoted
            f"FROM ({_OBJECTS}))"
        )

    def _of_lists(self) -> str:
        """Return a query of one row for each element of the lists, and for each line that has no list."""
        assert self.each is not None  # noqa: S101 - only then it is asked for
        path = literal(pointer(self.each))
        cells = []
        for number, column in enumerate(self.columns):
            inner = self._in_element(column)
            source, place = ("text", pointer(column)) if inner is None else ("element", inner or "$")
            cells.append(
                f"CASE WHEN fault IS NULL THEN json_extract_string({source}, {literal(place)}) END AS r{number}"
            )
        fault = f"coalesce({_FAULT}, CASE WHEN NOT {self._has_list} THEN 'bad_json' END) AS fault"
        judged = f"SELECT line, text, {fault} FROM ({_OBJECTS})"  # noqa: S608 - quoted
        elements = (
            f"SELECT *, unnest(CASE WHEN fault IS NULL THEN from_json(json_extract(text, {path}), '[\"JSON\"]') "  # noqa: S608 - quoted
            f"ELSE [NULL::JSON] END) AS element, {literal(f' with a list at {self.each}')} AS wanted FROM ({judged})"
        )
        return f"{_FAULTS}, {', '.join(cells)} FROM ({elements})"

    @contextmanager
    def _lines(self, database: duckdb.DuckDBPyConnection) -> Iterator[None]:
        with registered(database, _ROWS, LINES, read_lines(self.file, _FORM)):
            yield


_OBJECTS = (
    "SELECT line, text, CASE WHEN json_valid(text) THEN json_type(text) = 'OBJECT' ELSE false END AS is_object "  # noqa: S608 - a constant
    f"FROM {_ROWS} WHERE trim(text) <> ''"
)
_UNPAIRED = f"regexp_replace(text, {literal(_PAIR)}, '', 'g')"
_FAULT = (
    f"CASE WHEN contains(text, {literal(UNDECODABLE)}) THEN 'undecodable_bytes' "
    f"WHEN NOT is_object AND regexp_matches({_UNPAIRED}, {literal(_SURROGATE)}) THEN 'lone_surrogate' "
    "WHEN NOT is_object THEN 'bad_json' END"
)
_FAULTS = (
    "SELECT line AS _line, fault AS _fault, '' AS _fault_column, CASE fault "
    "WHEN 'bad_json' THEN 'a JSON object' || wanted "
    "WHEN 'lone_surrogate' THEN 'a JSON object whose \\u escapes come in pairs where they are of D800 to DFFF' "
    "ELSE 'UTF-8 text' END AS _fault_expected, text AS _fault_received"
)


def _begins_list(line: str) -> bool:
    """Tell whether a list begins in a line and goes on in the next: some lines of it may well be objects."""
    return line.lstrip().startswith("[") and not line.rstrip().endswith("]")


def pointer(column: str) -> str:
    """Return a column as a JSON pointer (RFC 6901): a key at the top, unless it is a pointer already."""
    return column if column.startswith("/") else "/" + column.replace("~", "~0").replace("/", "~1")
