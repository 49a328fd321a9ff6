"""Mixes the model's order with that of a channel, so that two users' lists have less in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.list_policy import Reranking
    from serving.recommender.recall.channel import Recalled


def reranked(
    scores: NDArray[np.float32],
    positions: NDArray[np.intp],
    answers: Mapping[str, Recalled],
    reranking: Reranking,
) -> NDArray[np.floating]:
    """Return `[candidates]`, by what a list is ordered; the scores themselves where nothing is mixed in.

    Scores, and logarithms of the channel's places, both in standard deviations of this list's candidates: an order has
    the same weight whatever the model's scores mean. A candidate that the channel did not find has the place after its
    last one.

    Args:
        scores: `[candidates]`, the model's.
        positions: `[candidates]`, in the catalogue.
        answers: Channel → what it found for this user.
        reranking: What is mixed in.
    """
    found = answers.get(reranking.channel)
    if not reranking.share or found is None or not len(found.positions):
        return scores
    mixed = (1 - reranking.share) * _standard(scores)
    mixed -= reranking.share * _standard(np.log(places_of(positions, found.positions)))
    return mixed


def places_of(positions: NDArray[np.intp], found: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return `[candidates]`, each one's place among `found`, from 1; one more than there are for one not among them."""
    order = np.argsort(found)
    near = np.minimum(np.searchsorted(found, positions, sorter=order), len(found) - 1)
    return np.where(found[order[near]] == positions, order[near] + 1, len(found) + 1)


def _standard(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return values less their mean, in standard deviations; zeros where all are alike."""
    centred: NDArray[np.float64] = values.astype(np.float64) - values.mean(dtype=np.float64)
    spread = float(centred.std())
    return centred / spread if spread else centred
