"""Layers that multiply what they see with what the first of them saw."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class VectorCross(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns x0 (x . w) + b + x.

    Wang et al., Deep & Cross Network for Ad Click Predictions (ADKDD 2017), equation 3.

    Call arguments:
        first: x0, float32 `[batch_size, width]`.
        values: x, float32 of the same shape.

    Returns:
        float32 of the same shape.
    """

    def build(self, first_shape: tuple[int | None, int], values_shape: tuple[int | None, int]) -> None:
        """Make w and b."""
        del values_shape
        self.kernel = self.add_weight(shape=(first_shape[-1], 1), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(first_shape[-1],), initializer="zeros", name="bias")

    def call(self, first: Any, values: Any) -> Any:
        """Return the next x."""
        return first * ops.matmul(values, self.kernel) + self.bias + values


@keras.saving.register_keras_serializable(package="kestrel")
class MatrixCross(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns x0 * (W x + b) + x, number by number; with a gate, x0 * (W x + b) * sigmoid(G x) + x.

    Wang et al., DCN V2 (WWW 2021), equations 1 and, where there is a rank, 2 with W = U V^T. The gate is that of Wang
    et al., Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction (CIKM 2023), equation 3.

    Args:
        rank: Of W; 0 is full.
        gated: Whether there is a gate.

    Call arguments:
        first: x0, float32 `[batch_size, width]`.
        values: x, float32 of the same shape.

    Returns:
        float32 of the same shape.
    """

    def __init__(self, rank: int = 0, *, gated: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.rank, self.gated = rank, gated

    def build(self, first_shape: tuple[int | None, int], values_shape: tuple[int | None, int]) -> None:
        """Make W, whole or as two, with b, and the gate."""
        del values_shape
        width = first_shape[-1]
        self.narrow = keras.layers.Dense(self.rank, use_bias=False, name="narrow") if self.rank else None
        self.wide = keras.layers.Dense(width, name="wide")
        self.gate = keras.layers.Dense(width, use_bias=False, activation="sigmoid", name="gate") if self.gated else None
        if self.narrow is not None:
            self.narrow.build(first_shape)
        self.wide.build((first_shape[0], self.rank or width))
        if self.gate is not None:
            self.gate.build(first_shape)

    def call(self, first: Any, values: Any) -> Any:
        """Return the next x."""
        crossed = first * self.wide(values if self.narrow is None else self.narrow(values))
        return (crossed if self.gate is None else crossed * self.gate(values)) + values

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "rank": self.rank, "gated": self.gated}
