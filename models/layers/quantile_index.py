"""Numbers to the indices of buckets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from feature_repo.contracts.columns import Curve
from models.layers.rescale import bend, is_known
from models.layers.vocabulary_index import FIRST_TERM_INDEX, MISSING_INDEX


@keras.saving.register_keras_serializable(package="kestrel")
class QuantileIndex(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Finds a number's bucket: 0 is missing, 2 is below the first boundary, and so on; a boundary is in the upper one.

    Call arguments:
        values: int64 or float32 `[batch_size]`.

    Returns:
        int32 `[batch_size]`.
    """

    def __init__(
        self, boundaries: list[float], missing: float, curve: str = Curve.LINEAR.value, **options: Any
    ) -> None:
        super().__init__(**{**options, "trainable": False})
        self.boundaries, self.missing, self.curve = list(boundaries), missing, curve

    def call(self, values: Any) -> Any:
        """Return the index of each bucket."""
        numbers = ops.cast(values, "float32")
        known = is_known(numbers, self.missing)
        bent = bend(ops.where(known, numbers, 0.0), Curve(self.curve))
        bucket = tf.searchsorted(np.asarray(self.boundaries, np.float32), bent, side="right")
        return ops.where(known, bucket + FIRST_TERM_INDEX, MISSING_INDEX)

    def compute_output_spec(self, values: Any) -> Any:
        """Say that the output has the input's shape."""
        return keras.KerasTensor(values.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {
            **super().get_config(),
            "boundaries": self.boundaries,
            "missing": self.missing,
            "curve": self.curve,
        }
