"""An activation whose bend follows the data."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class Dice(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Passes a value where it is high for its unit, and a learned share of it where it is low; between them softly.

    Zhou et al., Deep Interest Network for Click-Through Rate Prediction (KDD 2018), section 5.2:

        p s + (1 - p) alpha s    with    p = sigmoid((s - mean) / sqrt(variance + epsilon))

    Mean and variance are of the batch in training, and moving averages otherwise: no row depends on another then.

    Args:
        momentum: How slowly the moving averages follow; 0.9 has forgotten its start after some 30 batches.
        epsilon: Added to the variance; the paper's.

    Call arguments:
        values: float32 `[batch_size, ..., units]`.
        known: float32 `[batch_size, ...]`, 1 where the values count for mean and variance, 0 at padding; or None.
        training: whether mean and variance are the batch's.

    Returns:
        float32 of the values' shape.

    Example:
        >>> Dice()(ops.array([[100.0, -100.0]]))  # 100 and -0: alpha starts with 0, the averages with 0 and 1
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-8, **options: Any) -> None:
        super().__init__(**options)
        self.momentum, self.epsilon = momentum, epsilon
        self._normalised = keras.layers.BatchNormalization(
            momentum=momentum, epsilon=epsilon, center=False, scale=False, name="normalised"
        )

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make one share per unit, and the moving averages."""
        self._normalised.build(shape)
        self.alpha = self.add_weight(shape=(shape[-1],), initializer="zeros", name="alpha")

    def call(self, values: Any, known: Any = None, *, training: bool = False) -> Any:
        """Return the activated values."""
        high = ops.sigmoid(self._normalised(values, training=training, mask=known))
        return values * (high + (1.0 - high) * self.alpha)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}
