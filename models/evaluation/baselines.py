"""Scores that need no training, straight from a training set's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.on_demand import PSEUDO_COUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def popularity(features: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return how many events the item had."""
    counts: NDArray[np.float64] = np.maximum(features["item_event_count"], 0).astype(np.float64)
    return counts


def means(features: Mapping[str, NDArray[Any]], prior: float) -> NDArray[np.float64]:
    """Return the user's smoothed mean plus the item's, as of the row's moment."""
    return _smoothed(features, "user", prior) + _smoothed(features, "item", prior)


def _smoothed(features: Mapping[str, NDArray[Any]], owner: str, prior: float) -> NDArray[np.float64]:
    count = features[f"{owner}_event_count"].astype(np.float64)
    mean = features[f"{owner}_value_mean"].astype(np.float64)
    known = (count > 0) & (mean >= 0)
    total = np.where(known, count * mean, 0.0) + PSEUDO_COUNT * prior
    smoothed: NDArray[np.float64] = total / (np.where(known, count, 0.0) + PSEUDO_COUNT)
    return smoothed
