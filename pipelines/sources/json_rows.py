"""JSON lines as cells: one object in a line; a column is a key of it, or a path such as /user/id."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import duckdb

from pipelines.checks.whole_file import check_encoding
from pipelines.errors import SourceError
from pipelines.io.sql_text import literal
from pipelines.sources.batches import registered
from pipelines.sources.cells import Cells, text_cells
from pipelines.sources.layout import FileFormat
from pipelines.sources.lines import LINES, UNDECODABLE, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.sources.archive import SourceFile

_FORM = FileFormat(".jsonl", (), "")
_ROWS = "json_rows"
_SAMPLE = 1000
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class JsonRows:
    """A file of JSON lines, and which of its columns are wanted."""

    file: SourceFile
    columns: tuple[str, ...]
    missing: tuple[str, ...]

    def check(self) -> None:
        """Look at the first lines; SourceError where none is an object, or none has a wanted column."""
        check_encoding(self.file, _FORM.encoding)
        with duckdb.connect() as database, self._lines(database):
            sample = database.sql(f"{_OBJECTS} LIMIT {_SAMPLE}").fetchall()
            first = sample[0][1] if sample else ""
            objects = [row[1] for row in sample if row[2]]
            if not objects or _begins_list(first):
                self._refuse_lines(first)
            database.execute("CREATE TEMP TABLE sample AS SELECT unnest($1::VARCHAR[]) AS text", [objects])
            for column in self.columns:
                exists = "SELECT bool_or(json_exists(text, $1)) FROM sample"
                is_there = database.execute(exists, [pointer(column)]).fetchall()[0][0]
                if not is_there and not self._occurs(column):
                    keys = "SELECT DISTINCT unnest(json_keys(text)) AS key FROM sample ORDER BY key"
                    there = ", ".join(row[0] for row in database.execute(keys).fetchall())[:_SHOWN]
                    msg = (
                        f"{self.file.name}: expected a key {column!r}, as the mapping says, received the keys {there} "
                        f"in the first {len(objects)} lines, and it in none; "
                        f"{self.file.remedy_without(column)}"
                    )
                    raise SourceError(msg)

    def _refuse_lines(self, first: str) -> NoReturn:
        received = repr(first[:_SHOWN]) if first else "an empty file"
        remedy = _ONE_LIST.format(name=self.file.name) if first.lstrip().startswith("[") else _NO_JSON
        msg = f"{self.file.name}, line 1: expected a JSON object in each line, received {received}; {remedy}"
        raise SourceError(msg)

    def _occurs(self, column: str) -> bool:
        """Tell whether any line has a key: of one that most lines leave out, the first may come late."""
        with duckdb.connect() as database, self._lines(database):
            # A condition beside AND may come first, and a text that is no JSON ends the query.
            occurs = "CASE WHEN is_object THEN json_exists(text, $1) END"
            query = f"SELECT 1 FROM ({_OBJECTS}) WHERE {occurs} LIMIT 1"  # noqa: S608 - constants
            return bool(database.execute(query, [pointer(column)]).fetchall())

    @contextmanager
    def cells(self, database: duckdb.DuckDBPyConnection) -> Iterator[Cells]:
        """Give the wanted columns as texts; lists and objects stay JSON."""
        paths = ", ".join(literal(pointer(column)) for column in self.columns)
        names = [f"found[{number + 1}] AS r{number}" for number in range(len(self.columns))]
        rows = (
            "SELECT line AS _line, fault AS _fault, '' AS _fault_column, "  # noqa: S608 - quoted
            "CASE fault WHEN 'bad_json' THEN 'a JSON object' ELSE 'UTF-8 text' "
            f"END AS _fault_expected, text AS _fault_received, {', '.join(names)} FROM (SELECT line, text, CASE "
            f"WHEN contains(text, {literal(UNDECODABLE)}) THEN 'undecodable_bytes' WHEN NOT is_object THEN 'bad_json' "
            f"END AS fault, CASE WHEN is_object THEN json_extract_string(text, [{paths}]) END AS found "
            f"FROM ({_OBJECTS}))"
        )
        with self._lines(database):
            yield text_cells(rows, self.columns, self.missing, is_json=True)

    @contextmanager
    def _lines(self, database: duckdb.DuckDBPyConnection) -> Iterator[None]:
        with registered(database, _ROWS, LINES, read_lines(self.file, _FORM)):
            yield


_NO_JSON = "is it another format? Give format: csv, json_lines or parquet in the mapping"
_ONE_LIST = "one list is no JSON lines: write each element in a line of its own, as `jq -c '.[]' {name}` does"
_OBJECTS = (
    "SELECT line, text, CASE WHEN json_valid(text) THEN json_type(text) = 'OBJECT' ELSE false END AS is_object "  # noqa: S608 - a constant
    f"FROM {_ROWS} WHERE trim(text) <> ''"
)


def _begins_list(line: str) -> bool:
    """Tell whether a list begins in a line and goes on in the next: some lines of it may well be objects."""
    return line.lstrip().startswith("[") and not line.rstrip().endswith("]")


def pointer(column: str) -> str:
    """Return a column as a JSON pointer (RFC 6901): a key at the top, unless it is a pointer already."""
    return column if column.startswith("/") else "/" + column.replace("~", "~0").replace("/", "~1")
