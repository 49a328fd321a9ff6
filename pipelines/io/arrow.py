"""Contract → Arrow: the schema of a stored table, and the canonical checksum of its content."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts.columns import Column, Dtype
from pipelines.errors import JobError

if TYPE_CHECKING:
    from feature_repo.contracts.datasets import Dataset

_TYPES = {
    Dtype.STRING: pa.string(),
    Dtype.INT64: pa.int64(),
    Dtype.FLOAT32: pa.float32(),
    Dtype.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Dtype.BYTES: pa.binary(),
}


def arrow_type(column: Column) -> pa.DataType:
    """Return the Arrow type of a column; a list of fixed length is stored as a list, as Feast and Spark want it."""
    scalar = _TYPES[column.dtype]
    return pa.list_(pa.field("element", scalar, nullable=False)) if column.length else scalar


def arrow_schema(dataset: Dataset) -> pa.Schema:
    """Return the schema of a dataset: its columns in their order."""
    return pa.schema(
        [pa.field(column.name, arrow_type(column), nullable=column.nullable) for column in dataset.columns]
    )


def conform(table: pa.Table, dataset: Dataset) -> pa.Table:
    """Return `table` with exactly the columns, types and canonical row order of `dataset`.

    JobError where a column is missing, a null stands where none may, a list has another length, or a key occurs twice.
    """
    missing = [name for name in dataset.column_names if name not in table.column_names]
    if missing:
        msg = f"dataset {dataset.name}: columns {missing} are missing, received {table.column_names}"
        raise JobError(msg)
    columns = [_conform_column(table.column(column.name), column, dataset.name) for column in dataset.columns]
    table = pa.Table.from_arrays(columns, schema=arrow_schema(dataset))
    table = table.sort_by([(name, "ascending") for name in dataset.sort]).combine_chunks()
    _refuse_repeated_keys(table, dataset)
    return table


def _conform_column(values: pa.ChunkedArray, column: Column, dataset: str) -> pa.ChunkedArray:
    values = values.cast(arrow_type(column))
    if values.null_count and not column.nullable:
        msg = f"dataset {dataset}, column {column.name}: expected no null, received {values.null_count} nulls"
        raise JobError(msg)
    if column.length > 0 and len(values):
        lengths = pc.min_max(pc.list_value_length(values)).as_py()
        if lengths != {"min": column.length, "max": column.length}:
            msg = f"dataset {dataset}, column {column.name}: expected lists of {column.length}, received {lengths}"
            raise JobError(msg)
    return values


def _refuse_repeated_keys(table: pa.Table, dataset: Dataset) -> None:
    """Refuse rows that share a key; they are neighbours, because every sort begins with or equals the key's columns."""
    if table.num_rows < 2:  # noqa: PLR2004 - one row has no neighbour
        return
    same = np.ones(table.num_rows - 1, dtype=bool)
    for name in dataset.key:
        values = table.column(name).chunk(0)
        same &= pc.equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    if same.any():
        row = {name: table.column(name)[int(same.argmax())].as_py() for name in dataset.key}
        msg = f"dataset {dataset.name}: {int(same.sum())} rows repeat the key of another, the first: {row}"
        raise JobError(msg)


def content_sha256(table: pa.Table) -> str:
    """Return the SHA-256 of a table's content in its row order: names, types, nulls and values.

    It depends on no file format and no library version. -0.0 counts as 0.0, every NaN as the same one, and whatever
    lies in memory below a null as zero.
    """
    digest = hashlib.sha256()
    for field in table.schema:
        digest.update(f"{field.name}:{_type_name(field.type)}:{table.num_rows}\n".encode())
        _update(digest, table.column(field.name).combine_chunks())
    return digest.hexdigest()


def _type_name(kind: pa.DataType) -> str:
    return f"list<{kind.value_type}>" if pa.types.is_list(kind) else str(kind)


def _update(digest: hashlib._Hash, values: pa.Array | pa.ChunkedArray) -> None:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    digest.update(np.packbits(pc.is_valid(values).to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(values.type):
        digest.update(_little_endian(pc.fill_null(pc.list_value_length(values), 0).to_numpy(), "<i8"))
        _update(digest, pc.list_flatten(values))
    elif pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        values = pc.fill_null(values, pa.scalar(b"").cast(values.type))
        digest.update(_little_endian(pc.binary_length(values).to_numpy(), "<i8"))
        digest.update(_text_bytes(values))
    elif pa.types.is_floating(values.type):
        numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False) + np.float32(0)
        digest.update(_little_endian(np.where(np.isnan(numbers), np.float32(np.nan), numbers), "<f4"))
    else:
        digest.update(_little_endian(pc.fill_null(values.cast(pa.int64()), 0).to_numpy(), "<i8"))


def _little_endian(numbers: np.ndarray, dtype: str) -> bytes:
    return np.ascontiguousarray(numbers, dtype=dtype).tobytes()


def _text_bytes(values: pa.Array) -> memoryview:
    """Return the UTF-8 bytes of all values, joined."""
    offsets = np.frombuffer(values.buffers()[1], dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    data = values.buffers()[2]
    if data is None or not len(values):
        return memoryview(b"")
    return memoryview(data)[offsets[0] : offsets[-1]]
