"""Row groups of a fixed size, so that a file is written and checked in bounded memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import EXAMPLE_ID
from pipelines.feast_store.errors import RowCountError
from pipelines.feast_store.retrieval import fill_missing
from pipelines.io.arrow import arrow_type, content_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from feature_repo.contracts.columns import Column

ROW_GROUP = 65_536


class RowGroupWriter:
    """Writes rows as row groups of `ROW_GROUP` rows, the last one smaller, and checksums their content.

    The checksum is the SHA-256 over the canonical checksums of the row groups, in order: it depends on the rows alone,
    not on how they arrived.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._pending: list[pa.RecordBatch] = []
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None and (self._pending_rows() or not self.rows):
            self._write(pa.Table.from_batches(self._pending, self._schema))
        self._writer.close()

    @property
    def sha256(self) -> str:
        """The checksum of the content, once the file is complete."""
        return self._digest.hexdigest()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._pending.append(batch)
        while self._pending_rows() >= ROW_GROUP:
            table = pa.Table.from_batches(self._pending, self._schema)
            self._write(table.slice(0, ROW_GROUP))
            self._pending = table.slice(ROW_GROUP).to_batches()

    def _pending_rows(self) -> int:
        return sum(batch.num_rows for batch in self._pending)

    def _write(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._digest.update(content_sha256(table).encode())
        self.rows += table.num_rows


def stored_sha256(path: Path) -> str:
    """Return the checksum of a file that `RowGroupWriter` wrote, computed from what the file holds now."""
    digest = hashlib.sha256()
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            digest.update(content_sha256(file.read_row_group(number)).encode())
    return digest.hexdigest()


def cut(batches: Iterable[pa.RecordBatch], lengths: Iterable[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the piece, rows): `batches` in order, cut where a piece of `lengths` rows ends.

    Rows beyond the last length belong to the last piece plus one.
    """
    ends = list(lengths)
    number, left = 0, ends[0] if ends else 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            while number < len(ends) and left == 0:
                number += 1
                left = ends[number] if number < len(ends) else 0
            take = batch.num_rows - start if number == len(ends) else min(left, batch.num_rows - start)
            yield number, batch.slice(start, take)
            start, left = start + take, left - take


def beside(
    batches: Iterable[pa.RecordBatch], labels: Path, columns: Sequence[Column], first: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield batches with further columns of the label rows that they were made of.

    A join sorts all that goes through it, once for each table: what it does not need is read again more cheaply.

    Args:
        batches: Rows in the order of their ids.
        labels: The file of the label rows, in the same order.
        columns: What is added; nulls become each column's `missing`.
        first: Position in the file of the first row of `batches`.

    Raises:
        RowCountError: The rows are not those of the file.
    """
    if not columns:
        yield from batches
        return
    names = [EXAMPLE_ID.name, *(column.name for column in columns)]
    with pq.ParquetFile(labels) as file:
        stored = _from(file.iter_batches(ROW_GROUP, columns=names), first)
        pending = file.schema_arrow.empty_table().select(names)
        for batch in batches:
            while pending.num_rows < batch.num_rows and (more := next(stored, None)) is not None:
                pending = pa.concat_tables([pending, pa.Table.from_batches([more])])
            own, pending = pending.slice(0, batch.num_rows).combine_chunks(), pending.slice(batch.num_rows)
            if not own[EXAMPLE_ID.name].equals(pa.chunked_array([batch[EXAMPLE_ID.name]])):
                msg = f"join: expected the label rows of {labels} in their order, received others; run the job again"
                raise RowCountError(msg)
            added = [fill_missing(own[column.name].combine_chunks(), column) for column in columns]
            fields = [pa.field(column.name, arrow_type(column), nullable=column.nullable) for column in columns]
            yield pa.RecordBatch.from_arrays([*batch.columns, *added], schema=pa.schema([*batch.schema, *fields]))


def _from(batches: Iterable[pa.RecordBatch], first: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows from a position on."""
    for batch in batches:
        if first < batch.num_rows:
            yield batch.slice(first)
        first = max(first - batch.num_rows, 0)
