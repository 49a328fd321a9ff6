"""Numbers to their squares and roots."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class Powers(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes x^2 and sqrt(|x|) of each number x; both forget its sign, which x itself has.

    The root has no finite gradient at 0: numbers have to be inputs, and not what other layers have learned.

    Call arguments:
        numbers: float32 `[batch_size, num_numbers]`.

    Returns:
        float32 `[batch_size, 2 * num_numbers]`: the squares, then the roots.

    Example:
        >>> Powers()(ops.array([[-4.0, 0.25]]))  # 16, 0.0625, 2, 0.5
    """

    def call(self, numbers: Any) -> Any:
        """Return squares and roots."""
        return ops.concatenate([ops.square(numbers), ops.sqrt(ops.abs(numbers))], axis=-1)
