"""Weighted random walks on a directed graph, many at a time: DeepWalk's first order and node2vec's second.

Perozzi, Al-Rfou and Skiena, "DeepWalk" (2014); Grover and Leskovec, "node2vec" (2016). A walk's next node is drawn in
proportion to the weights of the edges that leave its node; DeepWalk's graphs have no weights, these have. node2vec
multiplies them by 1/p for the node it came from, by 1 for nodes that the one it came from has an edge to, and by 1/q
for all others. Its published code asks for the edge back to where the walk came from; the paper's distance is along the
edges' direction, and so is this.

Random numbers are a hash of (seed, walk, step, draw). So a walk is the same whoever walks it, beside whichever others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_NODE = -1
"""Stands for the steps after a walk's end."""
_PROPOSALS = 12
"""After so many refused proposals a next node is drawn from the exact weights. Both ways have one distribution."""


@dataclass(frozen=True)
class Graph:
    """A directed graph by rows: node n's edges are [offsets[n], offsets[n + 1]), in the order of their targets.

    Nodes are 0 to nodes - 1; `from_edges` makes one.
    """

    offsets: NDArray[np.int64]
    """`[nodes + 1]`"""
    targets: NDArray[np.int64]
    """`[edges]`"""
    running: NDArray[np.int64]
    """`[edges + 1]`, the sum of the weights of all edges before this one."""

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.offsets) - 1

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """`[edges]`, ascending: source and target of each edge in one number."""
        sources = np.repeat(np.arange(self.nodes), np.diff(self.offsets))
        return sources * self.nodes + self.targets

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """Of the edges, `[edges]`."""
        return np.diff(self.running)

    def out_weight(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sum of the weights of the edges that leave each node, 0 for a dead end."""
        return self.running[self.offsets[nodes + 1]] - self.running[self.offsets[nodes]]

    def has_edge(self, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell for each pair whether there is an edge from source to target."""
        wanted = sources * self.nodes + targets
        found = np.searchsorted(self._keys, wanted)
        present: NDArray[np.bool_] = self._keys[np.minimum(found, len(self._keys) - 1)] == wanted
        return present

    def draw(self, nodes: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return a successor of each node, in proportion to the edges' weights; none of `nodes` is a dead end.

        Args:
            nodes: `[walks]`
            uniform: `[walks]`, from [0, 1). The weights are whole numbers, so the search among their sums is exact.
        """
        ticket = self.running[self.offsets[nodes]] + (uniform * self.out_weight(nodes)).astype(np.int64)
        return self.targets[np.searchsorted(self.running, ticket, side="right") - 1]


def from_edges(nodes: int, sources: NDArray[np.int64], targets: NDArray[np.int64], weights: NDArray[np.int64]) -> Graph:
    """Return the graph of some edges, in whatever order they come.

    Raises:
        ValueError: A node is not among `nodes`, a weight is below 1, or an edge comes twice.
    """
    order = np.lexsort((targets, sources))
    sources, targets, weights = sources[order], targets[order], weights[order]
    ends = np.concatenate([sources, targets])
    if len(ends) and (ends.min() < 0 or ends.max() >= nodes):
        msg = f"graph: expected nodes 0 to {nodes - 1}, received {ends.min()} to {ends.max()}"
        raise ValueError(msg)
    if len(weights) and weights.min() < 1:
        msg = f"graph: expected weights of 1 or more, received {weights.min()}"
        raise ValueError(msg)
    if np.any((np.diff(sources) == 0) & (np.diff(targets) == 0)):
        msg = "graph: expected every edge once, received one twice; add their weights first"
        raise ValueError(msg)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=nodes))]).astype(np.int64)
    return Graph(offsets, targets, np.concatenate([[0], np.cumsum(weights)]).astype(np.int64))


@dataclass(frozen=True, slots=True)
class WalkRule:
    """How a walk goes on."""

    length: int
    """Nodes of a walk that meets no dead end, its first one included."""
    seed: int
    p: float = 1.0
    """Return parameter: the greater, the seldomer a walk goes straight back; infinity is never."""
    q: float = 1.0
    """In-out parameter: below 1 walks go outward, above 1 they stay near where they came from."""

    @property
    def first_order(self) -> bool:
        """Whether where a walk came from does not matter: DeepWalk."""
        return self.p == 1.0 and self.q == 1.0

    def shuffled(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return for each walk its place in an order by chance."""
        return (_mix(numbers.astype(np.uint64) + _scramble(~self.seed)) >> np.uint64(1)).astype(np.int64)


def random_walks(
    graph: Graph, starts: NDArray[np.int64], numbers: NDArray[np.int64], rule: WalkRule
) -> NDArray[np.int64]:
    """Return walks, `[walks, rule.length]`; after a dead end comes NO_NODE.

    Args:
        graph: What is walked on.
        starts: `[walks]`, first nodes.
        numbers: `[walks]`, what tells one walk's random numbers from another's.
        rule: How to go on.
    """
    path = np.full((len(starts), rule.length), NO_NODE, dtype=np.int64)
    path[:, 0] = starts
    walking = np.arange(len(starts))
    for step in range(1, rule.length):
        walking = walking[graph.out_weight(path[walking, step - 1]) > 0]
        if not len(walking):
            break
        current, dice = path[walking, step - 1], _Dice(rule.seed, numbers[walking], step)
        if step == 1 or rule.first_order:
            following = graph.draw(current, dice.uniform(0))
        else:
            following = _second_order(graph, path[walking, step - 2], current, dice, rule)
        path[walking, step] = following
        walking = walking[following != NO_NODE]
    return path


def _second_order(
    graph: Graph, previous: NDArray[np.int64], current: NDArray[np.int64], dice: _Dice, rule: WalkRule
) -> NDArray[np.int64]:
    """Propose successors by weight, accept them in proportion to their bias; those refused too often, draw exactly."""
    following = np.full(len(current), NO_NODE, dtype=np.int64)
    greatest = max(1 / rule.p, 1.0, 1 / rule.q)
    left = np.arange(len(current))
    for proposal in range(_PROPOSALS):
        proposed = graph.draw(current[left], dice.uniform(2 * proposal, left))
        bias = _bias(graph, previous[left], proposed, rule)
        accepted = dice.uniform(2 * proposal + 1, left) * greatest < bias
        following[left[accepted]] = proposed[accepted]
        left = left[~accepted]
        if not len(left):
            return following
    following[left] = _drawn_exactly(graph, previous[left], current[left], dice.uniform(2 * _PROPOSALS, left), rule)
    return following


def _bias(
    graph: Graph, previous: NDArray[np.int64], proposed: NDArray[np.int64], rule: WalkRule
) -> NDArray[np.float64]:
    outward = np.where(graph.has_edge(previous, proposed), 1.0, 1 / rule.q)
    return np.where(proposed == previous, 1 / rule.p, outward)


def _drawn_exactly(
    graph: Graph, previous: NDArray[np.int64], current: NDArray[np.int64], uniform: NDArray[np.float64], rule: WalkRule
) -> NDArray[np.int64]:
    """Weigh every edge of each node anew and draw; NO_NODE where p is infinite and the only way leads back."""
    first = graph.offsets[current]
    degrees = graph.offsets[current + 1] - first
    ends = np.cumsum(degrees)
    edges = np.arange(ends[-1]) + np.repeat(first - (ends - degrees), degrees)
    biased = graph.weights[edges] * _bias(graph, np.repeat(previous, degrees), graph.targets[edges], rule)
    running = np.concatenate([[0.0], np.cumsum(biased)])
    low, high = running[ends - degrees], running[ends]
    chosen = np.searchsorted(running, low + uniform * (high - low), side="right") - 1
    # Rounding may carry a draw past the last edge of its node that has any weight.
    chosen = np.minimum(chosen, _last_possible(biased, ends, degrees))
    return np.where(high > low, graph.targets[edges[chosen]], NO_NODE)


def _last_possible(
    biased: NDArray[np.float64], ends: NDArray[np.int64], degrees: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each node's last edge of positive weight, or its first where there is none."""
    possible = np.where(biased > 0, np.arange(len(biased)), -1)
    last: NDArray[np.int64] = np.maximum(np.maximum.reduceat(possible, ends - degrees), ends - degrees)
    return last


@dataclass(frozen=True, slots=True)
class _Dice:
    """The random numbers of one step of some walks."""

    seed: int
    numbers: NDArray[np.int64]
    step: int

    def uniform(self, draw: int, among: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.float64]:
        """Return a number from [0, 1) for each of the walks `among` these, by 53 bits of the hash."""
        walks = self.numbers[among].astype(np.uint64)
        mixed = _mix(_mix(walks + _scramble(self.seed)) + _scramble(self.step * (2 * _PROPOSALS + 1) + draw))
        return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


_GOLDEN = 0x9E37_79B9_7F4A_7C15
_WORD = (1 << 64) - 1


def _scramble(number: int) -> np.uint64:
    return np.uint64((number + 1) * _GOLDEN & _WORD)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return bits ^ (bits >> np.uint64(31))
