"""EGES: a skip-gram whose items are a weighted mean of themselves and of what their attributes say.

Wang, Huang, Zhao, Zhang, Zhao and Lee, "Billion-scale Commodity Embedding for E-commerce Recommendation in Alibaba"
(2018). An item's vector is the mean of its own and of its attributes' vectors, each weighted by e to a number that is
learned for the item. Deviations: an attribute of several terms is the mean of theirs, an attribute without any has no
weight; steps are of many pairs and by Adagrad (Duchi et al. 2011), and the pairs of a step share their counter-examples
(Ji et al., "Parallelizing Word2Vec in Shared and Distributed Memory", 2016): products of matrices, not of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.special import expit

from feature_repo.contracts.embeddings import EMBEDDING_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from feature_repo.contracts.embeddings import SkipGram

_PAIRS = 4096
"""Of a step."""
_SHARED = 64
"""Counter-examples of a step; together they weigh as much as `SkipGram.negative` for each pair."""
_ITEMS_AT_ONCE = 50_000
"""Items of the sequences whose pairs are in memory at a time."""
_TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Sequences:
    """What is learned from."""

    nodes: NDArray[np.int64]
    """`[items of all sequences]`, one sequence after the other."""
    ends: NDArray[np.int64]
    """`[sequences]`, where each ends, exclusive."""


def read_sequences(file: Path) -> Sequences:
    """Read what `write_sequences` wrote: lines of numbers with spaces between."""
    data = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    separators = data[(data == ord(" ")) | (data == ord("\n"))]
    nodes = np.fromstring(data.tobytes().decode("ascii"), dtype=np.int64, sep=" ")
    return Sequences(nodes, np.flatnonzero(separators == ord("\n")) + 1)


def fit_enhanced_skip_gram(
    sequences: Sequences, attributes: Sequence[sparse.csr_array], skip_gram: SkipGram
) -> EnhancedSkipGram:
    """Return what was learned. One thread: the same sequences give the same bytes.

    Args:
        sequences: Of nodes.
        attributes: For each attribute `[nodes, terms]`, the shares of a node's terms; an empty row where it has none.
        skip_gram: How to fit.
    """
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn

    with threadpool_limits(1):
        return EnhancedSkipGram(sequences, attributes, skip_gram)


class _Table:
    """Vectors that are learned, each number with its own rate by Adagrad."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values
        self._squares = np.zeros_like(values)

    def step(self, rows: NDArray[np.int64], gradients: NDArray[np.float32], rate: float) -> None:
        """Go down by the gradients of some rows, each row once."""
        squares = self._squares[rows] + gradients**2
        self._squares[rows] = squares
        self.values[rows] -= rate * gradients / np.sqrt(squares + _TINY)

    def step_sums(self, rows: NDArray[np.int64], gradients: NDArray[np.float32], rate: float) -> None:
        """The same where rows may come again: their gradients are added up."""
        unique, places = np.unique(rows, return_inverse=True)
        self.step(unique, _sums(places, len(unique)) @ gradients, rate)


class EnhancedSkipGram:
    """What is learned of nodes, terms and contexts."""

    def __init__(self, sequences: Sequences, attributes: Sequence[sparse.csr_array], skip_gram: SkipGram) -> None:
        """Learn; see `fit_enhanced_skip_gram`."""
        self._rule = skip_gram
        self._dice = np.random.default_rng(skip_gram.seed)
        self._attributes = tuple(terms.astype(np.float32) for terms in attributes)
        count = self._attributes[0].shape[0] if attributes else int(sequences.nodes.max()) + 1
        self._items = _Table(self._drawn(count))
        self._terms = [_Table(self._drawn(terms.shape[1])) for terms in self._attributes]
        self._contexts = _Table(np.zeros((count, EMBEDDING_SIZE), dtype=np.float32))
        self._weights = _Table(np.zeros((count, 1 + len(self._attributes)), dtype=np.float32))
        has = [np.diff(terms.indptr) > 0 for terms in self._attributes]
        self._has = np.stack([np.ones(count, dtype=np.bool_), *has], axis=1)
        counts = np.bincount(sequences.nodes, minlength=count)
        self._running = np.cumsum(counts**skip_gram.negative_exponent * (counts > 0))
        self._learn(sequences)

    def vectors(self, nodes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of nodes, `[nodes, size]`."""
        return self._mixed(nodes)[0]

    def vectors_of_terms(self, attributes: Sequence[sparse.csr_array]) -> NDArray[np.float32]:
        """Return vectors of items that nothing was learned of, from their terms alone: the mean of what these say.

        Args:
            attributes: For each attribute `[items, terms]`, as those that were learned from; some has a term.
        """
        said = [terms.astype(np.float32) @ table.values for terms, table in zip(attributes, self._terms, strict=True)]
        has = np.stack([np.diff(terms.indptr) > 0 for terms in attributes])
        return np.asarray(np.sum(said, axis=0) / np.maximum(has.sum(axis=0), 1)[:, None], dtype=np.float32)

    def _drawn(self, count: int) -> NDArray[np.float32]:
        drawn = self._dice.random((count, EMBEDDING_SIZE), dtype=np.float32) - np.float32(0.5)
        return np.asarray(drawn / EMBEDDING_SIZE, dtype=np.float32)

    def _learn(self, sequences: Sequences) -> None:
        for epoch in range(self._rule.epochs):
            for done, centres, contexts in self._steps(sequences):
                left = 1 - (epoch + done) / self._rule.epochs
                self._step(centres, contexts, self._rule.learning_rate * max(left, 1e-4))

    def _steps(self, sequences: Sequences) -> Iterator[tuple[float, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield what is done of an epoch, centres and contexts, in an order by chance."""
        order = self._dice.permutation(len(sequences.ends))
        lengths = np.diff(sequences.ends, prepend=0)
        running = np.cumsum(lengths[order])
        for first in range(0, int(running[-1]), _ITEMS_AT_ONCE):
            chosen = order[(running > first) & (running <= first + _ITEMS_AT_ONCE)]
            centres, contexts = _pairs(sequences, chosen, lengths, self._rule.window)
            shuffled = self._dice.permutation(len(centres))
            for start in range(0, len(shuffled), _PAIRS):
                some = shuffled[start : start + _PAIRS]
                done = (first + _ITEMS_AT_ONCE * start / len(shuffled)) / running[-1]
                yield min(done, 1.0), centres[some], contexts[some]

    def _mixed(self, nodes: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        """Return vectors `[nodes, size]`, their parts `[nodes, 1 + attributes, size]` and the parts' shares."""
        parts = np.stack(
            [
                self._items.values[nodes],
                *(terms[nodes] @ table.values for terms, table in zip(self._attributes, self._terms, strict=True)),
            ],
            axis=1,
        )
        weights = np.where(self._has[nodes], np.exp(self._weights.values[nodes]), np.float32(0))
        shares = weights / weights.sum(axis=1, keepdims=True)
        return (parts * shares[:, :, None]).sum(axis=1), parts, shares

    def _step(self, centres: NDArray[np.int64], contexts: NDArray[np.int64], rate: float) -> None:
        nodes, places = np.unique(centres, return_inverse=True)
        mixed, parts, shares = self._mixed(nodes)
        hidden, near = mixed[places], self._contexts.values[contexts]
        others = np.searchsorted(self._running, self._dice.random(_SHARED) * self._running[-1], side="right")
        far = self._contexts.values[others]
        pull = (expit((hidden * near).sum(axis=1)) - 1)[:, None]
        push = expit(hidden @ far.T) * np.float32(self._rule.negative / _SHARED)
        push[contexts[:, None] == others] = 0
        to_hidden = _sums(places, len(nodes)) @ (pull * near + push @ far)
        rows = np.concatenate([contexts, others])
        self._contexts.step_sums(rows, np.concatenate([pull * hidden, push.T @ hidden]), rate)
        to_parts = shares[:, :, None] * to_hidden[:, None, :]
        to_weights = shares * ((parts - mixed[:, None, :]) * to_hidden[:, None, :]).sum(axis=2)
        self._items.step(nodes, to_parts[:, 0], rate)
        self._weights.step(nodes, to_weights, rate)
        for number, (terms, table) in enumerate(zip(self._attributes, self._terms, strict=True), start=1):
            some = terms[nodes]
            touched = np.unique(some.indices)
            table.step(touched, (some.T.tocsr()[touched] @ to_parts[:, number]), rate)


def _sums(places: NDArray[np.int64], count: int) -> sparse.csr_array:
    """Return `[count, places]`, which adds up the rows that have one place."""
    ones = np.ones(len(places), dtype=np.float32)
    return sparse.csr_array((ones, (places, np.arange(len(places)))), shape=(count, len(places)))


def _pairs(
    sequences: Sequences, chosen: NDArray[np.int64], lengths: NDArray[np.int64], window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return centres and contexts of some sequences: every two items at most `window` apart, both ways."""
    own = lengths[chosen]
    ends = np.cumsum(own)
    places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(sequences.ends[chosen] - ends, own)
    nodes, owner = sequences.nodes[places], np.repeat(np.arange(len(chosen)), own)
    centres, contexts = [], []
    for apart in range(1, window + 1):
        same = owner[apart:] == owner[:-apart]
        one, other = nodes[:-apart][same], nodes[apart:][same]
        centres += [one, other]
        contexts += [other, one]
    return np.concatenate(centres), np.concatenate(contexts)
