"""How far the candidate's number is from the user's."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.rescale import is_known
from models.transforms import LIMIT


@keras.saving.register_keras_serializable(package="kestrel")
class NumericMatch(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns |candidate - mean| / max(std, least), cut off; 0 where one of them is missing or not finite.

    Call arguments:
        candidate: float32 `[batch_size]`.
        mean: float32 `[batch_size]` or `[1]`, of the items that the user had to do with.
        std: float32 `[batch_size]` or `[1]`, of the same.

    Returns:
        float32 `[batch_size, 2]`: the distance, and 1 where all are known, else 0.
    """

    def __init__(self, missing: float, least: float, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.missing, self.least = missing, least

    def call(self, candidate: Any, mean: Any, std: Any) -> Any:
        """Return distance and flag."""
        known = is_known(candidate, self.missing)
        for figure in (mean, std):
            known = ops.logical_and(known, is_known(figure, self.missing))
        distance = ops.absolute(candidate - mean) / ops.maximum(std, self.least)
        return ops.stack([ops.where(known, ops.minimum(distance, LIMIT), 0.0), ops.cast(known, "float32")], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "missing": self.missing, "least": self.least}
