"""Vectors as numpy and Arrow have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from feature_repo.contracts.embeddings import VECTOR
from pipelines.io.arrow import arrow_type

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unit_length(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale each row of `vectors`, `[rows, size]`, to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def vector_array(vectors: NDArray[np.float32]) -> pa.ListArray:
    """Return `[rows, size]` as the values of a column of vectors."""
    offsets = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * np.int32(vectors.shape[1]))
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel(), pa.float32())).cast(arrow_type(VECTOR))


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a column of vectors, all as long as the first, as `[rows, size]`."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(column), len(flat) // max(len(column), 1))
