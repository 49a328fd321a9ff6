"""One layer of a compressed interaction network."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class CompressedInteractions(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Makes feature maps, each a weighted sum of the products of two vectors, number by number.

    Lian et al., xDeepFM (KDD 2018), equation 6: X_h = sum over i, j of W_hij (X_i * F_j), where X are the maps of the
    layer before and F the fields.

    Args:
        maps: Of the layer.

    Call arguments:
        before: float32 `[batch_size, num_before, embedding_size]`.
        fields: float32 `[batch_size, num_fields, embedding_size]`.

    Returns:
        float32 `[batch_size, maps, embedding_size]`.
    """

    def __init__(self, maps: int, **options: Any) -> None:
        super().__init__(**options)
        self.maps = maps

    def build(self, before_shape: tuple[int | None, int, int], fields_shape: tuple[int | None, int, int]) -> None:
        """Make a weight for each map and pair."""
        self.kernel = self.add_weight(
            shape=(before_shape[1] * fields_shape[1], self.maps), initializer="glorot_uniform", name="kernel"
        )

    def call(self, before: Any, fields: Any) -> Any:
        """Return the maps."""
        size = fields.shape[2]
        across = [ops.transpose(each, (0, 2, 1)) for each in (before, fields)]
        products = ops.expand_dims(across[0], 3) * ops.expand_dims(across[1], 2)
        flat = ops.reshape(products, (-1, size, before.shape[1] * fields.shape[1]))
        return ops.transpose(ops.matmul(flat, self.kernel), (0, 2, 1))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "maps": self.maps}
