"""A list of embeddings to one, padding left out."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.vocabulary_index import MISSING_INDEX


@keras.saving.register_keras_serializable(package="kestrel")
class MeanPooling(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Averages the embeddings of the terms that are there; zeros where there is none.

    Call arguments:
        embeddings: float32 `[batch_size, length, embedding_size]`, or `[batch_size, embedding_size]`.
        indices: int32 `[batch_size, length]` or `[batch_size]`; 0 is padding.

    Returns:
        float32 `[batch_size, embedding_size]`.
    """

    def call(self, embeddings: Any, indices: Any) -> Any:
        """Return the average."""
        known = ops.expand_dims(ops.cast(ops.not_equal(indices, MISSING_INDEX), "float32"), -1)
        if len(indices.shape) == 1:
            return embeddings * known
        return ops.sum(embeddings * known, axis=1) / ops.maximum(ops.sum(known, axis=1), 1.0)
