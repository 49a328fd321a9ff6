"""Logits to logits that are right on average, of each head by a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from collections.abc import Sequence


@keras.saving.register_keras_serializable(package="kestrel")
class Calibration(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Computes scale * logit + offset, of each head by its own two numbers (Platt 1999).

    Both are weights, not trainable: of two models that differ in them alone the weights differ.

    Call arguments:
        logits: float32 `[batch_size, heads]`.

    Returns:
        float32 `[batch_size, heads]`.
    """

    def __init__(self, scales: Sequence[float], offsets: Sequence[float], **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.scales, self.offsets = [float(each) for each in scales], [float(each) for each in offsets]

    def build(self, _: Any) -> None:
        """Make the weights."""
        self._scale, self._offset = (
            self.add_weight(
                shape=(len(values),),
                name=name,
                initializer=lambda *_, own=values, **__: keras.ops.array(own, "float32"),
            )
            for name, values in (("scale", self.scales), ("offset", self.offsets))
        )

    def call(self, logits: Any) -> Any:
        """Return the calibrated logits."""
        return logits * self._scale + self._offset

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "scales": self.scales, "offsets": self.offsets}
