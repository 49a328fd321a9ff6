"""Several logistic regressions, and who of them is asked."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class MixtureLogit(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Gives the log odds of a mixture: each region's probability, weighted by the softmax of the gates.

    Both the probability and its complement are summed as logarithms, so that neither becomes 0.

    Call arguments:
        gates: float32 `[batch_size, regions]`.
        logits: float32 `[batch_size, regions]`.

    Returns:
        float32 `[batch_size, 1]`.
    """

    def call(self, gates: Any, logits: Any) -> Any:
        """Return log(p / (1 - p)); what the softmax divides by falls out."""
        yes = ops.logsumexp(gates - ops.softplus(-logits), axis=-1, keepdims=True)
        no = ops.logsumexp(gates - ops.softplus(logits), axis=-1, keepdims=True)
        return yes - no
