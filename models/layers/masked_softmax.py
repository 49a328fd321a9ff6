"""Shares of what is there."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_NEVER = -1e9
"""A score beside which no other leaves a share; finite, so that where nothing is there no gradient is NaN."""


@keras.saving.register_keras_serializable(package="kestrel")
class MaskedSoftmax(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Softmax over the last axis of what is there: padding has no share; where nothing is there, nothing has one.

    Call arguments:
        scores: float32 `[batch_size, ..., length]`.
        known: float32 that broadcasts to the same shape: 1 where there is something, otherwise 0.

    Returns:
        float32 of the scores' shape.

    Example:
        >>> MaskedSoftmax()(ops.array([[1.0, 9.0, 1.0]]), ops.array([[1.0, 0.0, 1.0]]))  # 0.5, 0, 0.5
    """

    def call(self, scores: Any, known: Any) -> Any:
        """Return the shares."""
        return ops.softmax(ops.where(known > 0, scores, _NEVER), axis=-1) * known
