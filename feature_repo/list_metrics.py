"""Figures of lists, one for each question: arithmetic on hits.

A list of k places can hold no more than k answers: NDCG, recall and average precision are in proportion to what is
attainable, so that 1 is a perfect list however many answers there are (for recall as in Liang et al., WWW 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.questions import LONG_HISTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

Metric = "Callable[[NDArray[np.bool_], NDArray[np.int64], int], NDArray[np.float64]]"


def hits(lists: NDArray[np.intp], owners: NDArray[np.intp], answers: NDArray[np.intp], items: int) -> NDArray[np.bool_]:
    """Return `[questions, depth]`, which places of the lists hold an answer.

    Args:
        lists: `[questions, depth]`, positions of items; -1 where a list has ended.
        owners: `[answers]`, whose each answer is: a row of `lists`.
        answers: `[answers]`, positions of items; -1 for an item that no list can hold.
        items: How many items there are.
    """
    wanted = (owners * np.intp(items) + answers)[answers >= 0]
    rows = np.arange(len(lists), dtype=np.intp)[:, None]
    found: NDArray[np.bool_] = np.isin(rows * np.intp(items) + lists, wanted) & (lists >= 0)
    return found


def ndcg(found: NDArray[np.bool_], answers: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return `[questions]`, normalised discounted cumulative gain (Järvelin and Kekäläinen 2002), gains of 0 or 1."""
    discounts = 1 / np.log2(np.arange(k) + 2)
    best = np.concatenate([[0.0], np.cumsum(discounts)])
    gained = found[:, :k] @ discounts[: min(k, found.shape[1])]
    return np.asarray(gained / best[np.minimum(answers, k)])


def recall(found: NDArray[np.bool_], answers: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return `[questions]`, the share of the answers that are among the first k, of as many as k places can hold."""
    return np.asarray(found[:, :k].sum(axis=1) / np.minimum(answers, k))


def hit_rate(found: NDArray[np.bool_], answers: NDArray[np.int64], k: int) -> NDArray[np.float64]:  # noqa: ARG001 - a metric's form
    """Return `[questions]`, 1 where any answer is among the first k."""
    return np.asarray(found[:, :k].any(axis=1), dtype=np.float64)


def reciprocal_rank(found: NDArray[np.bool_], answers: NDArray[np.int64], k: int) -> NDArray[np.float64]:  # noqa: ARG001 - as above
    """Return `[questions]`, one over the place of the first answer, 0 where none is among the first k."""
    first = found[:, :k].argmax(axis=1) if found.shape[1] else np.zeros(len(found), dtype=np.intp)
    return np.where(found[:, :k].any(axis=1), 1 / (first + 1), 0.0)


def average_precision(found: NDArray[np.bool_], answers: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return `[questions]`, the mean of the precisions at the answers' places, of as many as k places can hold."""
    top = found[:, :k]
    precisions = np.cumsum(top, axis=1) / (np.arange(top.shape[1]) + 1)
    return np.asarray((precisions * top).sum(axis=1) / np.minimum(answers, k))


LIST_METRICS: Mapping[str, tuple[Callable[..., NDArray[np.float64]], int]] = {
    "ndcg_at_10": (ndcg, 10),
    "recall_at_10": (recall, 10),
    "hit_rate_at_10": (hit_rate, 10),
    "mrr_at_10": (reciprocal_rank, 10),
    "map_at_10": (average_precision, 10),
    "ndcg_at_100": (ndcg, 100),
    "recall_at_100": (recall, 100),
}
"""Name → what is computed for each question, and among how many first places. The first one decides."""
DECIDING = "ndcg_at_10"


def by_question(found: NDArray[np.bool_], answers: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return metric → `[questions]`."""
    return {name: metric(found, answers, k) for name, (metric, k) in LIST_METRICS.items()}


def have_long_history(history: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return `[users]`, who had LONG_HISTORY events or more before the origin."""
    return history >= LONG_HISTORY


def judged(history: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return `[users]`, whom verdicts are about: those of long history, or everybody where nobody has one.

    Args:
        history: `[users]`, how many events before the origin.
    """
    long = have_long_history(history)
    return long if long.any() else np.ones(len(long), dtype=np.bool_)


def best_variant(means: Mapping[str, float]) -> str:
    """Return the variant with the highest mean; ties go to the first by name, so that equal data choose equally."""
    return min(means, key=lambda variant: (-means[variant], variant))


def best_possible(candidates: NDArray[np.bool_], answers: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return `[questions]`, the NDCG of the best order of candidates: every answer among them, first.

    Args:
        candidates: `[questions, candidates]`, which of them are answers.
        answers: `[questions]`, how many there are.
        k: Places.
    """
    ideal = np.arange(k) < candidates.sum(axis=1)[:, None]
    return ndcg(ideal, answers, k)


def overlap(lists: NDArray[np.intp], k: int, items: int) -> float | None:
    """Return the mean share of their first k items that two users have in common; None for fewer than two users."""
    top = lists[:, :k]
    if len(top) < 2:  # noqa: PLR2004 - a pair
        return None
    shown = np.bincount(top[top >= 0], minlength=items).astype(np.float64)
    return float((shown * (shown - 1)).sum() / (len(top) * (len(top) - 1) * k))


def coverage(lists: NDArray[np.intp], k: int, items: int) -> float | None:
    """Return the share of the catalogue that is among anybody's first k; None for an empty catalogue."""
    top = lists[:, :k]
    return len(np.unique(top[top >= 0])) / items if items else None


def novelty(lists: NDArray[np.intp], k: int, events: NDArray[np.int64]) -> float | None:
    """Return the mean of -log2 of the shown items' share of all events: how little known they are, in bits.

    None where nothing was shown, or nothing ever happened.

    Args:
        lists: `[questions, depth]`
        k: Places.
        events: `[items]`, how many events each item has; one with none counts as having one.
    """
    top = lists[:, :k]
    shown = top[top >= 0]
    if not len(shown) or not events.sum():
        return None
    return float(-np.log2(np.maximum(events, 1)[shown] / events.sum()).mean())


def diversity(lists: NDArray[np.intp], k: int, terms: NDArray[np.bool_]) -> float | None:
    """Return the mean, over users and pairs of their first k items, of 1 - the share of terms in common (Jaccard).

    None where no list has two items that have terms.

    Args:
        lists: `[questions, depth]`
        k: Places.
        terms: `[items, terms]`, which item has which term.
    """
    means = []
    for row in lists[:, :k]:
        own = terms[row[row >= 0]].astype(np.float64)
        own = own[own.any(axis=1)]
        if len(own) < 2:  # noqa: PLR2004 - a pair
            continue
        both = own @ own.T
        either = own.sum(axis=1)[:, None] + own.sum(axis=1)[None, :] - both
        upper = np.triu_indices(len(own), 1)
        means.append(float((1 - both[upper] / either[upper]).mean()))
    return float(np.mean(means)) if means else None
