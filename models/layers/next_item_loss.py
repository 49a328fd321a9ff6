"""A loss for the states of a history: each is to tell the item that comes next."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class NextItemLoss(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """In training, adds the log loss of telling each next item from another row's; returns the states as they are.

    Zhou et al., Deep Interest Evolution Network for Click-Through Rate Prediction (AAAI 2019), "Interest Extractor
    Layer": a state's inner product with the next item's vector is to be high, with a drawn item's low. Drawn is the
    item at the same place of another row: all rows are shifted by one number, drawn anew for each batch. A pair counts
    where there are a state (some item came before), a next item and a drawn one, and the two differ. The loss is the
    pairs' mean, so that its weight means the same for short histories and long ones.

    Args:
        weight: Of the loss; 0 leaves it out.
        seed: Of what is drawn; None takes one of `keras.utils.set_random_seed`.

    Call arguments:
        states: float32 `[batch_size, length, size]`, each after the item at its place; in order of time.
        items: float32 `[batch_size, length, size]`.
        indices: int32 `[batch_size, length]`: which item it is.
        known: float32 `[batch_size, length]`: 1 where there is an item.
        training: whether to add the loss.

    Returns:
        The states.
    """

    def __init__(self, weight: float, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.weight, self.seed = weight, seed
        self._generator = keras.random.SeedGenerator(seed)

    def call(self, states: Any, items: Any, indices: Any, known: Any, *, training: bool = False) -> Any:
        """Add the loss; return the states."""
        if training and self.weight > 0:
            self.add_loss(self.weight * self.loss(states, items, indices, known, self._draw(ops.shape(states)[0])))
        return states

    def loss(self, states: Any, items: Any, indices: Any, known: Any, shift: Any) -> Any:
        """Return the mean log loss, a scalar, where row n draws its items from row n - shift; 0 without a pair."""
        drawn, drawn_indices, drawn_known = (ops.roll(each, shift, axis=0) for each in (items, indices, known))
        follows = ops.cast(ops.cumsum(known, axis=1) > 1, "float32") * known
        counts = (follows * drawn_known * ops.cast(ops.not_equal(indices, drawn_indices), "float32"))[:, 1:]
        right, wrong = (ops.sum(states[:, :-1] * each[:, 1:], axis=-1) for each in (items, drawn))
        losses = ops.softplus(-right) + ops.softplus(wrong)
        return ops.sum(losses * counts) / ops.maximum(ops.sum(counts), 1.0)

    def _draw(self, rows: Any) -> Any:
        """Return a number from 1 to rows - 1; 1 for one row, which then draws its own items, and they do not count."""
        drawn = keras.random.uniform((), seed=self._generator) * ops.cast(rows - 1, "float32")
        return 1 + ops.minimum(ops.cast(drawn, "int32"), ops.maximum(rows - 2, 0))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "weight": self.weight, "seed": self.seed}
