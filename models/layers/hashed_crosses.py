"""A weight for two terms together."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.vocabulary_index import MISSING_INDEX

_FIRST, _SECOND, _PAIR = 2_654_435_761, 2_246_822_519, 3_266_489_917
"""Odd factors, far from one another: xxHash's primes."""


@keras.saving.register_keras_serializable(package="kestrel")
class HashedCrosses(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sums a weight for each pair of columns of terms: that of the two terms together, found by their hash.

    The weights of a list's terms are averaged; a missing term has none. All pairs share one table, in which two crosses
    may meet.

    Args:
        pairs: Places of the columns of each pair.
        buckets: Weights of the table.
        l2: Weight decay on them.

    Call arguments:
        columns: A list of int32 `[batch_size]` or `[batch_size, length]`; 0 is missing.

    Returns:
        float32 `[batch_size, 1]`.
    """

    def __init__(self, pairs: list[tuple[int, int]], buckets: int, l2: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.pairs, self.buckets, self.l2 = [(int(one), int(other)) for one, other in pairs], buckets, l2

    def build(self, shape: Any) -> None:
        """Make the table."""
        del shape
        self.weights_of_crosses = self.add_weight(
            shape=(self.buckets,), initializer="zeros", regularizer=keras.regularizers.L2(self.l2), name="crosses"
        )

    def call(self, columns: list[Any]) -> Any:
        """Return the sum over pairs."""
        lists = [ops.cast(each if len(each.shape) > 1 else ops.expand_dims(each, -1), "int64") for each in columns]
        total = 0.0
        for number, (one, other) in enumerate(self.pairs):
            first, second = ops.expand_dims(lists[one], 2), ops.expand_dims(lists[other], 1)
            there = ops.cast(ops.logical_and(first != MISSING_INDEX, second != MISSING_INDEX), "float32")
            buckets = ops.mod(first * _FIRST + second * _SECOND + number * _PAIR, self.buckets)
            weights = ops.take(self.weights_of_crosses, buckets, axis=0) * there
            total += ops.sum(weights, axis=(1, 2)) / ops.maximum(ops.sum(there, axis=(1, 2)), 1.0)
        return ops.expand_dims(total, -1)

    def compute_output_spec(self, columns: list[Any]) -> Any:
        """Say that there is one number for each row."""
        return keras.KerasTensor((columns[0].shape[0], 1), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "pairs": self.pairs, "buckets": self.buckets, "l2": self.l2}
