"""A sequence of embeddings to one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class WeightedPooling(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sums embeddings by weight, divided by 1 + the sum of weights: nothing liked gives zeros, not a random vector.

    Call arguments:
        embeddings: float32 `[batch_size, length, embedding_size]`.
        weights: float32 `[batch_size, length]`, none negative.

    Returns:
        float32 `[batch_size, embedding_size]`.
    """

    def call(self, embeddings: Any, weights: Any) -> Any:
        """Return the pooled embedding."""
        total = ops.sum(embeddings * ops.expand_dims(weights, -1), axis=1)
        return total / (1.0 + ops.sum(weights, axis=1, keepdims=True))
