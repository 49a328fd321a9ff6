"""Raw numbers to numbers of mean 0 and deviation 1, with a flag that says whether there was one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

LIMIT = 8.0
"""Standardised values are cut here: a wild value online must not drown the others."""


@keras.saving.register_keras_serializable(package="kestrel")
class Standardise(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes (x - mean) / std, of log(1 + x) where `log` is set; 0 where x is `missing` or not finite.

    Call arguments:
        values: int64 or float32 `[batch_size]`.

    Returns:
        float32 `[batch_size, 2]`: the standardised value, and 1 where it was known, else 0.
    """

    def __init__(self, mean: float, std: float, missing: float, log: bool, **options: Any) -> None:  # noqa: FBT001 - Keras rebuilds a layer from its config by keyword
        super().__init__(trainable=False, **options)
        self.mean, self.std, self.missing, self.log = mean, std, missing, log

    def call(self, values: Any) -> Any:
        """Return value and flag."""
        numbers = ops.cast(values, "float32")
        known = ops.logical_and(ops.isfinite(numbers), ops.not_equal(numbers, self.missing))
        safe = ops.where(known, numbers, 0.0)
        scaled = ops.log1p(ops.maximum(safe, 0.0)) if self.log else safe
        standard = ops.clip((scaled - self.mean) / self.std, -LIMIT, LIMIT)
        return ops.stack([ops.where(known, standard, 0.0), ops.cast(known, "float32")], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "missing": self.missing,
            "log": self.log,
        }
