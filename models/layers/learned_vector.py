"""One vector for all rows."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class LearnedVector(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Gives every row the same vector, which is learned.

    Args:
        size: Dimensions of the vector.

    Call arguments:
        values: float32 `[batch_size, ...]`, of which only the number of rows counts.

    Returns:
        float32 `[batch_size, size]`.
    """

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the vector."""
        del shape
        self.vector = self.add_weight(shape=(1, self.size), initializer="random_normal", name="vector")

    def call(self, values: Any) -> Any:
        """Return the vector, row by row."""
        return ops.repeat(self.vector, ops.shape(values)[0], axis=0)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """Return `[batch_size, size]`."""
        return shape[0], self.size

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "size": self.size}
