"""Which lines of a CSV file a row stands in, so that no line goes unnoticed.

A quote that is not closed takes the rows that follow into one cell. So every line is counted when it is read, and again
when a row claims it. A row of marks follows the last line: where a quote is open there, it ends up in a cell.
"""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Reader as _Reader
    from collections.abc import Generator, Iterable

    from pipelines.sources.archive import SourceFile
    from pipelines.sources.mapping import CsvForm

END = "\x1eend of the file\x1e"
"""Each cell of the row that follows the last line: a text that no file has."""
_LONGEST = 8 << 20


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
        """Fill `buffer`; 0 at the end."""
        if not self._rest:
            self._rest = self._stream.read(max(len(buffer), 1 << 16)) or b""
            self._count(self._rest)
            if not self._rest and self._marks is not None:
                is_cut = self._last not in {b"", b"\n", b"\r"}
                self.lines += is_cut
                self._rest, self._marks = (b"\n" if is_cut else b"") + self._marks, None
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _count(self, data: bytes) -> None:
        """Count the line ends; one of two bytes may lie on the border of two reads."""
        if data:
            self.lines += data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
            self.lines -= self._last == b"\r" and data.startswith(b"\n")
            self._last = data[-1:]


def text_lines(file: SourceFile, form: CsvForm) -> Generator[str]:
    """Yield the lines of a file in order, each with its end."""
    with file.open() as stream, io.TextIOWrapper(stream, form.encoding, errors="replace", newline="") as lines:
        yield from lines


def csv_reader(lines: Iterable[str], form: CsvForm) -> _Reader:
    """Read lines row by row as a file's form says; its `line_num` is the last line of a row."""
    if not form.quote:
        return csv.reader(lines, delimiter=form.separator, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=form.separator, quotechar=form.quote)


def line_of_long_row(file: SourceFile, form: CsvForm) -> int | None:
    """Return the line in which a row begins that has a cell of more than 8 MB; None where there is none.

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
