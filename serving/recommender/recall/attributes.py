"""The channels that are made of the catalogue: what rises, what is new, and what has the terms that the user likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.channels import NEW, NEW_DAYS, TASTE, TREND
from serving.recommender.recall.channel import Recalled, best

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from serving.recommender.catalogue import Catalogue

_DAY_S = 86_400


def recall_trending(catalogue: Catalogue, allowed: NDArray[np.bool_], n: int) -> Recalled:
    """Return up to `n` allowed items by falling trend; none of a catalogue of before it had trends."""
    order = catalogue.trending
    if order is None:
        return Recalled(TREND, np.empty(0, dtype=np.intp))
    found = order[allowed[order]][:n]
    return Recalled(TREND, found, catalogue.inputs["item_trend"][found])


def recall_new(catalogue: Catalogue, now: datetime, allowed: NDArray[np.bool_], n: int) -> Recalled:
    """Return up to `n` allowed items whose first event was in the last days, by falling number of events.

    Items that nobody has met come last.
    """
    first = catalogue.inputs["item_first_event_time"]
    is_new = (first > now.timestamp() - NEW_DAYS * _DAY_S) | (catalogue.inputs["item_event_count"] == 0)
    order = catalogue.popular
    return Recalled(NEW, order[(allowed & is_new)[order]][:n])


def recall_taste(
    catalogue: Catalogue, taste: Sequence[tuple[str, str]], allowed: NDArray[np.bool_], n: int
) -> Recalled:
    """Return up to `n` allowed items that have what the user likes, the popular first.

    Args:
        catalogue: The items.
        taste: (attribute, term), what the user likes, most liked first within each attribute.
        allowed: `[items]`
        n: How many at most.
    """
    share = np.zeros(len(catalogue), dtype=np.float32)
    places: dict[str, int] = {}
    for attribute, term in taste:
        places[attribute] = places.get(attribute, 0) + 1
        share[catalogue.having.get((attribute, term), [])] += np.float32(1 / places[attribute])
    scores = share * np.log1p(catalogue.inputs["item_event_count"]).astype(np.float32)
    among = np.flatnonzero(allowed & (scores > 0))
    found = among[best(scores[among], n)]
    return Recalled(TASTE, found, scores[found])
