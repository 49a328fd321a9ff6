"""Two vectors to a logit, by heads."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class BilinearFusion(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns b + w1 . x + w2 . y + the sum over heads of x_h W_h y_h.

    Mao et al., FinalMLP (AAAI 2023), equations 8 to 10; x_h and y_h are the heads' parts of x and y.

    Args:
        heads: Parts of both vectors; both widths have to be multiples of it.

    Call arguments:
        first: x, float32 `[batch_size, width]`.
        second: y, float32 `[batch_size, other_width]`.

    Returns:
        float32 `[batch_size, 1]`.
    """

    def __init__(self, heads: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads

    def build(self, first_shape: tuple[int | None, int], second_shape: tuple[int | None, int]) -> None:
        """Make the weights; ValueError where a width is no multiple of the heads."""
        widths = first_shape[-1], second_shape[-1]
        if any(width % self.heads for width in widths):
            msg = f"expected widths that {self.heads} heads divide, received {widths[0]} and {widths[1]}"
            raise ValueError(msg)
        shape = (self.heads, *(width // self.heads for width in widths))
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")
        self.first = keras.layers.Dense(1, name="first")
        self.second = keras.layers.Dense(1, use_bias=False, name="second")
        self.first.build(first_shape)
        self.second.build(second_shape)

    def call(self, first: Any, second: Any) -> Any:
        """Return the logit."""
        parts = (ops.reshape(each, (-1, self.heads, each.shape[-1] // self.heads)) for each in (first, second))
        one, other = (ops.transpose(each, (1, 0, 2)) for each in parts)
        bilinear = ops.sum(ops.matmul(one, self.kernel) * other, axis=(0, 2))
        return self.first(first) + self.second(second) + ops.expand_dims(bilinear, -1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "heads": self.heads}
