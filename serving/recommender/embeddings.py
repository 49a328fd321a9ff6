"""Item vectors, aligned with the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.embeddings import ITEM_EMBEDDINGS
from feature_repo.contracts.manifests import Similarity
from serving.recommender.errors import SnapshotError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feature_repo.contracts.manifests import Part
    from serving.recommender.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """One vector per item of the catalogue, of unit length for the cosine; zeros where an item has none."""

    vectors: NDArray[np.float32]
    """`[items, size]`"""
    known: NDArray[np.bool_]
    """`[items]`, whether the item has a vector."""
    similarity: Similarity = Similarity.COSINE


def vectors_from_table(table: pa.Table, catalogue: Catalogue, part: Part, source: str) -> ItemVectors:
    """Align the rows of an embeddings snapshot with the catalogue; items that the catalogue lacks are left out.

    Raises:
        SnapshotError: A column is missing, a vector has another size than `part` says, or a number that is not finite,
            or, for the cosine, no length; or the similarity is none that this code knows.
    """
    size = part.data["size"]
    try:
        similarity = Similarity(part.data["similarity"])
    except ValueError as error:
        msg = f"{source}: {error}; publish again, or deploy the code that knows it"
        raise SnapshotError(msg) from error
    absent = [name for name in ITEM_EMBEDDINGS.column_names if name not in table.column_names]
    if absent:
        msg = f"{source}: expected columns {list(ITEM_EMBEDDINGS.column_names)}, {absent} are missing; compute it again"
        raise SnapshotError(msg)
    column = table.column("embedding").cast(pa.list_(pa.float32())).combine_chunks()
    sizes = pc.unique(pc.fill_null(pc.list_value_length(column), 0)).to_pylist()
    if sizes not in ([], [size]):
        msg = f"{source}: expected vectors of {size} numbers, received sizes {sizes}; compute it again"
        raise SnapshotError(msg)
    given = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), size)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    if similarity is Similarity.COSINE:
        if not np.all(np.isfinite(lengths) & (lengths > 0)):
            msg = f"{source}: expected vectors of finite, positive length, received others; compute it again"
            raise SnapshotError(msg)
        given = given / lengths
    elif not np.all(np.isfinite(lengths)):
        msg = f"{source}: expected vectors of finite length, received others; compute it again"
        raise SnapshotError(msg)
    positions = catalogue.places(table.column(ITEM_ID.name).to_pylist())
    used = positions >= 0
    vectors = np.zeros((len(catalogue), size), dtype=np.float32)
    known = np.zeros(len(catalogue), dtype=np.bool_)
    vectors[positions[used]] = given[used]
    known[positions[used]] = True
    return ItemVectors(vectors, known, similarity)
