"""The data plane takes vectors of any size, and says in the record of a snapshot how many numbers they have."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.contracts.channels import channels
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM2VEC, RECENCY_DECAY
from feature_repo.contracts.manifests import PartKind
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import read_json, write_json
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.embeddings.snapshots import find_item_embeddings, write_item_embeddings
from pipelines.embeddings.user_vectors import weighted_means
from pipelines.embeddings.vectors import matrix, vector_array
from pipelines.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

CUTOFF = datetime(1998, 4, 23, tzinfo=UTC)


def rows(*vectors: list[float]) -> pa.Table:
    return pa.table({"item_id": [f"i{number}" for number in range(len(vectors))], "embedding": list(vectors)})


@pytest.mark.parametrize("shape", [(3, 1), (4, EMBEDDING_SIZE), (2, 100), (0, 5)])
def test_vectors_are_stored_and_read_as_they_are(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    stored = pa.chunked_array([vector_array(vectors)])
    read = matrix(stored)
    assert len(stored) == len(read) == shape[0]
    np.testing.assert_array_equal(read, vectors if shape[0] else np.empty((0, 0), np.float32))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_users_are_means_of_vectors_of_any_size(size: int) -> None:
    vectors = np.random.default_rng(size).normal(size=(4, size)).astype(np.float32)
    means, known = weighted_means(vectors, np.array([0, 0, 2]), np.array([1, 3, -1]), 3)
    expected = vectors[1] + RECENCY_DECAY * vectors[3]
    assert known.tolist() == [True, False, False]
    np.testing.assert_allclose(means[0], expected / np.linalg.norm(expected), rtol=1e-5)


def test_a_snapshot_says_the_size_of_its_vectors(tmp_path: Path) -> None:
    place = Namespace(tmp_path, "toy")
    write_item_embeddings(place, ITEM2VEC, CUTOFF, rows([3.0, 4.0, 0.0], [0.0, 0.0, 1.0]))
    record = find_item_embeddings(place, ITEM2VEC, CUTOFF)
    part = record.part(ITEM2VEC.name, "1998-04-23T00:00:00Z", MOVIELENS)
    assert (part.kind, part.checksum, part.path) == (PartKind.VECTORS, record.sha256, record.item_embeddings)
    definition = channels(MOVIELENS)[ITEM2VEC.name].definition
    assert part.data == {"size": 3, "similarity": "cosine", "definition": definition}
    with pytest.raises(JobError, match=r"expected vectors of one size, received \[1, 2\]"):
        write_item_embeddings(place, ITEM2VEC, CUTOFF, rows([1.0], [1.0, 2.0]))


def test_a_record_of_before_sizes_were_written_down_has_the_size_of_then(tmp_path: Path) -> None:
    place = Namespace(tmp_path, "toy")
    write_item_embeddings(place, ITEM2VEC, CUTOFF, rows([1.0] * EMBEDDING_SIZE))
    (path,) = place.embeddings.glob("*/*.json")
    write_json(path, {name: value for name, value in read_json(path).items() if name not in {"size", "similarity"}})
    assert find_item_embeddings(place, ITEM2VEC, CUTOFF).part("item2vec", "", MOVIELENS).data["size"] == EMBEDDING_SIZE
