"""The objective of ranking models: what a fit minimises and is watched by, and what a model's output means."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

MONITORED = "log_loss"
"""The metric by which a fit stops, and whose best weights it keeps; less is better."""


def loss() -> Any:
    """Return what Keras minimises, of labels 0 and 1 and logits `[batch, 1]`."""
    return keras.losses.BinaryCrossentropy(from_logits=True)


def metrics() -> list[Any]:
    """Return what Keras measures after each epoch, `MONITORED` among it."""
    return [
        keras.metrics.BinaryCrossentropy(from_logits=True, name=MONITORED),
        keras.metrics.AUC(num_thresholds=500, from_logits=True, name="auc"),
    ]


def probabilities(logits: Any) -> Any:
    """Return the scores that a model serves, of its logits of any shape."""
    return ops.sigmoid(logits)
