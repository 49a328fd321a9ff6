"""What models of transformers share: the projections before self-attention, and what stands behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from pydantic import Field

from models.ranking.fields import DeepConfig

if TYPE_CHECKING:
    from collections.abc import Callable

_EPSILON = 1e-6
"""Of LayerNorm; Keras's own, 1e-3, would be all there is of the variance of first vectors."""


class TransformerConfig(DeepConfig):
    """What the config of a model with self-attention holds."""

    heads: int = Field(default=2, ge=1, le=64)
    """Of self-attention."""
    head_size: int = Field(default=8, ge=1, le=256)
    """Dimensions of each head's queries, keys and values."""
    feed_forward: int = Field(default=32, ge=1, le=8_192)
    """Width of the hidden layer of the feed-forward part behind it."""
    leak: float = Field(default=0.2, ge=0, lt=1)
    """What LeakyReLU lets through of a negative number."""


def projections(config: TransformerConfig, name: str) -> tuple[Any, Any, Any]:
    """Return the layers that make queries, keys and values, `[..., heads * head_size]`, of a sequence."""
    # A bias of the keys would be the same for all, and cancel out.
    queries, keys, values = (
        keras.layers.Dense(config.heads * config.head_size, use_bias=False, name=f"{name}_{each}")
        for each in ("queries", "keys", "values")
    )
    return queries, keys, values


def behind_attention(config: TransformerConfig, name: str) -> Callable[[Any, Any], Any]:
    """Return the rest of a block: what it is given, and what its attention found there → its outputs.

    Both are `[..., embedding_size]` and `[..., heads * head_size]`; each of two parts, a projection and a perceptron of
    one hidden layer, is added to what it is given, and normalised.
    """
    size = config.embedding_size
    joined = keras.layers.Dense(size, use_bias=False, name=f"{name}_joined")
    hidden = keras.layers.Dense(config.feed_forward, name=f"{name}_hidden")
    outputs = keras.layers.Dense(size, name=f"{name}_outputs")
    leaky = keras.layers.LeakyReLU(config.leak, name=f"{name}_leaky")
    dropout, dropout_behind = (
        keras.layers.Dropout(config.dropout, name=f"{name}_{each}") for each in ("dropout", "dropout_behind")
    )
    norm, norm_behind = (
        keras.layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_{each}") for each in ("norm", "norm_behind")
    )

    def behind(given: Any, found: Any) -> Any:
        attended = norm(given + dropout(joined(found)))
        return norm_behind(attended + dropout_behind(outputs(leaky(hidden(attended)))))

    return behind
