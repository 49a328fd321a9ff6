"""How many sessions ago each of a user's events was."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.vocabulary_index import FIRST_TERM_INDEX, MISSING_INDEX


@keras.saving.register_keras_serializable(package="kestrel")
class SessionsAgo(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Counts sessions back from the latest: 0 is padding, 1 is never met, 2 is the latest session, 3 the one before.

    Call arguments:
        ordinals: int64 `[batch_size, length]`: 1 is the user's first session; 0 is padding.

    Returns:
        int32 `[batch_size, length]`.

    Example:
        >>> SessionsAgo()(ops.array([[7, 7, 6, 0]]))  # 2, 2, 3, 0
    """

    def call(self, ordinals: Any) -> Any:
        """Return the index of each session."""
        ago = ops.cast(ops.max(ordinals, axis=1, keepdims=True) - ordinals, "int32")
        return ops.where(ordinals > 0, ago + FIRST_TERM_INDEX, MISSING_INDEX)

    def compute_output_spec(self, ordinals: Any) -> Any:
        """Say that the output has the ordinals' shape."""
        return keras.KerasTensor(ordinals.shape, dtype="int32")
