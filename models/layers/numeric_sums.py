"""A vector per number, scaled by it, as far as a factorisation machine asks for them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class NumericSums(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Gives each number a vector of its own, multiplies the two, and sums the products and their squares.

    An FM needs no more of its fields. So no row has a tensor of numbers by dimensions, which costs more than all else
    of a small graph.

    Call arguments:
        numbers: float32 `[batch_size, num_numbers]`.

    Returns:
        The sum of the scaled vectors, and that of their squares, float32 `[batch_size, embedding_size]` each.
    """

    def __init__(self, embedding_size: int, l2: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.embedding_size, self.l2 = embedding_size, l2

    def build(self, shape: tuple[int | None, int]) -> None:
        """Make one vector per number."""
        self.vectors = self.add_weight(
            shape=(shape[-1], self.embedding_size),
            initializer=keras.initializers.RandomNormal(stddev=0.01),
            regularizer=keras.regularizers.L2(self.l2),
            name="vectors",
        )

    def call(self, numbers: Any) -> tuple[Any, Any]:
        """Return both sums."""
        return ops.matmul(numbers, self.vectors), ops.matmul(ops.square(numbers), ops.square(self.vectors))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "embedding_size": self.embedding_size, "l2": self.l2}
