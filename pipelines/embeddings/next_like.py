"""The time-ordered test of recall: is what a user liked next among the first k that a method finds?

Methods know what was liked before a moment. Each later like of a user who has liked something strictly earlier is one
question: given the user's last events up to then, which of the items that the user has not seen comes next? The rank
counts over the whole catalogue of liked items; sampled ranks mislead (Krichene and Rendle 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import sparse

from feature_repo.contracts.embeddings import RECENCY_DECAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_CHUNK = 512
"""Questions whose scores of all items are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Log:
    """Events in order of time, ties by user, then item; users and items as numbers."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    liked: NDArray[np.bool_]
    times: NDArray[np.int64]
    """Microseconds since 1970."""
    item_count: int

    def before(self, moment: int) -> Log:
        """Return the events before a moment."""
        end = int(np.searchsorted(self.times, moment))
        return Log(self.users[:end], self.items[:end], self.liked[:end], self.times[:end], self.item_count)


@dataclass(frozen=True, slots=True)
class Questions:
    """What a method is asked, and the answers."""

    lasts: tuple[NDArray[np.int64], ...]
    """For each question the items that the user liked among the last events, latest first."""
    seen: tuple[NDArray[np.int64], ...]
    """For each question every item that the user has an event with up to then; the target is not among them."""
    targets: NDArray[np.int64]
    """`[questions]`, what the user liked next."""
    askers: NDArray[np.int64]
    """`[questions]`, whose they are."""

    def __len__(self) -> int:
        return len(self.targets)


class Scorer(Protocol):
    """What is tested."""

    def __call__(self, lasts: Sequence[NDArray[np.int64]]) -> NDArray[np.floating]:
        """Return scores, `[users, items]`, for the liked items of some users; -inf for an unknown item."""
        ...


def ask(log: Log, moment: int, last: int, at_most: int, seed: int) -> Questions:
    """Return the questions of the likes from `moment` on: all of them, or a sample.

    Args:
        log: All events.
        moment: Microseconds since 1970; methods may know what lies before.
        last: How many of a user's latest events a method is given, as far as they are likes.
        at_most: How many questions; more are sampled.
        seed: Of that sample.
    """
    asked = np.flatnonzero(log.liked & (log.times >= moment))
    if len(asked) > at_most:
        asked = np.sort(np.random.default_rng(seed).choice(asked, at_most, replace=False))
    by_user = np.argsort(log.users, kind="stable")
    starts = np.searchsorted(log.users, np.arange(log.users.max() + 2), sorter=by_user)
    lasts, seen, kept = [], [], []
    for event in asked:
        user = log.users[event]
        own = by_user[starts[user] : starts[user + 1]]
        earlier = own[log.times[own] < log.times[event]]
        latest = _latest_first(log, earlier)[:last]
        liked = log.items[latest[log.liked[latest]]]
        if len(liked) and log.items[event] not in log.items[earlier]:
            lasts.append(liked)
            seen.append(np.unique(log.items[earlier]))
            kept.append(event)
    chosen = np.array(kept, dtype=np.int64)
    return Questions(tuple(lasts), tuple(seen), log.items[chosen], log.users[chosen])


def _latest_first(log: Log, events: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a user's events as the feature `user_last_items` has them: latest first, ties by item."""
    return events[np.lexsort((log.items[events], -log.times[events]))]


def ranks(score: Scorer, questions: Questions) -> NDArray[np.float64]:
    """Return `[questions]`, each target's rank from 0 on among the items that its user has not seen.

    Equal scores share their mean rank. A target that the method does not know has rank infinity.
    """
    found = np.full(len(questions), np.inf)
    for chunk in _chunks(len(questions)):
        scores = np.asarray(score(questions.lasts[chunk]), dtype=np.float64)
        rows = np.arange(len(scores))
        mine = scores[rows, questions.targets[chunk]].copy()
        for row, seen in enumerate(questions.seen[chunk]):
            scores[row, seen] = -np.inf
        better, equal = (scores > mine[:, None]).sum(axis=1), (scores == mine[:, None]).sum(axis=1) - 1
        found[chunk] = np.where(np.isfinite(mine), better + equal / 2, np.inf)
    return found


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def by_popularity(log: Log) -> Scorer:
    """Score items by how often they were liked."""
    counts = np.bincount(log.items[log.liked], minlength=log.item_count).astype(np.float64)
    return lambda lasts: np.tile(counts, (len(lasts), 1))


def by_item_cosine(log: Log) -> Scorer:
    """Score items by the recency-weighted sum of their ItemCF cosines with what was liked last.

    The cosine of two items: users who liked both, over the geometric mean of the users who liked either.
    """
    matrix = like_matrix(log.users[log.liked], log.items[log.liked], log.item_count)

    def score(lasts: Sequence[NDArray[np.int64]]) -> NDArray[np.floating]:
        query = sparse.vstack([_query(liked, log.item_count) for liked in lasts], format="csr")
        return np.asarray((query @ matrix.T @ matrix).todense())

    return score


def like_matrix(users: NDArray[np.int64], items: NDArray[np.int64], item_count: int) -> sparse.csr_array:
    """Return `[users, items]`, where the user liked the item 1 over the root of its users: cosines are products."""
    pairs = np.unique(np.stack([users, items], axis=1), axis=0)
    counts = np.bincount(pairs[:, 1], minlength=item_count)
    values = 1 / np.sqrt(counts[pairs[:, 1]])
    return sparse.csr_array((values, (pairs[:, 0], pairs[:, 1])), shape=(int(users.max(initial=0)) + 1, item_count))


def _query(liked: NDArray[np.int64], item_count: int) -> sparse.csr_array:
    weights = RECENCY_DECAY ** np.arange(len(liked))
    return sparse.csr_array((weights, (np.zeros(len(liked), dtype=np.int64), liked)), shape=(1, item_count))


def by_user_vector(vectors: NDArray[np.float32], known: NDArray[np.bool_], decay: float = RECENCY_DECAY) -> Scorer:
    """Score items by their cosine with the recency-weighted mean of what was liked last.

    Args:
        vectors: `[items, size]`, unit length.
        known: `[items]`, whether an item has a vector.
        decay: The weight of an item in proportion to that of the one liked after it.
    """

    def score(lasts: Sequence[NDArray[np.int64]]) -> NDArray[np.floating]:
        means = np.zeros((len(lasts), vectors.shape[1]))
        for row, liked in enumerate(lasts):
            having = liked[known[liked]]
            means[row] = decay ** np.arange(len(having)) @ vectors[having]
        return np.where(known, means @ vectors.T, -np.inf)

    return score


def by_nearest(vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> Scorer:
    """Score items by their cosine with the nearest of what was liked last."""

    def score(lasts: Sequence[NDArray[np.int64]]) -> NDArray[np.floating]:
        rows = [
            (vectors[liked[known[liked]]] @ vectors.T).max(axis=0, initial=-np.inf) if known[liked].any() else 0 * known
            for liked in lasts
        ]
        return np.where(known, np.stack(rows), -np.inf)

    return score
