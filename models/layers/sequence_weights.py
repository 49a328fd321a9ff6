"""What a user thought of the items rated last."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class SequenceWeights(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Splits a sequence of values into how much each was liked and disliked, against the prior.

    A value v weighs max(v - prior, 0) as liked and max(prior - v, 0) as disliked; padding and NaN weigh nothing.

    Call arguments:
        values: float32 `[batch_size, length]`; negative means padding (an event's value may be 0).

    Returns:
        float32 `[batch_size, length, 3]`: liked, disliked, and 1 where there is a value.
    """

    def __init__(self, prior: float, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.prior = prior

    def call(self, values: Any) -> Any:
        """Return the weights."""
        known = ops.logical_and(ops.isfinite(values), values >= 0)
        distance = ops.where(known, values - self.prior, 0.0)
        return ops.stack([ops.relu(distance), ops.relu(-distance), ops.cast(known, "float32")], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "prior": self.prior}
