"""A moment's place in day, week or year."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from feature_repo.contracts.on_demand import Computation
from models.layers.vocabulary_index import FIRST_TERM_INDEX, MISSING_INDEX

_DAY_S, _HOUR_S = 86_400, 3_600
_THURSDAY = 3
"""1 January 1970 was one; Monday is 0."""
_DAYS_OF_DECEMBER = 31
"""The year of seasons that 1970 began in was so old already."""
_YEAR = 3_652_425
"""The mean year in ten-thousandths of a day."""


@keras.saving.register_keras_serializable(package="kestrel")
class CalendarIndex(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Finds the hour, weekday or season of a moment, in UTC, in whole numbers: 0 is missing, the first is 2.

    Call arguments:
        moments: int64 `[batch_size]`, seconds since 1970; 0 is missing.

    Returns:
        int32 `[batch_size]`.
    """

    def __init__(self, part: str, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.part = part

    def call(self, moments: Any) -> Any:
        """Return the index of each moment's part."""
        days = ops.floor_divide(moments, _DAY_S)
        match Computation(self.part):
            case Computation.HOUR:
                place = ops.floor_divide(ops.mod(moments, _DAY_S), _HOUR_S)
            case Computation.WEEKDAY:
                place = ops.mod(days + _THURSDAY, 7)
            case Computation.SEASON:
                place = ops.mod(ops.floor_divide((days + _DAYS_OF_DECEMBER) * 40_000, _YEAR), 4)
            case other:
                msg = f"calendar index: expected hour, weekday or season, received {other}"
                raise ValueError(msg)
        return ops.where(ops.equal(moments, 0), MISSING_INDEX, ops.cast(place, "int32") + FIRST_TERM_INDEX)

    def compute_output_spec(self, moments: Any) -> Any:
        """Say that the output has the input's shape."""
        return keras.KerasTensor(moments.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "part": self.part}
