"""Second-order interactions between fields."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class FactorizationMachine(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sums the inner products of all pairs of field vectors, in linear time.

    Rendle, Factorization Machines (ICDM 2010), lemma 3.1: half of (sum of v)^2 - sum of v^2, summed over dimensions.

    Call arguments:
        total: The sum of v, float32 `[batch_size, embedding_size]`.
        squares: The sum of v^2, the same.

    Returns:
        float32 `[batch_size, 1]`.

    Example:
        >>> FactorizationMachine()(*sums(ops.array([[[1.0, 2.0], [3.0, 4.0]]])))  # 1 x 3 + 2 x 4 = 11
    """

    def call(self, total: Any, squares: Any) -> Any:
        """Return the sum over all pairs."""
        return ops.sum(0.5 * (ops.square(total) - squares), axis=-1, keepdims=True)


def sums(fields: Any) -> tuple[Any, Any]:
    """Return the sum of field vectors, and that of their squares, `[batch_size, embedding_size]` each.

    Args:
        fields: float32 `[batch_size, num_fields, embedding_size]`.
    """
    return ops.sum(fields, axis=1), ops.sum(ops.square(fields), axis=1)


def bi_interaction(fields: Any) -> Any:
    """Return the sum of all pairs' products, dimension by dimension, `[batch_size, embedding_size]`.

    He and Chua, Neural Factorization Machines for Sparse Predictive Analytics (SIGIR 2017), equation 4.

    Args:
        fields: float32 `[batch_size, num_fields, embedding_size]`.
    """
    total, squares = sums(fields)
    return 0.5 * (ops.square(total) - squares)
