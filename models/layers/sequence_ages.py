"""How long ago each of a user's events was, in buckets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from models.layers.vocabulary_index import FIRST_TERM_INDEX, MISSING_INDEX, index_count

_BUCKETS = 32
"""The last begins at 68 years."""
_FIRST_SECONDS = 2 ** np.arange(_BUCKETS, dtype=np.int64) - 1
AGE_COUNT = index_count(_BUCKETS, 1)
"""How many indices there are."""
NOW_INDEX = FIRST_TERM_INDEX
"""What happens at the moment of the request."""


@keras.saving.register_keras_serializable(package="kestrel")
class SequenceAges(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Finds the bucket of log2(1 + seconds) from each event to the request: 0 is padding, 1 is never met, 2 is now.

    Nothing of it is fitted: what is an hour ago is the same in every data set. The bucket n, of the index n + 2, begins
    at 2^n - 1 seconds. An event after the request counts as now. Where the request's time is missing, or not given,
    ages are those at the latest event.

    Call arguments:
        times: int64 `[batch_size, length]`, seconds since 1970; 0 is padding.
        request: int64 `[batch_size]`, the same; 0 is missing. May be left out.

    Returns:
        int32 `[batch_size, length]`.

    Example:
        >>> SequenceAges()(ops.array([[1000, 997, 0]]), ops.array([1000]))  # 2, 4, 0
    """

    def call(self, times: Any, request: Any = None) -> Any:
        """Return the index of each age."""
        latest = ops.max(times, axis=1)
        moment = latest if request is None else ops.where(request > 0, request, latest)
        ages = ops.maximum(ops.expand_dims(moment, 1) - times, 0)
        found = ops.searchsorted(ops.convert_to_tensor(_FIRST_SECONDS), ops.reshape(ages, (-1,)), side="right")
        indices = ops.cast(ops.reshape(found, ops.shape(ages)), "int32") - 1 + FIRST_TERM_INDEX
        return ops.where(times > 0, indices, MISSING_INDEX)

    def compute_output_spec(self, times: Any, request: Any = None) -> Any:
        """Say that the output has the times' shape."""
        del request
        return keras.KerasTensor(times.shape, dtype="int32")
