"""Vectors to one, by what each is worth."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kestrel")
class AttentionPooling(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sums vectors, each weighted by the softmax of h . relu(W v + b).

    Xiao et al., Attentional Factorization Machines (IJCAI 2017), equation 5.

    Args:
        attention_size: Rows of W.
        dropout: Of the weights.

    Call arguments:
        vectors: float32 `[batch_size, num_vectors, embedding_size]`.

    Returns:
        float32 `[batch_size, embedding_size]`.
    """

    def __init__(self, attention_size: int, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.attention_size, self.dropout = attention_size, dropout

    def build(self, shape: tuple[int | None, int, int]) -> None:
        """Make W with b, and h."""
        self.hidden = keras.layers.Dense(self.attention_size, activation="relu", name="hidden")
        self.worth = keras.layers.Dense(1, use_bias=False, name="worth")
        self.dropped = keras.layers.Dropout(self.dropout, name="dropped")
        self.hidden.build(shape)
        self.worth.build((*shape[:-1], self.attention_size))

    def call(self, vectors: Any, *, training: bool = False) -> Any:
        """Return the weighted sum."""
        weights = self.dropped(ops.softmax(self.worth(self.hidden(vectors)), axis=1), training=training)
        return ops.sum(weights * vectors, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "attention_size": self.attention_size, "dropout": self.dropout}
