"""A history to one vector, as far as it concerns the candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from models.layers.dice import Dice

if TYPE_CHECKING:
    from collections.abc import Sequence


@keras.saving.register_keras_serializable(package="kestrel")
class LocalActivationUnit(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sums a history's vectors, each times a weight that a perceptron gives it beside the candidate.

    Zhou et al., Deep Interest Network for Click-Through Rate Prediction (KDD 2018), section 4.3. The perceptron sees
    item, candidate, item - candidate and item * candidate, and what else is told of the event. Weights are no softmax:
    the more of a history concerns the candidate, the longer is the sum. A history without items gives zeros.

    Args:
        widths: Of the perceptron's hidden layers.
        activation: Behind each of them, "dice" or "relu".

    Call arguments:
        items: float32 `[batch_size, length, size]`.
        candidate: float32 `[batch_size, size]`.
        known: float32 `[batch_size, length]`: 1 where there is an item.
        told: float32 `[batch_size, length, width]`; None where nothing is.
        training: whether Dice takes mean and variance of the batch.

    Returns:
        float32 `[batch_size, size]`.
    """

    def __init__(self, widths: Sequence[int] = (36,), activation: str = "dice", **options: Any) -> None:
        super().__init__(**options)
        self.widths, self.activation = tuple(widths), activation
        self._hidden = [keras.layers.Dense(width, name=f"hidden_{number}") for number, width in enumerate(self.widths)]
        self._dice = [Dice(name=f"dice_{number}") for number in range(len(self.widths)) if activation == "dice"]
        self._weight = keras.layers.Dense(1, name="weight")

    def build(
        self,
        items_shape: tuple[int | None, int | None, int],
        told_shape: tuple[int | None, int | None, int] = (None, None, 0),
    ) -> None:
        """Make the perceptron."""
        *rows, size = items_shape
        width = 4 * size + told_shape[-1]
        for number, hidden in enumerate(self._hidden):
            hidden.build((*rows, width))
            width = self.widths[number]
            if self._dice:
                self._dice[number].build((*rows, width))
        self._weight.build((*rows, width))

    def call(self, items: Any, candidate: Any, known: Any, told: Any = None, *, training: bool = False) -> Any:
        """Return the weighted sum."""
        asked = ops.broadcast_to(ops.expand_dims(candidate, 1), ops.shape(items))
        others = [] if told is None else [told]
        values = ops.concatenate([items, asked, items - asked, items * asked, *others], axis=-1)
        for number, hidden in enumerate(self._hidden):
            values = hidden(values)
            values = self._dice[number](values, known, training=training) if self._dice else ops.relu(values)
        weights = self._weight(values) * ops.expand_dims(known, -1)
        return ops.sum(weights * items, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "widths": self.widths, "activation": self.activation}
