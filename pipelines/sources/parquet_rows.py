"""Parquet as cells, in the types that the file has.

Arrow reads it, and DuckDB is given the values alone: from a path it would read columns (`rating=1/`), from a file's
statistics conclusions, such as that a column of which no NaN is told has none.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import SourceError
from pipelines.io.scratch import scratch_folder
from pipelines.io.sql_text import literal, without_surroundings
from pipelines.sources.batches import registered
from pipelines.sources.cells import Cells
from pipelines.sources.expressions import Cell
from pipelines.sources.first_bytes import what_it_is
from pipelines.sources.found import Found
from pipelines.sources.lines import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

    from pipelines.sources.archive import SourceFile

_BATCH_ROWS = 1 << 16
_ROWS = "parquet_rows"
_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """A Parquet file, and which of its columns are wanted."""

    file: SourceFile
    columns: tuple[str, ...]
    missing: tuple[str, ...]

    def found(self) -> Found:
        """Read the file's end, which says what it holds."""
        if not self.file.head(1):
            return Found(self.file, (), frozenset(), has_rows=False)
        with self._opened() as parquet:
            names = parquet.schema_arrow.names
            for column in self.columns:
                if names.count(column) > 1:
                    msg = (
                        f"{self.file.name}: expected one column {column!r}, received {names.count(column)} of that "
                        "name; rename all but one"
                    )
                    raise SourceError(msg)
            found = Found(self.file, names, frozenset(self.columns) & frozenset(names), parquet.metadata.num_rows > 0)
            if found.has_rows:
                self._check_texts(parquet)
            return found

    @contextmanager
    def cells(self, database: duckdb.DuckDBPyConnection) -> Iterator[Cells]:
        """Give the wanted columns, texts trimmed; what is missing is null, and a column that is not there."""
        if not self.file.head(1):
            schema = _schema(pa.schema([]), self.columns)
            with registered(database, _ROWS, schema, iter(())):
                yield self._query(database, schema)
            return
        with self._opened() as parquet:
            schema = _schema(parquet.schema_arrow, self.columns)
            with registered(database, _ROWS, schema, self._batches(parquet, schema)):
                yield self._query(database, schema)

    def _query(self, database: duckdb.DuckDBPyConnection, schema: pa.Schema) -> Cells:
        kinds = list(map(str, database.from_arrow(schema.empty_table()).types))[1:]
        cells = {
            name: Cell(f"_c{number}", kind, name, missing=self.missing)
            for number, (name, kind) in enumerate(zip(self.columns, kinds, strict=True))
        }
        names = [f"r{number}" for number in range(len(cells))]
        wanted = [
            f"{replace(cell, sql=without_surroundings(name) if cell.is_text else name).given} AS {cell.sql}"
            for name, cell in zip(names, cells.values(), strict=True)
        ]
        texts = [name for name, cell in zip(names, cells.values(), strict=True) if cell.is_text]
        bad = " OR ".join(f"contains({name}, {literal(UNDECODABLE)})" for name in texts) or "false"
        shown = f"concat_ws(' ', {', '.join(texts)})" if texts else "''"
        query = (
            f"SELECT line AS _line, CASE WHEN coalesce({bad}, false) THEN 'undecodable_bytes' END AS _fault, "  # noqa: S608 - names made here
            f"'' AS _fault_column, 'UTF-8 text' AS _fault_expected, {shown} AS _fault_received, "
            f"{', '.join(wanted)} FROM {_ROWS}"
        )
        return Cells(query, cells)

    def _batches(self, parquet: pq.ParquetFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        there = [name for name in self.columns if name in parquet.schema_arrow.names]
        line = 1
        try:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=there, use_threads=False):
                cells = [
                    _readable(batch.column(name), field.type) if name in there else pa.nulls(batch.num_rows, field.type)
                    for name, field in zip(self.columns, list(schema)[1:], strict=True)
                ]
                lines = pa.array(np.arange(line, line + batch.num_rows, dtype=np.int64))
                line += batch.num_rows
                yield pa.RecordBatch.from_arrays([lines, *cells], schema=schema)
        except (OSError, pa.ArrowException) as error:
            self._refuse(error)

    def _check_texts(self, parquet: pq.ParquetFile) -> None:
        """Refuse a column of bytes that are no text, such as raw UUIDs: its first values show it."""
        kinds = {field.name: field.type for field in parquet.schema_arrow}
        columns = [name for name in self.columns if _is_bytes(kinds.get(name))]
        try:
            first = next(parquet.iter_batches(1000, columns=columns, use_threads=False))
        except (OSError, pa.ArrowException) as error:
            self._refuse(error)
        for name in columns:
            values = [value for value in first.column(name).to_pylist() if value is not None]
            if values and all(_text(value).find(UNDECODABLE) >= 0 for value in values):
                msg = (
                    f"{self.file.name}: column {name!r} holds bytes that are no text, such as {values[0]!r}; expected "
                    "texts or numbers; write it as text, raw UUIDs for instance by str(uuid.UUID(bytes=...))"
                )
                raise SourceError(msg)

    def _refuse(self, error: Exception) -> NoReturn:
        said = " ".join(str(error).split())[:300]
        is_null_list = "lists to be of size" in said
        remedy = "write the column as lists of any length" if is_null_list else "write it anew"
        expected = "lists that Arrow can read" if is_null_list else "a whole Parquet file"
        received = "null in a column of lists of one length" if is_null_list else "a damaged one"
        msg = f"{self.file.name}: expected {expected}, received {received} ({said}); {remedy}"
        raise SourceError(msg) from error

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """Give the opened file; SourceError where it is damaged, or no Parquet."""
        with self._on_disk() as path:
            head = self.file.head()
            if not head.startswith(_MAGIC) and (kind := what_it_is(head)):
                msg = f"{self.file.name}: expected Parquet, received {kind[0]}; {kind[1]}"
                raise SourceError(msg)
            try:
                parquet = pq.ParquetFile(pa.OSFile(str(path)))
            except (OSError, pa.ArrowException) as error:
                self._refuse(error)
            with parquet:
                yield parquet

    @contextmanager
    def _on_disk(self) -> Iterator[Path]:
        """Give the file itself, or a copy of one that is packed: Parquet is read from its end."""
        if not self.file.is_packed:
            yield self.file.path
            return
        with scratch_folder() as folder:
            copy = folder / "rows.parquet"
            with self.file.open() as packed, copy.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            yield copy


def _schema(there: pa.Schema, columns: tuple[str, ...]) -> pa.Schema:
    """Return the columns as DuckDB gets them: r0, r1 ..."""
    kinds = {field.name: field.type for field in there}
    cells = [pa.field(f"r{number}", _type(kinds.get(name, pa.null()))) for number, name in enumerate(columns)]
    return pa.schema([("line", pa.int64()), *cells])


def _type(kind: pa.DataType) -> pa.DataType:
    """Return a type that DuckDB reads, for one of a file."""
    if pa.types.is_dictionary(kind):
        return _type(kind.value_type)
    if _is_list(kind):
        return pa.list_(_type(kind.value_type))
    if pa.types.is_null(kind) or _is_text(kind) or _is_bytes(kind):
        return pa.string()
    if pa.types.is_decimal256(kind):
        return pa.float64()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    """Tell whether values are lists: of one length, too, as Polars' arrays are."""
    return isinstance(
        kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType | pa.ListViewType | pa.LargeListViewType
    )


def _is_text(kind: pa.DataType | None) -> bool:
    return kind is not None and (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_bytes(kind: pa.DataType | None) -> bool:
    """Tell whether values are bytes: older writers mark texts as nothing more."""
    if kind is not None and pa.types.is_dictionary(kind):
        return _is_bytes(kind.value_type)
    return kind is not None and (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _readable(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return values of a file in a type that DuckDB reads; of texts, bytes that are no UTF-8 become U+FFFD."""
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if not pa.types.is_string(kind):
        return values if values.type == kind else values.cast(kind)
    try:
        texts = values.cast(kind)
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([None if value is None else _text(value) for value in values.cast(pa.binary()).to_pylist()])
    return texts


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
