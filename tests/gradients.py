"""Which weights of a graph a loss reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Mapping


def unreached(scorer: Any, columns: Mapping[str, Any]) -> list[str]:
    """Return the paths of trainable weights without a gradient of the logits' squared distance from 3."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(scorer(columns, training=False) - 3.0))
    weights = scorer.trainable_weights
    gradients = tape.gradient(loss, [each.value for each in weights])
    return [
        weight.path
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is None or not np.abs(tf.convert_to_tensor(gradient)).max() > 0
    ]
