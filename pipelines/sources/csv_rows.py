"""CSV as cells: quotes, line ends within them, any encoding; each row with its line, also those that are no rows."""

from __future__ import annotations

import csv
import io
import logging
import re
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipelines.checks.whole_file import check_encoding
from pipelines.errors import SourceError
from pipelines.io.sql_text import literal
from pipelines.sources.batches import registered
from pipelines.sources.cells import Cells, text_cells
from pipelines.sources.csv_lines import Claims, CountedLines, Line, csv_reader, line_of_long_row, text_lines
from pipelines.sources.first_bytes import has_many_nulls, what_it_is, what_text_is_not
from pipelines.sources.found import Found
from pipelines.sources.lines import UNDECODABLE
from pipelines.sources.utf8 import Utf8Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    import duckdb

    from pipelines.sources.archive import SourceFile
    from pipelines.sources.csv_lines import Claimed
    from pipelines.sources.mapping import CsvForm

_log = logging.getLogger(__name__)
_BLOCK = 4 << 20
_HEAD = 1 << 16
_SHOWN = 120
_REFUSED_AT_ONCE = 1 << 16
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_ROWS = "csv_rows"
_OPEN = -1
"""Stands for the number of fields of a line that an open quote took into a cell."""
_OPEN_QUOTE = "quotes that close in their row; csv.quote: '' where a quote is a character as any other"
_LONG_TEXT = f"{_OPEN_QUOTE}, csv.long_texts: true where a text has lines with so many separators"


class _Header(NamedTuple):
    """The names of the columns, and how many lines come before the rows."""

    names: Sequence[str]
    lines: int


@dataclass(frozen=True, slots=True)
class CsvRows:
    """A CSV file, and which of its columns are wanted."""

    file: SourceFile
    form: CsvForm
    columns: tuple[str, ...]
    missing: tuple[str, ...]

    def found(self) -> Found:
        """Look at the header and the first rows; SourceError where they are no CSV, or another one."""
        if kind := what_it_is(self.file.head()):
            self._refuse(f"{self.form.encoding.upper()} text", f"{kind[0]}; {kind[1]}")
        check_encoding(self.file, self.form.encoding)
        header = self._header()
        if len(header.names) == 1:
            self._check_separator(header.names[0])
        for column in self.columns:
            if header.names.count(column) > 1:
                places = [number for number, name in enumerate(header.names, start=1) if name == column]
                self._refuse(f"one column {column!r}", f"it as columns {places}; rename all but one")
        wanted = frozenset(self.columns) & frozenset(header.names)
        with closing(text_lines(self.file, self.form)) as lines:
            has_rows = any(line.strip() for line in islice(lines, header.lines, None))
        return Found(self.file, header.names, wanted, has_rows, is_csv=not self.form.columns)

    @contextmanager
    def cells(self, database: duckdb.DuckDBPyConnection) -> Iterator[Cells]:
        """Give the wanted columns as texts, null where there is no such column."""
        header = self._header()
        with (
            self.file.open() as stream,
            registered(database, _ROWS, self._schema, self._batches(stream, header)),
        ):
            yield text_cells(self._read_rows(header.names), self.columns, self.missing, decimal=self.form.decimal)

    @property
    def _schema(self) -> pa.Schema:
        cells = [pa.field(f"r{number}", pa.string()) for number in range(len(self.columns))]
        return pa.schema([("line", pa.int64()), ("refused", pa.string()), ("fields", pa.int64()), *cells])

    def _read_rows(self, names_there: Sequence[str]) -> str:
        names = [f"r{number}" for number in range(len(self.columns))]
        undecodable = " OR ".join(f"contains({name}, {literal(UNDECODABLE)})" for name in ("refused", *names))
        width, header = len(names_there), ", ".join(map(literal, names_there))
        is_short = f"fields BETWEEN 0 AND {width - 1}"
        open_quote = _OPEN_QUOTE if self.form.long_texts else _LONG_TEXT
        return (
            f"SELECT line AS _line, CASE WHEN fields = {_OPEN} THEN 'open_quote' "  # noqa: S608 - names made here
            f"WHEN coalesce({undecodable}, false) THEN 'undecodable_bytes' "
            f"WHEN {is_short} THEN 'missing_field' WHEN fields > {width} THEN 'too_many_fields' END AS _fault, "
            f"CASE WHEN {is_short} THEN CAST([{header}] AS VARCHAR[])[fields + 1] ELSE '' END AS _fault_column, "
            f"CASE WHEN fields = {_OPEN} THEN {literal(open_quote)} "
            f"WHEN fields IS NULL THEN {literal(f'{self.form.encoding.upper()} text')} "
            f"ELSE '{width} fields' END AS _fault_expected, "
            f"coalesce(refused, concat_ws({literal(self.form.separator)}, {', '.join(names)})) AS _fault_received, "
            f"{', '.join(self._unquoted(name) for name in names)} FROM {_ROWS}"
        )

    @property
    def _late_quotes(self) -> str:
        """A regular expression for a cell whose quotes begin after a blank: to CSV they are of the text."""
        quote = re.escape(self.form.quote)
        return rf"(?s)\s+{quote}((?:[^{quote}]|{quote}{quote})*){quote}\s*"

    def _unquoted(self, name: str) -> str:
        """Return SQL for a cell without quotes that begin after a blank."""
        quote = self.form.quote
        if not quote:
            return name
        pattern, single, double = literal(self._late_quotes), literal(quote), literal(quote * 2)
        inner = f"replace(regexp_extract({name}, {pattern}, 1), {double}, {single})"
        is_late = f"contains({name}, {single}) AND regexp_full_match({name}, {pattern})"
        return f"CASE WHEN {is_late} THEN {inner} ELSE {name} END AS {name}"

    def _batches(self, stream: IO[bytes], header: _Header) -> Iterator[pa.RecordBatch]:
        """Yield the rows, then the lines that quotes took into cells; SourceError where a line belongs to neither."""
        width = len(header.names)
        if not width:
            return
        counted = CountedLines(cast("IO[bytes]", Utf8Stream(stream, self.form.encoding)), self.form.separator, width)
        suspicious = None if self.form.long_texts else width - 1
        claims = Claims(header.lines + 1, self.form.separator, self.form.quote, suspicious)
        try:
            for batch in self._reader(counted, header, claims):
                yield from self._rows(claims.of(batch), header)
        except pa.ArrowInvalid as error:
            self._explain(error)
        yield from self._rows(claims.rest(width), header)
        if claims.line != counted.lines + 2:  # the row of marks has a line of its own
            msg = (
                f"{self.file.name}: expected each of its {counted.lines:,} lines in a row, received rows of "
                f"{claims.line - 2:,}; save it anew"
            )
            raise SourceError(msg)
        yield from self._refused(self._open_lines(claims, counted.lines))
        if claims.blank:
            _log.warning(
                "%s: passed over %d blank lines, which have nothing in any cell; the first is line %d",
                self.file.name,
                len(claims.blank),
                min(claims.blank),
            )

    def _rows(self, claimed: Claimed, header: _Header) -> Iterator[pa.RecordBatch]:
        nothing = pa.nulls(len(claimed.lines), pa.string())
        cells = [
            claimed.rows.column(header.names.index(column)) if column in header.names else nothing
            for column in self.columns
        ]
        numbers = pa.array(claimed.lines), nothing, pa.nulls(len(claimed.lines), pa.int64())
        yield pa.RecordBatch.from_arrays([*numbers, *cells], schema=self._schema)
        yield from self._refused(iter(claimed.refused))

    def _open_lines(self, claims: Claims, lines: int) -> Iterator[Line]:
        """Yield each line that a quote took into a cell: the row that it belongs to is not known."""
        if not claims.open:
            return
        taken = np.zeros(lines + 2, dtype=bool)
        for first, height in claims.open:
            taken[first : first + height] = True
        for number, text in enumerate(text_lines(self.file, self.form), start=1):
            if number <= lines and taken[number] and text.strip():
                yield Line(number, text.rstrip("\r\n"), _OPEN)

    def _refused(self, lines: Iterator[Line]) -> Iterator[pa.RecordBatch]:
        while some := list(islice(lines, _REFUSED_AT_ONCE)):
            numbers, texts, fields = zip(*some, strict=True)
            nothing = [pa.nulls(len(some), pa.string()) for _ in self.columns]
            yield pa.RecordBatch.from_arrays(
                [pa.array(numbers, pa.int64()), pa.array(texts, pa.string()), pa.array(fields, pa.int64()), *nothing],
                schema=self._schema,
            )

    def _reader(self, stream: CountedLines, header: _Header, claims: Claims) -> pyarrow.csv.CSVStreamingReader:
        """Read all columns: a quote may be open in one that nobody wants."""
        names = [f"f{number}" for number in range(len(header.names))]
        form = self.form
        return pyarrow.csv.open_csv(
            pa.PythonFile(stream, mode="r"),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=_BLOCK, column_names=names, skip_rows=header.lines
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=form.separator,
                quote_char=form.quote or False,
                newlines_in_values=bool(form.quote),
                ignore_empty_lines=False,
                invalid_row_handler=claims.take,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )

    def _header(self) -> _Header:
        """Return the names of all columns, and where the rows begin: below blank lines and Excel's `sep=;`."""
        with self.file.open() as raw:
            head = io.BufferedReader(Utf8Stream(raw, self.form.encoding)).read(_BLOCK)
        if has_many_nulls(head):
            self._refuse_binary()
        above, header = 0, list[str]()
        text = io.StringIO(head.decode(errors="ignore"), newline="")
        reader = csv_reader(text, self.form)
        try:
            while not header and (cells := next(reader, None)) is not None:
                if any(cell.strip() for cell in cells) and not self._says_separator(cells):
                    header = [self._without_late_quotes(cell) for cell in cells]
                else:
                    above = reader.line_num
        except csv.Error:
            self._refuse_open_header()
        if self.form.columns:
            return _Header(self.form.columns, above if header else 0)
        if any(len(cell.splitlines()) > 1 and cell.count(self.form.separator) >= len(header) - 1 for cell in header):
            self._refuse_open_header()
        if header and len(head) == _BLOCK and not text.read(1):
            self._refuse(f"a header of less than {_BLOCK:,} bytes", "one of more; is it a table at all?")
        return _Header(header, reader.line_num if header else 0)

    def _without_late_quotes(self, name: str) -> str:
        quote = self.form.quote
        found = re.fullmatch(self._late_quotes, name) if quote else None
        return found[1].replace(quote * 2, quote) if found else name

    def _refuse_open_header(self) -> NoReturn:
        self._refuse("a header whose quotes close", "an open quote; close it, or give csv.quote: ''")

    def _says_separator(self, cells: Sequence[str]) -> bool:
        """Tell whether a line is the one by which Excel tells itself the separator; SourceError for another one."""
        line = self.form.separator.join(cells)
        if len(line) != len("sep=,") or not line.lower().startswith("sep="):
            return False
        if line[-1] != self.form.separator:
            self._refuse(self._fields_parted(), f"{line!r}; give csv.separator: {line[-1]!r}")
        return True

    def _fields_parted(self) -> str:
        return f"fields parted by {_SEPARATORS.get(self.form.separator, repr(self.form.separator))}"

    def _check_separator(self, header: str) -> None:
        for separator, word in _SEPARATORS.items():
            names = set(header.split(separator)) if separator in header else set()
            if separator != self.form.separator and names & set(self.columns):
                self._refuse(self._fields_parted(), f"fields parted by {word}: {header[:_SHOWN]!r}; give csv.separator")

    def _refuse_binary(self) -> NoReturn:
        kind, remedy = what_text_is_not(self.file.head(_HEAD)) or ("binary data", "is it another format, or damaged?")
        self._refuse(f"{self.form.encoding.upper()} text", f"{kind}; {remedy}")

    def _refuse(self, expected: str, received: str) -> NoReturn:
        msg = f"{self.file.name}, line 1: expected {expected}, received {received}"
        raise SourceError(msg)

    def _explain(self, error: pa.ArrowInvalid) -> NoReturn:
        line = line_of_long_row(self.file, self.form)
        where = f"{self.file.name}, line {line}" if line else self.file.name
        received = "one of more" if "straddling" in str(error) else f"other text ({' '.join(str(error).split())[:300]})"
        msg = (
            f"{where}: expected rows of at most {_BLOCK:,} bytes, received {received}; is a quote not closed? Give "
            "csv.quote: '' if quotes mean nothing"
        )
        raise SourceError(msg) from error
