"""How long ago something was."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

_DAY_S = 86_400.0


@keras.saving.register_keras_serializable(package="kestrel")
class Elapsed(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes log(1 + seconds) from a moment to the request, as a share of a day's: 0 is just now, 1 a day ago.

    Nothing of it is fitted: what is an hour ago is the same in every data set. A moment after the request counts as
    now.

    Call arguments:
        request: int64 `[batch_size]` or `[1]`, seconds since 1970; 0 is missing.
        moment: int64 `[batch_size]` or `[1]`, the same.

    Returns:
        float32 `[batch_size, 2]`: the logarithm, and 1 where both are known, else 0.
    """

    def call(self, request: Any, moment: Any) -> Any:
        """Return logarithm and flag."""
        known = ops.logical_and(request > 0, moment > 0)
        seconds = ops.cast(ops.maximum(request - moment, 0), "float32")
        share = ops.log1p(seconds) / math.log1p(_DAY_S)
        return ops.stack([ops.where(known, share, 0.0), ops.cast(known, "float32")], axis=-1)
