"""Random walks beside the plainest Python: the exact distribution of every step, worked out edge by edge."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.embeddings.random_walks import NO_NODE, Graph, WalkRule, from_edges, random_walks

Edges = dict[tuple[int, int], int]

NODES = 6
WALKS = 20_000
SIGMAS = 5.0

edge_sets = st.dictionaries(
    st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)).filter(lambda pair: pair[0] != pair[1]),
    st.integers(1, 9),
    min_size=3,
    max_size=NODES * (NODES - 1),
)
parameters = st.sampled_from([0.01, 0.25, 1.0, 2.0, 50.0, math.inf])


def graph_of(edges: Edges, nodes: int = NODES) -> Graph:
    pairs = np.array(list(edges), dtype=np.int64).reshape(-1, 2)
    return from_edges(nodes, pairs[:, 0], pairs[:, 1], np.array(list(edges.values()), dtype=np.int64))


def distribution(edges: Edges, previous: int | None, current: int, p: float, q: float) -> dict[int, float]:
    """Return next node → probability, by the definition; empty where the walk ends."""
    weights = {}
    for (source, target), weight in edges.items():
        if source != current:
            continue
        if previous is None:
            bias = 1.0
        elif target == previous:
            bias = 1 / p
        elif (previous, target) in edges:
            bias = 1.0
        else:
            bias = 1 / q
        weights[target] = weight * bias
    total = sum(weights.values())
    return {target: weight / total for target, weight in weights.items() if weight} if total else {}


def walks_on(graph: Graph, rule: WalkRule, walks: int = WALKS) -> np.ndarray:
    numbers = np.arange(walks)
    return random_walks(graph, numbers % graph.nodes, numbers, rule)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(edge_sets, parameters, parameters)
def test_every_step_follows_the_definition(edges: Edges, p: float, q: float) -> None:
    """The second step too, whose distribution depends on where the walk came from."""
    path = walks_on(graph_of(edges), WalkRule(length=3, seed=1, p=p, q=q))
    following: dict[tuple[int | None, int], Counter[int]] = defaultdict(Counter)
    for first, second, third in path.tolist():
        following[None, first][second] += 1
        if second != NO_NODE:
            following[first, second][third] += 1
    for (previous, current), counts in following.items():
        expected = distribution(edges, previous, current, p, q)
        total = counts.total()
        if not expected:
            assert counts == {NO_NODE: total}
            continue
        assert counts.keys() <= expected.keys()
        for target, probability in expected.items():
            spread = math.sqrt(total * probability * (1 - probability))
            assert abs(counts[target] - total * probability) <= SIGMAS * spread + 1, (previous, current, target)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(edge_sets, st.integers(1, 12))
def test_walks_go_along_edges_until_a_dead_end(edges: Edges, length: int) -> None:
    path = walks_on(graph_of(edges), WalkRule(length=length, seed=2, p=0.5, q=2.0), 300)
    sources = {source for source, _ in edges}
    for walk in path.tolist():
        nodes = [node for node in walk if node != NO_NODE]
        assert walk == nodes + [NO_NODE] * (length - len(nodes))
        assert all(pair in edges for pair in itertools.pairwise(nodes))
        assert len(nodes) == length or nodes[-1] not in sources


def both_ways(pairs: list[tuple[int, int]]) -> Edges:
    return {pair: 1 for source, target in pairs for pair in ((source, target), (target, source))}


def test_an_infinite_p_never_goes_back_and_ends_where_there_is_no_other_way() -> None:
    line = both_ways([(0, 1), (1, 2), (2, 3)])
    path = walks_on(graph_of(line, 4), WalkRule(length=6, seed=3, p=math.inf), 400)
    assert {tuple(walk) for walk in path[path[:, 0] == 0].tolist()} == {(0, 1, 2, 3, NO_NODE, NO_NODE)}
    complete = both_ways([(a, b) for a in range(NODES) for b in range(a)])
    path = walks_on(graph_of(complete), WalkRule(length=30, seed=3, p=math.inf), 2000)
    assert (path != NO_NODE).all()
    assert not (path[:, 2:] == path[:, :-2]).any()


def test_a_tiny_p_goes_back_and_forth() -> None:
    complete = both_ways([(a, b) for a in range(NODES) for b in range(a)])
    path = walks_on(graph_of(complete), WalkRule(length=10, seed=4, p=1e-9), 500)
    assert (path[:, 2:] == path[:, :-2]).all()


def communities(count: int = 10, size: int = 8) -> Edges:
    """Return cliques in a ring, each joined to the next by a few edges."""
    inside = [(c * size + a, c * size + b) for c in range(count) for a in range(size) for b in range(a)]
    bridges = [(c * size + a, (c + 1) % count * size + a) for c in range(count) for a in range(3)]
    return both_ways(inside + bridges)


def test_a_small_q_goes_outward_and_a_great_one_stays() -> None:
    graph = graph_of(communities(), 80)

    def visited(q: float) -> float:
        path = walks_on(graph, WalkRule(length=20, seed=5, q=q), 2000) // 8
        return float(np.mean([len(set(walk)) for walk in path.tolist()]))

    assert visited(0.1) > 1.3 * visited(1.0) > 1.3 * 1.3 * visited(10.0)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(edge_sets, st.integers(0, 2**63 - 1), st.sets(st.integers(0, 199), min_size=1))
def test_a_walk_is_the_same_whoever_walks_beside_it(edges: Edges, seed: int, chosen: set[int]) -> None:
    graph, rule = graph_of(edges), WalkRule(length=8, seed=seed, p=3.0, q=0.3)
    whole = walks_on(graph, rule, 200)
    numbers = np.array(sorted(chosen, key=lambda number: number * 7919 % 200))
    assert (random_walks(graph, numbers % NODES, numbers, rule) == whole[numbers]).all()


def test_another_seed_is_another_walk() -> None:
    graph = graph_of(communities(), 80)
    first, second = (walks_on(graph, WalkRule(length=10, seed=seed), 1000) for seed in (1, 2))
    assert (first != second).any(axis=1).mean() > 0.99


@pytest.mark.parametrize(
    ("edges", "fault"),
    [
        (([0, 9], [1, 1], [1, 1]), "nodes 0 to 2, received 0 to 9"),
        (([0, -1], [1, 1], [1, 1]), "received -1 to 1"),
        (([0, 1], [1, 2], [1, 0]), "weights of 1 or more, received 0"),
        (([0, 0], [1, 1], [1, 1]), "every edge once"),
    ],
)
def test_edges_that_make_no_graph_are_refused(edges: tuple[list[int], ...], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        from_edges(3, *(np.array(column) for column in edges))
