"""Raw numbers to numbers of a known range, with a flag that says whether there was one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from feature_repo.contracts.columns import Curve
from models.transforms import LIMIT


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


def is_known(numbers: Any, missing: float) -> Any:
    """Tell which numbers are there: finite, and not `missing`."""
    return ops.logical_and(ops.isfinite(numbers), ops.not_equal(numbers, missing))


@keras.saving.register_keras_serializable(package="kestrel")
class Rescale(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes (curve(x) - centre) / scale, cut to a range; 0 where x is `missing` or not finite.

    Call arguments:
        values: int64 or float32 `[batch_size]`.

    Returns:
        float32 `[batch_size, 2]`: the rescaled value, and 1 where it was known, else 0.
    """

    def __init__(
        self,
        centre: float,
        scale: float,
        missing: float,
        *,
        curve: str = Curve.LINEAR.value,
        lowest: float = -LIMIT,
        highest: float = LIMIT,
        **options: Any,
    ) -> None:
        super().__init__(trainable=False, **options)
        self.centre, self.scale, self.missing, self.curve = centre, scale, missing, curve
        self.lowest, self.highest = lowest, highest

    def call(self, values: Any) -> Any:
        """Return value and flag."""
        numbers = ops.cast(values, "float32")
        known = is_known(numbers, self.missing)
        bent = bend(ops.where(known, numbers, 0.0), Curve(self.curve))
        rescaled = ops.clip((bent - self.centre) / self.scale, self.lowest, self.highest)
        return ops.stack([ops.where(known, rescaled, 0.0), ops.cast(known, "float32")], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        names = ("centre", "scale", "missing", "curve", "lowest", "highest")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
