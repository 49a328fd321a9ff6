"""Indices to vectors."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="kestrel")
class TermEmbedding(keras.layers.Embedding):  # type: ignore[misc]  # Keras ships no types
    """`keras.layers.Embedding` in two operations of the graph instead of seven: no index is negative.

    Call arguments:
        indices: int32 of any shape, none negative.

    Returns:
        float32 of the same shape and `output_dim`.
    """

    def call(self, indices: Any) -> Any:
        """Return a vector for each index."""
        return tf.gather(self.embeddings, indices)
