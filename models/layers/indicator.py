"""Indices to ones and zeros."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.vocabulary_index import MISSING_INDEX


@keras.saving.register_keras_serializable(package="kestrel")
class Indicator(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sets a 1 at the place of each index but the missing one's: one-hot of one index, multi-hot of a list.

    Call arguments:
        indices: int32 `[batch_size]` or `[batch_size, length]`, from 0 to `size` - 1.

    Returns:
        float32 `[batch_size, size - 1]`: index i, 1 or more, at place i - 1.
    """

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.size = size

    def call(self, indices: Any) -> Any:
        """Return the ones and zeros."""
        flags = ops.one_hot(indices, self.size)
        if len(indices.shape) > 1:
            flags = ops.max(flags, axis=1)
        return flags[:, MISSING_INDEX + 1 :]

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "size": self.size}
