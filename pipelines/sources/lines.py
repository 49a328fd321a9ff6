"""A file's lines as Arrow batches: line number and text, cut without a Python loop over lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.sources.archive import SourceFile
    from pipelines.sources.layout import FileFormat

LINES = pa.schema([("line", pa.int64()), ("text", pa.string())])
UNDECODABLE = "\N{REPLACEMENT CHARACTER}"
"""Stands in a line's text for bytes that the file's encoding does not have."""
_CHUNK_BYTES = 8 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(file: SourceFile, form: FileFormat) -> Iterator[pa.RecordBatch]:
    """Yield the data lines of a file in order, numbered as in the file, without line ends, header and blank lines."""
    line, rest, first = 1, b"", True
    with file.open() as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            if first:
                chunk, first = chunk.removeprefix(_BYTE_ORDER_MARK), False
            whole, end, rest_of_chunk = chunk.rpartition(b"\n")
            if not end:
                rest += chunk
                continue
            batch = _cut(rest + whole + end, line, form.encoding)
            rest, line = rest_of_chunk, line + batch.num_rows
            yield _data(batch, form)
    if rest:
        yield _data(_cut(rest + b"\n", line, form.encoding), form)


def _data(batch: pa.RecordBatch, form: FileFormat) -> pa.RecordBatch:
    """Leave out the header and blank lines; one of tabs is a row without anything in its fields."""
    starts_file = batch.num_rows and batch.column(0)[0].as_py() == 1
    rows = batch.slice(1) if form.has_header and starts_file else batch
    text = rows.column(1)
    is_blank = pc.equal(text, "")
    if pc.any(starts := pc.starts_with(text, " ")).as_py():
        is_blank = pc.or_(is_blank, pc.and_(starts, pc.equal(pc.ascii_trim(text, characters=" "), "")))
    return rows.filter(pc.invert(is_blank)) if pc.any(is_blank).as_py() else rows


def _cut(data: bytes, line: int, encoding: str) -> pa.RecordBatch:
    """Cut `data`, which ends with a line end, into lines; the first of them is number `line`."""
    if not data.isascii():
        data = data.decode(encoding, errors="replace").encode()
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    text = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    numbers = pa.array(np.arange(line, line + len(ends), dtype=np.int64))
    return pa.record_batch([numbers, pc.ascii_rtrim(text, characters="\r\n")], schema=LINES)
