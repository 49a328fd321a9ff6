"""CSV as cells: quotes, line ends within them, any encoding; each row with its number, also those of another width."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pyarrow as pa
from pyarrow import csv

from pipelines.checks.whole_file import check_encoding
from pipelines.errors import SourceError
from pipelines.io.sql_text import literal
from pipelines.sources.batches import registered
from pipelines.sources.cells import Cells, text_cells
from pipelines.sources.lines import UNDECODABLE
from pipelines.sources.utf8 import Utf8Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb

    from pipelines.sources.archive import SourceFile
    from pipelines.sources.mapping import CsvForm

_BLOCK = 4 << 20
_SHOWN = 120
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_ROWS = "csv_rows"


@dataclass(frozen=True, slots=True)
class CsvRows:
    """A CSV file, and which of its columns are wanted."""

    file: SourceFile
    form: CsvForm
    columns: tuple[str, ...]
    missing: tuple[str, ...]

    def check(self) -> None:
        """Look at the header and the first rows; SourceError names what is missing, and what there is instead."""
        check_encoding(self.file, self.form.encoding)
        names = self._header()
        for column in self.columns:
            if column not in names:
                self._refuse_header(names, column)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            self._refuse("columns of different names", f"{twice} more than once")
        with self.file.open() as stream:
            if not any(batch.num_rows for batch in self._batches(stream)):
                self._refuse("rows below the header" if not self.form.columns else "rows", "the end of the file")

    @contextmanager
    def cells(self, database: duckdb.DuckDBPyConnection) -> Iterator[Cells]:
        """Give the wanted columns as texts."""
        with self.file.open() as stream, registered(database, _ROWS, self._schema, self._batches(stream)):
            yield text_cells(self._read_rows(), self.columns, self.missing)

    @property
    def _schema(self) -> pa.Schema:
        cells = [pa.field(f"r{number}", pa.string()) for number in range(len(self.columns))]
        return pa.schema([("line", pa.int64()), ("refused", pa.string()), ("fields", pa.int64()), *cells])

    def _read_rows(self) -> str:
        names = [f"r{number}" for number in range(len(self.columns))]
        undecodable = " OR ".join(f"contains({name}, {literal(UNDECODABLE)})" for name in ("refused", *names))
        names_there = self._header()
        width, header = len(names_there), ", ".join(map(literal, names_there))
        return (
            f"SELECT line AS _line, CASE WHEN coalesce({undecodable}, false) THEN 'undecodable_bytes' "  # noqa: S608 - names made here
            f"WHEN fields < {width} THEN 'missing_field' WHEN fields > {width} THEN 'too_many_fields' END AS _fault, "
            f"CASE WHEN fields < {width} THEN [{header}][fields + 1] ELSE '' END AS _fault_column, "
            f"CASE WHEN fields IS NULL THEN {literal(f'{self.form.encoding.upper()} text')} "
            f"ELSE '{width} fields' END AS _fault_expected, "
            f"coalesce(refused, concat_ws({literal(self.form.separator)}, {', '.join(names)})) AS _fault_received, "
            f"{', '.join(names)} FROM {_ROWS}"
        )

    def _batches(self, stream: object) -> Iterator[pa.RecordBatch]:
        refused = _Refused()
        try:
            reader = self._reader(stream, refused)
            row = 1 if self.form.columns else 2
            for batch in reader:
                numbers = refused.numbers_between(row, batch.num_rows)
                row = int(numbers[-1]) + 1 if len(numbers) else row
                nothing = pa.nulls(batch.num_rows, pa.string()), pa.nulls(batch.num_rows, pa.int64())
                cells = [batch.column(name) for name in self.columns]
                yield pa.RecordBatch.from_arrays([pa.array(numbers), *nothing, *cells], schema=self._schema)
                yield refused.released(row, self._schema)
            yield refused.released(None, self._schema)
        except pa.ArrowInvalid as error:
            self._explain(error)

    def _reader(self, stream: object, refused: _Refused) -> csv.CSVStreamingReader:
        form = self.form
        return csv.open_csv(
            pa.PythonFile(Utf8Stream(stream, form.encoding), mode="r"),  # type: ignore[arg-type]  # SourceFile.open's
            read_options=csv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=form.columns or None),
            parse_options=csv.ParseOptions(
                delimiter=form.separator,
                quote_char=form.quote or False,
                newlines_in_values=bool(form.quote),
                invalid_row_handler=refused.take,
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(self.columns, pa.string()),
                include_columns=list(self.columns),
                strings_can_be_null=False,
            ),
        )

    def _header(self) -> list[str]:
        """Return the names of all columns."""
        if self.form.columns:
            return list(self.form.columns)
        with self.file.open() as raw:
            head = Utf8Stream(raw, self.form.encoding).read(1 << 16) or b""
        if not head.strip():
            self._refuse("a header and rows", "an empty file")
        if b"\0" in head:
            self._refuse(f"{self.form.encoding.upper()} text", "UTF-16, UTF-32 or binary data; give csv.encoding")
        first = head.splitlines()[0]
        try:
            names: list[str] = csv.read_csv(
                pa.BufferReader(first + b"\n"),
                parse_options=csv.ParseOptions(delimiter=self.form.separator, quote_char=self.form.quote or False),
            ).column_names
        except pa.ArrowInvalid:
            names = first.decode(errors="replace").split(self.form.separator)
        return names

    def _refuse_header(self, names: Sequence[str], column: str) -> NoReturn:
        for separator, word in _SEPARATORS.items():
            if separator != self.form.separator and len(names) == 1 and column in names[0].split(separator):
                mine = _SEPARATORS.get(self.form.separator, repr(self.form.separator))
                self._refuse(
                    f"fields parted by {mine}", f"fields parted by {word}: {names[0][:_SHOWN]!r}; give csv.separator"
                )
        self._refuse(
            f"a column {column!r}, as the mapping says",
            f"the columns {', '.join(names)[:_SHOWN]}; {self.file.remedy_without(column)}",
        )

    def _refuse(self, expected: str, received: str) -> NoReturn:
        msg = f"{self.file.name}, row 1: expected {expected}, received {received}"
        raise SourceError(msg)

    def _explain(self, error: pa.ArrowInvalid) -> NoReturn:
        said = " ".join(str(error).split())
        if "Empty CSV" in said:
            self._refuse("a header and rows", "an empty file")
        msg = (
            f"{self.file.name}: expected CSV, received {said[:300]}. Is a quote not closed? Give csv.quote: '' if "
            "quotes mean nothing in this file"
        )
        raise SourceError(msg) from error


@dataclass(slots=True)
class _Refused:
    """The rows that have another number of fields than the header."""

    rows: list[tuple[int, str, int]] = field(default_factory=list)

    def take(self, row: csv.InvalidRow) -> str:
        """Keep one, and have the reader go on; an error where it may have swallowed rows that follow."""
        if "\n" in row.text.rstrip("\r\n"):
            return "error"
        self.rows.append((row.number, row.text, row.actual_columns))
        return "skip"

    def numbers_between(self, start: int, count: int) -> np.ndarray:
        """Return the numbers of `count` good rows from `start` on."""
        refused = np.array([number for number, _, _ in self.rows if number >= start], dtype=np.int64)
        numbers = np.arange(start, start + count + len(refused), dtype=np.int64)
        return numbers[~np.isin(numbers, refused)][:count]

    def released(self, before: int | None, schema: pa.Schema) -> pa.RecordBatch:
        """Return the refused rows with numbers below `before` (default: all), and forget them."""
        ready = [row for row in self.rows if before is None or row[0] < before]
        self.rows = self.rows[len(ready) :]
        numbers, texts, fields = ([row[place] for row in ready] for place in range(3))
        nothing = [pa.nulls(len(texts), pa.string()) for _ in schema.names[3:]]
        return pa.RecordBatch.from_arrays(
            [pa.array(numbers, pa.int64()), pa.array(texts, pa.string()), pa.array(fields, pa.int64()), *nothing],
            schema=schema,
        )
