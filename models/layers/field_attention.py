"""Self-attention between fields."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class FieldAttention(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Lets each field look at all others, by several heads, and adds what it was.

    Song et al., AutoInt (CIKM 2019), equations 5 to 8: attention is the softmax of inner products, not scaled; the
    heads' results stand one after the other, and relu(they + W e) is the field's new vector. Deep stacks of such layers
    take what the Transformer has besides: scaled products, dropout, and a norm before the relu.

    Args:
        heads: Of the attention.
        head_size: Dimensions of each head.
        scaled: Whether the inner products are divided by the root of `head_size`.
        normalised: Whether each new vector is, before the relu.
        dropout: Of the attention, and of what it finds.

    Call arguments:
        fields: float32 `[batch_size, num_fields, size]`.

    Returns:
        float32 `[batch_size, num_fields, heads * head_size]`.
    """

    def __init__(
        self,
        heads: int,
        head_size: int,
        *,
        scaled: bool = False,
        normalised: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.heads, self.head_size = heads, head_size
        self.scaled, self.normalised, self.dropout = scaled, normalised, dropout

    def build(self, shape: tuple[int | None, int, int]) -> None:
        """Make the heads' queries, keys and values, and W."""
        names = ("query", "key", "value", "residual")
        self.projections = [
            keras.layers.Dense(self.heads * self.head_size, use_bias=False, name=name) for name in names
        ]
        for projection in self.projections:
            projection.build(shape)
        self.dropped = keras.layers.Dropout(self.dropout, name="dropped")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm") if self.normalised else None
        if self.norm is not None:
            self.norm.build((*shape[:-1], self.heads * self.head_size))

    def call(self, fields: Any, *, training: bool = False) -> Any:
        """Return the fields' new vectors."""
        count, width = fields.shape[1], self.heads * self.head_size
        *seen, residual = [projection(fields) for projection in self.projections]
        query, key, value = (
            ops.transpose(ops.reshape(each, (-1, count, self.heads, self.head_size)), (0, 2, 1, 3)) for each in seen
        )
        products = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        if self.scaled:
            products /= self.head_size**0.5
        attention = self.dropped(ops.softmax(products, axis=-1), training=training)
        found = ops.reshape(ops.transpose(ops.matmul(attention, value), (0, 2, 1, 3)), (-1, count, width))
        whole = self.dropped(found, training=training) + residual
        return ops.relu(whole if self.norm is None else self.norm(whole))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        own = {name: getattr(self, name) for name in ("heads", "head_size", "scaled", "normalised", "dropout")}
        return {**super().get_config(), **own}
