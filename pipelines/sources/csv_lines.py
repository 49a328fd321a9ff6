"""Which lines of a CSV file a row stands in, so that no line goes unnoticed.

A quote that is not closed takes the rows that follow into one cell. So every line is counted when it is read, and again
when a row claims it. A row of marks follows the last line: where a quote is open there, it ends up in a cell.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from _csv import Reader as _Reader
    from collections.abc import Generator, Iterable

    from pyarrow.csv import InvalidRow

    from pipelines.sources.archive import SourceFile
    from pipelines.sources.mapping import CsvForm

END = "\x1eend of the file\x1e"
"""Each cell of the row that follows the last line: a text that no file has."""
LINE_END = r"\r\n|\r|\n"
_LONGEST = 4 << 20


class CountedLines(io.RawIOBase):
    """A stream of UTF-8 that counts its lines, and gives a row of `END` after the last one."""

    def __init__(self, stream: IO[bytes], separator: str, width: int) -> None:
        super().__init__()
        self._stream, self._last, self._rest = stream, b"", b""
        self._marks: bytes | None = separator.join([END] * width).encode()
        self.lines = 0
        """So many lines were read so far, those of marks aside."""

    def readable(self) -> bool:
        """Say yes, as a stream to be read does."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no length
        """Fill `buffer` to its end, or the file's; 0 at the end.

        Arrow takes a block for the last one that is nothing but the second byte of a line end.
        """
        filled = 0
        while filled < len(buffer) and self._has_more(len(buffer)):
            taken = self._rest[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            filled, self._rest = filled + len(taken), self._rest[len(taken) :]
        return filled

    def _has_more(self, size: int) -> bool:
        """Read on where nothing is left, and put the marks after the last line."""
        if not self._rest:
            self._rest = self._stream.read(max(size, 1 << 16)) or b""
            self._count(self._rest)
            if not self._rest and self._marks is not None:
                is_cut = self._last not in {b"", b"\n", b"\r"}
                self.lines += is_cut
                self._rest, self._marks = (b"\n" if is_cut else b"") + self._marks, None
        return bool(self._rest)

    def _count(self, data: bytes) -> None:
        """Count the line ends; one of two bytes may lie on the border of two reads."""
        if data:
            self.lines += data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
            self.lines -= self._last == b"\r" and data.startswith(b"\n")
            self._last = data[-1:]


def text_lines(file: SourceFile, form: CsvForm) -> Generator[str]:
    """Yield the lines of a file in order, each with its end, without a byte order mark."""
    with file.open() as stream, io.TextIOWrapper(stream, form.encoding, errors="replace", newline="") as lines:
        if first := next(lines, "").removeprefix("\ufeff"):
            yield first
        yield from lines


def csv_reader(lines: Iterable[str], form: CsvForm) -> _Reader:
    """Read lines row by row as a file's form says; its `line_num` is the last line of a row."""
    if not form.quote:
        return csv.reader(lines, delimiter=form.separator, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=form.separator, quotechar=form.quote)


def line_of_long_row(file: SourceFile, form: CsvForm) -> int | None:
    """Return the line in which a row begins that has a cell of more than 4 MB; None where there is none.

    It reads row by row, and so is for a file that is refused anyway.
    """
    before, line = csv.field_size_limit(_LONGEST), 1
    reader = csv_reader(text_lines(file, form), form)
    try:
        for _ in reader:
            line = reader.line_num + 1
    except csv.Error:
        return line
    finally:
        csv.field_size_limit(before)
    return None


class Line(NamedTuple):
    """A line that is no row."""

    number: int
    text: str
    fields: int


class Claimed(NamedTuple):
    """Rows, the lines in which they begin, and lines between them that are no rows."""

    rows: pa.RecordBatch
    lines: np.ndarray
    refused: list[Line]


@dataclass(slots=True)
class Claims:
    """Which lines the rows of a file have taken so far."""

    line: int
    """The first that no row has taken."""
    separator: str
    quote: str
    suspicious: int | None
    """A cell that holds line ends and so many separators has swallowed rows; None: it may hold any number."""
    open: list[tuple[int, int]] = field(default_factory=list)
    """First line and number of lines of each row whose quote did not close in it."""
    blank: list[int] = field(default_factory=list)
    """The lines with nothing in any cell, with or without separators, as spreadsheets leave them at the end."""
    _row: int = 0
    """The number of the next row, as Arrow counts them: every skipped line is one."""
    _wrong: list[tuple[int, str, int]] = field(default_factory=list)
    """Number, text and fields of rows that have another number of fields than the header."""

    def __post_init__(self) -> None:
        """Begin below the header."""
        self._row = self.line

    def take(self, row: InvalidRow) -> str:
        """Keep a row that has another number of fields than the header, and have the reader go on."""
        self._wrong.append((row.number, row.text, row.actual_columns))
        return "skip"

    def rest(self, width: int) -> Claimed:
        """Return what was kept and no row of the right width follows."""
        nothing = [pa.nulls(0, pa.string())] * width
        return self.of(pa.RecordBatch.from_arrays(nothing, names=list(map(str, range(width)))), is_last=True)

    def of(self, rows: pa.RecordBatch, *, is_last: bool = False) -> Claimed:
        """Return what the next rows of the file come to, each of the right width."""
        wrong, numbers = self._between(rows.num_rows, is_last=is_last)
        heights = np.ones(len(wrong) + rows.num_rows, dtype=np.int64)
        good = numbers - self._row
        heights[good] += (inner := _line_ends(rows))
        for number, text, _ in wrong:
            heights[number - self._row] += _lines_within(text)
        begins = self.line + np.concatenate([[0], np.cumsum(heights)]).astype(np.int64)
        refused = []
        for number, text, fields in wrong:
            place = number - self._row
            if heights[place] > 1:
                self.open.append((int(begins[place]), int(heights[place])))
            elif self._is_blank(text):
                self.blank.append(int(begins[place]))
            else:
                refused.append(Line(int(begins[place]), text, fields))
        is_open = self._swallowed(rows) if inner.any() else np.zeros(rows.num_rows, dtype=bool)
        self.open += zip(begins[good][is_open].tolist(), heights[good][is_open].tolist(), strict=True)
        self.line, self._row = int(begins[-1]), self._row + len(heights)
        are_marks, are_blank = _are_marks(rows), _are_blank(rows)
        self.blank += begins[good][are_blank].tolist()
        kept = ~is_open & ~are_marks & ~are_blank
        return Claimed(rows if kept.all() else rows.filter(pa.array(kept)), begins[good][kept], refused)

    def _is_blank(self, text: str) -> bool:
        """Tell whether a line has nothing but separators, quotes and space."""
        return not text.replace(self.separator, "").replace(self.quote, "").strip()

    def _between(self, count: int, *, is_last: bool) -> tuple[list[tuple[int, str, int]], np.ndarray]:
        """Return the kept rows that come before the end of `count` good ones, and the numbers of these."""
        kept = np.array([number for number, _, _ in self._wrong], dtype=np.int64)
        numbers = np.arange(self._row, self._row + count + len(kept), dtype=np.int64)
        numbers = numbers[~np.isin(numbers, kept)][:count]
        end = int(numbers[-1]) if len(numbers) else self._row - 1
        ready = len(kept) if is_last else int(np.searchsorted(kept, end))
        wrong, self._wrong = self._wrong[:ready], self._wrong[ready:]
        return wrong, numbers

    def _swallowed(self, rows: pa.RecordBatch) -> np.ndarray:
        """Tell of each row whether a cell has line ends and a row's worth of separators, or the end of the file."""
        found = np.zeros(rows.num_rows, dtype=bool)
        for column in rows.columns:
            is_open = pc.match_substring(column, END)
            if self.suspicious is not None:
                many = pc.greater_equal(pc.count_substring(column, self.separator), self.suspicious)
                is_open = pc.or_(is_open, many)
            found |= pc.and_(is_open, pc.match_substring_regex(column, LINE_END)).to_numpy(zero_copy_only=False)
        return found


def _line_ends(rows: pa.RecordBatch) -> np.ndarray:
    """Return how many line ends the cells of each row hold."""
    found = np.zeros(rows.num_rows, dtype=np.int64)
    for column in rows.columns:
        data = column.buffers()[2]
        text = data.to_pybytes() if data else b""
        if b"\n" in text or b"\r" in text:
            found += pc.count_substring_regex(column, LINE_END).to_numpy()
    return found


def _lines_within(text: str) -> int:
    """Return how many line ends a row's text holds, that at its end aside."""
    text = text.removesuffix("\n").removesuffix("\r")
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _are_marks(rows: pa.RecordBatch) -> np.ndarray:
    """Tell of each row whether it is that of marks: the last one of the last batch."""
    found = np.zeros(rows.num_rows, dtype=bool)
    if rows.num_rows:
        found[-1] = all(column[-1].as_py() == END for column in rows.columns)
    return found


def _are_blank(rows: pa.RecordBatch) -> np.ndarray:
    """Tell of each row whether it has nothing but space in any cell."""
    left = np.arange(rows.num_rows)
    for column in rows.columns:
        cells = column if len(left) == rows.num_rows else column.take(pa.array(left))
        left = left[pc.or_(pc.equal(cells, ""), pc.utf8_is_space(cells)).to_numpy(zero_copy_only=False)]
    found = np.zeros(rows.num_rows, dtype=bool)
    found[left] = True
    return found
