"""Second-order interactions where a field has a vector for each other field."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class FieldAwareProducts(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sums, over all pairs i < j, the inner product of field i's vector for j with field j's vector for i.

    Juan et al., Field-aware Factorization Machines for CTR Prediction (RecSys 2016), equation 4.

    Call arguments:
        crossed: float32 `[batch_size, num_fields, num_fields, embedding_size]`.

    Returns:
        float32 `[batch_size, 1]`.
    """

    def call(self, crossed: Any) -> Any:
        """Return the sum over all pairs."""
        products = ops.sum(crossed * ops.transpose(crossed, (0, 2, 1, 3)), axis=-1)
        both = ops.sum(products, axis=(1, 2))  # each pair twice, and each field with itself
        own = ops.sum(ops.diagonal(products, axis1=1, axis2=2), axis=1)
        return ops.expand_dims(0.5 * (both - own), -1)
