"""A recurrence that goes only as far as it is told to."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class AttentionalGRU(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A GRU whose update gate is scaled by a weight for each step: AUGRU.

    Zhou et al., Deep Interest Evolution Network for Click-Through Rate Prediction (AAAI 2019), "Interest
    Evolving Layer". With x the projected inputs (`W i + b`), w the weight, and h the state, which begins with zeros:

        u = sigmoid(x_u + U_u h)    r = sigmoid(x_r + U_r h)    c = tanh(x_c + r * U_c h)    h <- h + w u (c - h)

    A step of weight 0 leaves the state as it is, wherever it stands: padding. With weights of 1 it is a plain GRU. The
    inputs' projection is the caller's, so that it can be computed before the weights are known. The graph has one step,
    which a loop runs: its size does not grow with the history.

    Args:
        units: Dimensions of the state.
        return_sequences: Whether all states are returned, or the last.

    Call arguments:
        inputs: float32 `[batch_size, length, 3 * units]`: of the update gate, the reset gate, and the new state.
        weights: float32 `[batch_size, length]`, from 0 to 1.

    Returns:
        float32 `[batch_size, length, units]`, the state after each step, or `[batch_size, units]`.
    """

    def __init__(self, units: int, *, return_sequences: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.return_sequences = units, return_sequences

    def build(self, shape: tuple[int | None, int, int]) -> None:
        """Make the three matrices U, one beside the other."""
        del shape
        self.kernel = self.add_weight(
            shape=(self.units, 3 * self.units), initializer="glorot_uniform", name="recurrent_kernel"
        )

    def call(self, inputs: Any, weights: Any) -> Any:
        """Return the states, or the last."""
        by_step = (ops.transpose(inputs, (1, 0, 2)), ops.expand_dims(ops.transpose(weights), -1))
        states = tf.scan(self._step, by_step, ops.zeros_like(inputs[:, 0, : self.units]))
        return ops.transpose(states, (1, 0, 2)) if self.return_sequences else states[-1]

    def _step(self, state: Any, step: tuple[Any, Any]) -> Any:
        """Return the state after a step of inputs `[batch_size, 3 * units]` and weight `[batch_size, 1]`."""
        given, weight = step
        before, gated = ops.matmul(state, self.kernel), 2 * self.units
        gates = ops.sigmoid(given[:, :gated] + before[:, :gated])
        update, reset = gates[:, : self.units], gates[:, self.units :]
        new = ops.tanh(given[:, gated:] + reset * before[:, gated:])
        return state + weight * update * (new - state)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "units": self.units, "return_sequences": self.return_sequences}
