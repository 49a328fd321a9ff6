"""Heads that each ask a sequence for something else."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from models.layers.masked_softmax import MaskedSoftmax


@keras.saving.register_keras_serializable(package="kestrel")
class MaskedAttention(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Scaled dot products of queries and keys, by heads, to means of the values of what is there.

    Vaswani et al., Attention Is All You Need (NIPS 2017), section 3.2. The projections are their callers', so that
    those of the user's items can be computed before the candidate is known; the layer has no weights.

    Args:
        heads: Equal parts of the last axis that attend each by itself.

    Call arguments:
        queries: float32 `[batch_size, ..., queries, heads * size]`.
        keys: float32 `[batch_size, ..., length, heads * size]`.
        values: float32 `[batch_size, ..., length, heads * size]`.
        known: float32 `[batch_size, ..., length]`: 1 where there is something to attend to; where it is 0 everywhere,
            zeros are returned.

    Returns:
        float32 `[batch_size, ..., queries, heads * size]`: the heads' results, one after the other.
    """

    def __init__(self, heads: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self._shares = MaskedSoftmax(name="shares")

    def call(self, queries: Any, keys: Any, values: Any, known: Any) -> Any:
        """Return what each query finds."""
        queries, keys, values = (self._by_heads(each) for each in (queries, keys, values))
        scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2)) / math.sqrt(queries.shape[-1])
        found = ops.matmul(self._shares(scores, known[..., None, None, :]), values)
        found = ops.swapaxes(found, -2, -3)
        return ops.reshape(found, (-1, *found.shape[1:-2], self.heads * found.shape[-1]))

    def _by_heads(self, sequence: Any) -> Any:
        """Return `[batch_size, ..., heads, length, size]`."""
        _, *between, width = sequence.shape
        return ops.swapaxes(ops.reshape(sequence, (-1, *between, self.heads, width // self.heads)), -2, -3)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "heads": self.heads}
