"""A count whose events grow less with time."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_DAY_S = 86_400.0
_MOST_HALF_LIVES = 64.0


@keras.saving.register_keras_serializable(package="kestrel")
class DecayedCount(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes log2(1 + count) of the count that falls to one on a given day and is halved every half-life.

    Call arguments:
        request: int64 `[batch_size]` or `[1]`, seconds since 1970; 0 is missing.
        until: float32 `[batch_size]` or `[1]`, days since 1970; not positive or not finite is missing.

    Returns:
        float32 `[batch_size, 2]`: the logarithm, and 1 where both are known, else 0.
    """

    def __init__(self, half_life_days: float, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.half_life_days = half_life_days

    def call(self, request: Any, until: Any) -> Any:
        """Return logarithm and flag."""
        known = ops.logical_and(request > 0, ops.logical_and(ops.isfinite(until), until > 0))
        today = ops.cast(ops.cast(request, "float64") / _DAY_S, "float32")
        half_lives = (ops.where(known, until, 0.0) - today) / self.half_life_days
        count = ops.power(2.0, ops.clip(half_lives, -_MOST_HALF_LIVES, _MOST_HALF_LIVES))
        return ops.stack([ops.where(known, ops.log2(1.0 + count), 0.0), ops.cast(known, "float32")], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "half_life_days": self.half_life_days}
