"""Faults that no single row is to blame for: an empty file, another header, another separator, another encoding."""

from __future__ import annotations

import codecs
import csv
from typing import TYPE_CHECKING, NoReturn

from pipelines.errors import SourceError
from pipelines.sources.first_bytes import are_many, what_text_is_not

if TYPE_CHECKING:
    from pipelines.sources.archive import SourceFile
    from pipelines.sources.layout import FileFormat

_HEAD_BYTES = 1 << 20
_SAMPLE_LINES = 1000
_SHOWN = 120
_MAPPING = "other columns want a mapping (docs/bring-your-own-events.md)"
_OTHER_ENCODING = "convert it to UTF-8, or, of CSV, give csv.encoding in a mapping: latin-1 or cp1252 for instance"
_SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "vertical bar", "::": "double colon", " ": "space"}


def check_head(file: SourceFile, form: FileFormat) -> None:
    """Look at the beginning of a file; SourceError names file, line, column, expected and received."""
    head = file.head(_HEAD_BYTES)
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        _refuse(file, 1, "", f"lines of {len(form.columns)} fields", "an empty file")
    if kind := what_text_is_not(head):
        _refuse(file, 1, "", f"{form.encoding.upper()} text", f"{kind[0]}; save it as text")
    if b"\r" in head and b"\n" not in head:
        _refuse(
            file,
            1,
            "",
            "lines that end with LF",
            "ones that end with CR alone; write them anew, as by `tr '\\r' '\\n'`",
        )
    lines = head.removeprefix(codecs.BOM_UTF8).decode(form.encoding, errors="replace").splitlines()
    if len(lines) > 1 and len(head) == _HEAD_BYTES:
        lines.pop()
    if form.has_header:
        _check_header(file, form, lines[0])
        lines = lines[1:]
        if not any(lines):
            _refuse(file, 2, "", "data below the header", "the end of the file")
    _check_separator(file, form, lines[:_SAMPLE_LINES])
    check_encoding(file, form.encoding)


def has_no_rows(file: SourceFile, form: FileFormat) -> bool:
    """Tell whether a file is empty, or has nothing but a header."""
    head = file.head(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
    return not any(line.strip() for line in head.splitlines()[int(form.has_header) :])


def cut_line(text: str, form: FileFormat) -> list[str]:
    """Cut one line into fields; csv.Error where quotes are not closed."""
    if form.quoted:
        return next(csv.reader([text], delimiter=form.separator, strict=True), [""])
    return text.split(form.separator)


def _check_header(file: SourceFile, form: FileFormat, header: str) -> None:
    received = [name.strip('"') if form.quoted else name for name in header.split(form.separator)]
    if received == list(form.columns):
        return
    expected = form.separator.join(form.columns)
    _refuse_other_separator(file, form, 1, header)
    missing = [name for name in form.columns if name not in received]
    if missing:
        _refuse(
            file,
            1,
            missing[0],
            f"the header {expected!r}",
            f"{header[:_SHOWN]!r}, without {', '.join(missing)}; {_MAPPING}",
        )
    _refuse(file, 1, "", f"the header {expected!r}", f"{header[:_SHOWN]!r}; {_MAPPING}")


def _check_separator(file: SourceFile, form: FileFormat, lines: list[str]) -> None:
    """Refuse a file whose sampled lines mostly have another number of fields: that is no matter of single rows."""
    given = [(index, text) for index, text in enumerate(lines) if text.strip()]
    wrong = [index for index, text in given if _fields(text, form) != len(form.columns)]
    if 2 * len(wrong) <= len(given):
        return
    text = lines[wrong[0]]
    line, count = wrong[0] + 1 + form.has_header, _fields(text, form)
    _refuse_other_separator(file, form, line, text)
    column = form.columns[count] if count < len(form.columns) else ""
    expected = f"{len(form.columns)} fields ({', '.join(form.columns)})"
    _refuse(file, line, column, expected, f"{count} fields: {text[:_SHOWN]!r}")


def _refuse_other_separator(file: SourceFile, form: FileFormat, line: int, text: str) -> None:
    if form.separator in text:
        return
    for separator, name in _SEPARATORS.items():
        if len(text.split(separator)) >= len(form.columns):
            expected = f"fields parted by {_SEPARATORS[form.separator]}"
            _refuse(file, line, "", expected, f"fields parted by {name}: {text[:_SHOWN]!r}")


def _fields(text: str, form: FileFormat) -> int:
    try:
        return len(cut_line(text, form))
    except csv.Error:
        return 1


def check_encoding(file: SourceFile, encoding: str) -> None:
    """Refuse a file that is written in another encoding throughout; a line that a stray byte is in is refused as a row.

    Latin-1 has a character for every byte, so UTF-8 shows only in that every line which is not ASCII reads as UTF-8:
    for Latin-1 text of any language that does not happen by chance.
    """
    head = file.head(_HEAD_BYTES)
    every = list(enumerate(head.splitlines(), start=1))
    lines = [(number, line) for number, line in every[: -1 if len(head) == _HEAD_BYTES else None] if not line.isascii()]
    if not lines or what_text_is_not(head):
        return
    other = [(number, line) for number, line in lines if not _decodes(line)]
    name = codecs.lookup(encoding).name
    if name == "iso8859-1" and not other:
        number, line = lines[0]
        _refuse(file, number, "", "Latin-1 text", f"UTF-8: {line.decode()[:_SHOWN]!r}; convert it to Latin-1")
    if name == "utf-8" and 2 * len(other) > len(lines) and are_many(len(other), len(every)):
        number, line = other[0]
        _refuse(file, number, "", "UTF-8 text", f"another encoding: {line[:_SHOWN]!r}; {_OTHER_ENCODING}")


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse(file: SourceFile, line: int, column: str, expected: str, received: str) -> NoReturn:
    where = f"{file.name}, line {line}" + (f", column {column!r}" if column else "")
    msg = f"{where}: expected {expected}, received {received}"
    raise SourceError(msg)
