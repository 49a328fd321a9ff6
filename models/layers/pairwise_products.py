"""Every pair of field vectors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


def pair_places(fields: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the places of the first and of the second of all pairs, i < j, `[pairs]` each."""
    first, second = np.triu_indices(fields, k=1)
    return first.astype(np.int32), second.astype(np.int32)


@keras.saving.register_keras_serializable(package="kestrel")
class PairwiseProducts(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Multiplies the vectors of every pair of fields, number by number.

    Call arguments:
        fields: float32 `[batch_size, num_fields, embedding_size]`.

    Returns:
        float32 `[batch_size, num_fields * (num_fields - 1) / 2, embedding_size]`.
    """

    def call(self, fields: Any) -> Any:
        """Return the products."""
        first, second = pair_places(fields.shape[1])
        return ops.take(fields, first, axis=1) * ops.take(fields, second, axis=1)


@keras.saving.register_keras_serializable(package="kestrel")
class InnerProducts(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Takes the inner product of every pair of fields.

    Call arguments:
        fields: float32 `[batch_size, num_fields, embedding_size]`.

    Returns:
        float32 `[batch_size, num_fields * (num_fields - 1) / 2]`.
    """

    def call(self, fields: Any) -> Any:
        """Return the products."""
        count = fields.shape[1]
        first, second = pair_places(count)
        products = ops.matmul(fields, ops.transpose(fields, (0, 2, 1)))
        return ops.take(ops.reshape(products, (-1, count * count)), first * count + second, axis=1)
