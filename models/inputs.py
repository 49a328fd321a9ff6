"""From the contract's columns to Keras, TensorFlow and NumPy: the model plane's one adapter of types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.signatures import EXPLAIN_SIGNATURE, ONE_USER_SIGNATURE, ROWS_SIGNATURE, Scope, Signature
from models.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Columns = dict[str, "NDArray[Any]"]
"""Column name → `[rows]` or `[rows, length]`, without null: `Column.missing` stands for it."""

TENSORFLOW_DTYPES = {Dtype.STRING: tf.string, Dtype.INT64: tf.int64, Dtype.FLOAT32: tf.float32}
NUMPY_DTYPES: dict[Dtype, type] = {Dtype.STRING: np.object_, Dtype.INT64: np.int64, Dtype.FLOAT32: np.float32}
_ARROW_DTYPES = {Dtype.STRING: pa.string(), Dtype.INT64: pa.int64(), Dtype.FLOAT32: pa.float32()}


def _shape(column: Column) -> tuple[int, ...]:
    return (column.length,) if column.length else ()


def keras_inputs(signature: Signature) -> dict[str, Any]:
    """Return a symbolic input for every raw column, `[batch]` or `[batch, length]`."""
    return {
        column.name: keras.Input(shape=_shape(column), dtype=column.dtype.value, name=column.name)
        for column in signature.input_columns
    }


def tensor_specs(signature: Signature, name: str) -> dict[str, tf.TensorSpec]:
    """Return what the exported signature called `name` takes: see `Signature` for the two shapes."""
    user_rows = {ROWS_SIGNATURE: None, ONE_USER_SIGNATURE: 1, EXPLAIN_SIGNATURE: None}[name]
    return {
        item.column.name: tf.TensorSpec(
            (user_rows if item.scope is Scope.USER else None, *_shape(item.column)),
            TENSORFLOW_DTYPES[item.column.dtype],
            item.column.name,
        )
        for item in signature.inputs
    }


def to_tensors(columns: Columns, signature: Signature) -> dict[str, tf.Tensor]:
    """Return the signature's columns as tensors of the declared types."""
    return {
        column.name: tf.constant(columns[column.name], TENSORFLOW_DTYPES[column.dtype])
        for column in signature.input_columns
    }


def from_arrow(array: pa.ChunkedArray, column: Column) -> NDArray[Any]:
    """Turn a stored column into `[rows]` or `[rows, length]`, with `column.missing` for null and for padding.

    Raises:
        DatasetError: a value is null where the contract names none for it, a list is too long, or a type does not fit.
    """
    whole = array.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # no chunk at all
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    if not column.length:
        return _flat(whole, column)
    if not (pa.types.is_list(whole.type) or pa.types.is_large_list(whole.type)):
        msg = f"column {column.name}: expected lists of {column.length} {column.dtype}, received {whole.type}"
        raise DatasetError(msg)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(whole), 0).to_numpy(zero_copy_only=False), np.int64)
    if lengths.size and lengths.max() > column.length:
        msg = f"column {column.name}: expected lists of at most {column.length} values, received {lengths.max()}"
        raise DatasetError(msg)
    rows = np.repeat(np.arange(lengths.size), lengths)
    positions = np.arange(rows.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    padded: NDArray[Any] = np.full((lengths.size, column.length), column.missing, NUMPY_DTYPES[column.dtype])
    padded[rows, positions] = _flat(whole.flatten(), column)
    return padded


def _flat(array: pa.Array, column: Column) -> NDArray[Any]:
    try:
        typed = array.cast(_ARROW_DTYPES[column.dtype])
    except pa.ArrowException as error:
        msg = f"column {column.name}: expected {column.dtype}, received {array.type} ({error})"
        raise DatasetError(msg) from error
    if typed.null_count:
        if column.missing is None:
            msg = f"column {column.name}: expected a value on every row, received {typed.null_count} nulls"
            raise DatasetError(msg)
        typed = typed.fill_null(pa.scalar(column.missing, typed.type))
    if column.dtype is Dtype.STRING:
        # One object for each different text: histories repeat the same ids by the million.
        texts = typed.dictionary_encode()
        different = np.asarray(texts.dictionary.to_numpy(zero_copy_only=False), np.object_)
        repeated: NDArray[Any] = different[texts.indices.to_numpy()]
        return repeated
    return np.asarray(typed.to_numpy(zero_copy_only=False), NUMPY_DTYPES[column.dtype])
