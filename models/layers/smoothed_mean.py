"""A mean that is pulled towards the prior while few values stand behind it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class SmoothedMean(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes (count x mean + pseudo_count x prior) / (count + pseudo_count) - prior.

    Where count or mean are unknown the result is 0: nothing is known beyond the prior.

    Call arguments:
        counts: int64 `[batch_size]`; not positive means unknown.
        means: float32 `[batch_size]`; negative or not finite means unknown (events may all have the value 0).

    Returns:
        float32 `[batch_size, 1]`, in the unit of the mean.
    """

    def __init__(self, prior: float, pseudo_count: float, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.prior, self.pseudo_count = prior, pseudo_count

    def call(self, counts: Any, means: Any) -> Any:
        """Return the smoothed mean's distance from the prior."""
        number = ops.cast(counts, "float32")
        known = ops.logical_and(number > 0, ops.logical_and(ops.isfinite(means), means >= 0))
        excess = ops.where(known, number * (ops.where(known, means, 0.0) - self.prior), 0.0)
        return ops.expand_dims(excess / (ops.where(known, number, 0.0) + self.pseudo_count), -1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "prior": self.prior, "pseudo_count": self.pseudo_count}
