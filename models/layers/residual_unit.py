"""Two layers, and what went in beside what comes out."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class ResidualUnit(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns relu(x + W2 relu(W1 x + b1) + b2).

    Shan et al., Deep Crossing: Web-Scale Modeling without Manually Crafted Combinatorial Features (KDD 2016), figure 2.

    Args:
        width: Of the layer between.

    Call arguments:
        values: float32 `[batch_size, num_values]`.

    Returns:
        float32 of the same shape.
    """

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.width = width

    def build(self, shape: tuple[int | None, int]) -> None:
        """Make both layers."""
        self.inner = keras.layers.Dense(self.width, activation="relu", name="inner")
        self.outer = keras.layers.Dense(shape[-1], name="outer")
        self.inner.build(shape)
        self.outer.build((shape[0], self.width))

    def call(self, values: Any) -> Any:
        """Return the sum, cut off at 0."""
        return ops.relu(values + self.outer(self.inner(values)))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "width": self.width}
