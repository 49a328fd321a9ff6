"""Raw numbers to numbers of a known range, with a flag that says whether there was one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from feature_repo.contracts.columns import Curve
from models.transforms import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def bend(values: Any, curve: Curve) -> Any:
    """Return numbers with a curve applied, as `Curve` says."""
    match curve:
        case Curve.LOG:
            return ops.log1p(ops.maximum(values, 0.0))
        case Curve.SQRT:
            return ops.sqrt(ops.maximum(values, 0.0))
        case Curve.SQUARE:
            return ops.square(values)
        case Curve.LINEAR:
            return values


def is_known(numbers: Any, missing: Any) -> Any:
    """Tell which numbers are there: finite, and not `missing`."""
    return ops.logical_and(ops.isfinite(numbers), ops.not_equal(numbers, missing))


@dataclass(frozen=True, slots=True)
class Scaled:
    """How one column is rescaled."""

    centre: float = 0.0
    scale: float = 1.0
    missing: float = -1.0
    """Stands for no number."""
    curve: str = Curve.LINEAR.value
    lowest: float = -LIMIT
    highest: float = LIMIT


@keras.saving.register_keras_serializable(package="kestrel")
class Rescale(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes (curve(x) - centre) / scale, cut to a range; 0 where x is `missing` or not finite.

    It takes all columns at once: a graph of many small operations costs more than their arithmetic.

    Args:
        columns: How each is rescaled.

    Call arguments:
        columns: int64 or float32 `[batch_size]` each.

    Returns:
        float32 `[batch_size, 2]` for each: the rescaled value, and 1 where it was known, else 0.
    """

    def __init__(self, columns: Sequence[Scaled | dict[str, Any]], **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.columns = [each if isinstance(each, Scaled) else Scaled(**each) for each in columns]

    def call(self, *columns: Any) -> list[Any]:
        """Return value and flag of each."""
        # Columns of one type and one curve stand side by side.
        order = sorted(range(len(columns)), key=lambda place: (columns[place].dtype.name, self.columns[place].curve))
        numbers = ops.concatenate(
            [
                ops.cast(ops.stack([columns[place] for place in places], axis=-1), "float32")
                for _, places in _runs(order, lambda place: columns[place].dtype.name)
            ],
            axis=-1,
        )
        centres, scales, missing, lowest, highest = (
            np.array([getattr(self.columns[place], name) for place in order], np.float32)
            for name in ("centre", "scale", "missing", "lowest", "highest")
        )
        known = is_known(numbers, missing)
        curves = [
            (Curve(curve), len(places)) for curve, places in _runs(order, lambda place: self.columns[place].curve)
        ]
        parts = tf.split(ops.where(known, numbers, 0.0), [count for _, count in curves], axis=-1)
        bent = ops.concatenate([bend(part, curve) for part, (curve, _) in zip(parts, curves, strict=True)], axis=-1)
        rescaled = ops.clip((bent - centres) / scales, lowest, highest)
        flagged = ops.stack([ops.where(known, rescaled, 0.0), ops.cast(known, "float32")], axis=-1)
        made = dict(zip(order, ops.unstack(flagged, len(order), axis=1), strict=True))
        return [made[place] for place in range(len(order))]

    def compute_output_spec(self, *columns: Any) -> list[Any]:
        """Say that each output has a flag beside each value."""
        return [keras.KerasTensor((*column.shape, 2), dtype="float32") for column in columns]

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "columns": [asdict(each) for each in self.columns]}


def _runs(places: list[int], key: Callable[[int], str]) -> list[tuple[str, list[int]]]:
    return [(value, list(some)) for value, some in groupby(places, key)]
