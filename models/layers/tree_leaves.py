"""Numbers to the leaves of decision trees."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class TreeLeaves(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Tells which leaf of each tree a row falls into.

    Nodes are counted through all trees, `2 * leaves - 1` for each: `leaves - 1` with a split, then the leaves. A row
    begins at a tree's first node. It goes to the lower child where its number is at most the threshold, else to the
    upper one, and as often as the deepest tree needs it: a leaf leads to itself.

    What was fitted are weights, not trainable, in this order, `[trees * (2 * leaves - 1)]` each: the column that a node
    compares (int32), its threshold (float32), its lower and its upper child (int32).

    Args:
        trees: How many there are.
        leaves: How many the largest has, two at least; a smaller tree has nodes that nothing leads to.
        depth: Splits on the longest way to a leaf.

    Call arguments:
        numbers: float32 `[batch_size, num_numbers]`. None is NaN.

    Returns:
        int32 `[batch_size, trees]`: from 0, within each tree.
    """

    def __init__(self, trees: int, leaves: int, depth: int, **options: Any) -> None:
        super().__init__(**{"trainable": False} | options)
        self.trees, self.leaves, self.depth = trees, leaves, depth
        nodes = trees * (2 * leaves - 1)
        self.columns = self.add_weight(shape=(nodes,), dtype="int32", initializer="zeros", name="columns")
        self.thresholds = self.add_weight(shape=(nodes,), dtype="float32", initializer="zeros", name="thresholds")
        self.lower = self.add_weight(shape=(nodes,), dtype="int32", initializer="zeros", name="lower")
        self.upper = self.add_weight(shape=(nodes,), dtype="int32", initializer="zeros", name="upper")

    def call(self, numbers: Any) -> Any:
        """Return the leaves."""
        first = np.arange(self.trees, dtype=np.int32) * (2 * self.leaves - 1)
        node = ops.zeros_like(numbers[:, :1], dtype="int32") + first
        for _ in range(self.depth):
            number = ops.take_along_axis(numbers, ops.take(self.columns, node), axis=1)
            at_most = number <= ops.take(self.thresholds, node)
            node = ops.where(at_most, ops.take(self.lower, node), ops.take(self.upper, node))
        return node - (first + self.leaves - 1)

    def compute_output_spec(self, numbers: Any) -> Any:
        """Say that there is a leaf for each tree."""
        return keras.KerasTensor((numbers.shape[0], self.trees), dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), **{name: getattr(self, name) for name in ("trees", "leaves", "depth")}}
