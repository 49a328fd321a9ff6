"""A user's vector, from the items liked last: what pipelines/embeddings/user_vectors.py computes for a snapshot.

It is made anew for each request, from the vectors of the snapshot in force: so it knows what the user liked a moment
ago, and never meets item vectors of another fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.embeddings import RECENCY_DECAY
from feature_repo.contracts.manifests import Similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from serving.recommender.embeddings import ItemVectors


def user_vector(items: ItemVectors, liked: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return `[size]`, the recency-weighted mean of the liked items' vectors; zeros if none has one.

    It is of unit length where vectors are compared by their cosine.

    Args:
        items: The vectors of the items.
        liked: Positions of the items that the user liked among the last events, latest first.
    """
    known = liked[items.known[liked]]
    weights = RECENCY_DECAY ** np.arange(len(known))
    total = weights @ items.vectors[known].astype(np.float64)
    cosine = items.similarity is Similarity.COSINE
    length = float(np.linalg.norm(total)) if cosine else float(weights.sum())
    return np.asarray(total / length if length > 0 else total, dtype=np.float32)
