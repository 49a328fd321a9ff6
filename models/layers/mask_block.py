"""A layer that sees its input through a mask, which the whole row gives."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class MaskBlock(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns relu(layer norm(W (mask * values))), where mask = W2 relu(W1 row + b1) + b2.

    Wang, She, Zhang, MaskNet (DLP-KDD 2021), equations 5 to 9.

    Args:
        width: Of what is returned.
        reduction: How many times as wide as the row the mask's inner layer is.

    Call arguments:
        values: float32 `[batch_size, num_values]`.
        row: float32 `[batch_size, row_width]`: the vectors of all fields.

    Returns:
        float32 `[batch_size, width]`.
    """

    def __init__(self, width: int, reduction: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        self.width, self.reduction = width, reduction

    def build(self, values_shape: tuple[int | None, int], row_shape: tuple[int | None, int]) -> None:
        """Make the mask's layers and the block's."""
        inner = max(1, round(row_shape[-1] * self.reduction))
        self.aggregation = keras.layers.Dense(inner, activation="relu", name="aggregation")
        self.projection = keras.layers.Dense(values_shape[-1], name="projection")
        self.hidden = keras.layers.Dense(self.width, use_bias=False, name="hidden")
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.aggregation.build(row_shape)
        self.projection.build((row_shape[0], inner))
        self.hidden.build(values_shape)
        self.norm.build((values_shape[0], self.width))

    def call(self, values: Any, row: Any) -> Any:
        """Return the block's values."""
        mask = self.projection(self.aggregation(row))
        return ops.relu(self.norm(self.hidden(mask * values)))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "width": self.width, "reduction": self.reduction}
