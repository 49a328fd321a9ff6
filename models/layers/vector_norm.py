"""Lists of numbers to lists of length one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.rescale import is_known


@keras.saving.register_keras_serializable(package="kestrel")
class VectorNorm(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Divides a list by its p-norm; numbers that are missing or not finite count as 0, and a list of zeros stays one.

    Call arguments:
        values: int64 or float32 `[batch_size, length]`.

    Returns:
        float32 `[batch_size, length]`.
    """

    def __init__(self, order: float, missing: float, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.order, self.missing = float(order), missing

    def call(self, values: Any) -> Any:
        """Return the divided list."""
        numbers = ops.cast(values, "float32")
        known = ops.where(is_known(numbers, self.missing), numbers, 0.0)
        largest = ops.max(ops.absolute(known), axis=1, keepdims=True)
        # Divided by the largest first, so that squares of large numbers stay finite.
        safe = known / ops.where(largest > 0, largest, 1.0)
        norm = ops.norm(safe, ord=self.order, axis=1, keepdims=True)
        return safe / ops.where(norm > 0, norm, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "order": self.order, "missing": self.missing}
