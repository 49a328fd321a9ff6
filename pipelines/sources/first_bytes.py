"""What a file really is, by its first bytes, where its name says otherwise."""

from __future__ import annotations

_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip data", "end its name with .gz"),
    (
        b"PK\x03\x04",
        "a zip (an .xlsx is one, too)",
        "unpack it, or name the zip itself as the source; save a workbook as CSV",
    ),
    (b"PAR1", "Parquet", "give format: parquet in the mapping"),
    (b"BZh", "bzip2 data", "unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "xz data", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", "unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as CSV"),
    (b"SQLite format 3\0", "a SQLite database", "export its table as CSV"),
    (b"Obj\x01", "Avro", "write it as Parquet"),
    (b"ORC", "ORC", "write it as Parquet"),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet"),
    (b"\x80\x04\x95", "a pickle", "write it as Parquet"),
    (b"\x80\x05\x95", "a pickle", "write it as Parquet"),
    (b"%PDF", "a PDF", "ask for the data itself"),
    (b"<!DOCTYPE html", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file with `git lfs pull`"),
)
_TAR = (257, b"ustar")
_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def are_many(wrong: int, lines: int) -> bool:
    """Tell whether so many lines are wrong that the file is of another kind; a few are rows like any others."""
    return wrong > max(lines / 100, min(5, lines / 10))


def has_many_nulls(head: bytes) -> bool:
    """Tell whether zero bytes are in so many lines that the file is no text."""
    lines = head.split(b"\n") if b"\0" in head else []
    return are_many(sum(b"\0" in line for line in lines), len(lines))


def what_it_is(head: bytes) -> tuple[str, str] | None:
    """Return what a file is that begins with `head`, and what to do; None where that is not known."""
    for signature, kind, remedy in _SIGNATURES:
        if head[: len(signature)].lower() == signature.lower():
            return kind, remedy
    if head[_TAR[0] : _TAR[0] + len(_TAR[1])] == _TAR[1]:
        return "a tar archive", "unpack it and name the folder"
    return None


def what_text_is_not(head: bytes) -> tuple[str, str] | None:
    """Return what a file is that should be text and is not, and what to do; None where it may well be text."""
    if found := what_it_is(head):
        return found
    if encoding := next((name for mark, name in _MARKS if head.startswith(mark)), None):
        return f"text in {encoding.upper()}", f"save it as UTF-8, or, of CSV, give csv.encoding: {encoding}"
    if has_many_nulls(head):
        half = len(head) // 2
        is_wide = head[:200].isascii() and half and head.count(b"\0") > half // 2
        return (
            (
                "text in UTF-16 or UTF-32, without a byte order mark",
                "save it as UTF-8, or, of CSV, give csv.encoding: utf-16-le",
            )
            if is_wide
            else ("binary data", "is it another format, or damaged?")
        )
    return None
