"""Self-attention between fields."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class FieldAttention(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Lets each field look at all others, by several heads, and adds what it was.

    Song et al., AutoInt (CIKM 2019), equations 5 to 8: attention is the softmax of inner products, not scaled; the
    heads' results stand one after the other, and relu(they + W e) is the field's new vector.

    Args:
        heads: Of the attention.
        head_size: Dimensions of each head.

    Call arguments:
        fields: float32 `[batch_size, num_fields, size]`.

    Returns:
        float32 `[batch_size, num_fields, heads * head_size]`.
    """

    def __init__(self, heads: int, head_size: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads, self.head_size = heads, head_size

    def build(self, shape: tuple[int | None, int, int]) -> None:
        """Make the heads' queries, keys and values, and W."""
        names = ("query", "key", "value", "residual")
        self.projections = [
            keras.layers.Dense(self.heads * self.head_size, use_bias=False, name=name) for name in names
        ]
        for projection in self.projections:
            projection.build(shape)

    def call(self, fields: Any) -> Any:
        """Return the fields' new vectors."""
        count, width = fields.shape[1], self.heads * self.head_size
        *seen, residual = [projection(fields) for projection in self.projections]
        query, key, value = (
            ops.transpose(ops.reshape(each, (-1, count, self.heads, self.head_size)), (0, 2, 1, 3)) for each in seen
        )
        attention = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), axis=-1)
        found = ops.reshape(ops.transpose(ops.matmul(attention, value), (0, 2, 1, 3)), (-1, count, width))
        return ops.relu(found + residual)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "heads": self.heads, "head_size": self.head_size}
