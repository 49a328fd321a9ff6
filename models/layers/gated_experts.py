"""Several experts' outputs to one, by shares that a gate gives."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class GatedExperts(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Averages what experts say, each weighing as a softmax of the gate's input gives: softmax(W x) of them.

    Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts (KDD 2018),
    equations 6 and 7; W has no bias.

    Call arguments:
        experts: float32 `[batch_size, num_experts, width]`.
        selector: float32 `[batch_size, num_inputs]`: the gate's input.

    Returns:
        float32 `[batch_size, width]`.
    """

    def build(self, experts_shape: tuple[int | None, ...], selector_shape: tuple[int | None, ...]) -> None:
        """Make a weight per input and expert."""
        self.kernel = self.add_weight(shape=(selector_shape[-1], experts_shape[1]), name="kernel")

    def call(self, experts: Any, selector: Any) -> Any:
        """Return the average."""
        shares = ops.softmax(ops.matmul(selector, self.kernel), axis=-1)
        return ops.sum(experts * ops.expand_dims(shares, -1), axis=1)
