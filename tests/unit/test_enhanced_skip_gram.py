"""EGES beside TensorFlow's own derivatives and brute force, and what the side information of items is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from feature_repo.contracts.datasets import items_dataset
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, SkipGram
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.embeddings import enhanced_skip_gram
from pipelines.embeddings.enhanced_skip_gram import EnhancedSkipGram, Sequences, fit_enhanced_skip_gram, read_sequences
from pipelines.embeddings.side_information import side_information
from pipelines.embeddings.vectors import unit_length
from pipelines.io.arrow import arrow_schema
from tests import lake_world

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray

NODES = 12
RULE = SkipGram(window=2, epochs=1, learning_rate=0.05, negative=3, negative_exponent=0.5, least_likes=1, seed=4)


def sequences_of(rows: list[list[int]]) -> Sequences:
    return Sequences(
        np.concatenate([np.array(row, dtype=np.int64) for row in rows]), np.cumsum([len(row) for row in rows])
    )


def matrix(rows: list[list[int]], terms: int) -> sparse.csr_array:
    """Return the shares of the terms of each row."""
    dense = np.zeros((len(rows), terms))
    for place, row in enumerate(rows):
        dense[place, row] = 1 / max(len(row), 1)
    return sparse.csr_array(dense)


ATTRIBUTES = [
    matrix([[node % 3] if node % 4 else [] for node in range(NODES)], 3),
    matrix([[node % 2, 2] for node in range(NODES)], 3),
]


@given(st.lists(st.lists(st.integers(0, NODES - 1), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(1, 4))
def test_pairs_are_those_of_brute_force(rows: list[list[int]], window: int) -> None:
    sequences = sequences_of(rows)
    chosen = np.arange(len(rows))[::-1]
    centres, contexts = enhanced_skip_gram._pairs(sequences, chosen, np.diff(sequences.ends, prepend=0), window)
    expected = [
        (row[one], row[other])
        for row in rows
        for one in range(len(row))
        for other in range(len(row))
        if 0 < abs(one - other) <= window
    ]
    assert sorted(zip(centres.tolist(), contexts.tolist(), strict=True)) == sorted(expected)


def test_lines_of_numbers_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "sequences.txt"
    file.write_text("3 14 15\n9 2\n6 5 3 5\n", encoding="ascii")
    sequences = read_sequences(file)
    assert sequences.nodes.tolist() == [3, 14, 15, 9, 2, 6, 5, 3, 5]
    assert sequences.ends.tolist() == [3, 5, 9]


def test_a_step_goes_along_the_derivatives_that_tensorflow_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the paper's loss: -log s(h.z) of each pair and -log(1 - s(h.z)) of each counter-example, by its weight."""
    dice = np.random.default_rng(1)
    model = fit_enhanced_skip_gram(sequences_of([list(range(NODES))]), ATTRIBUTES, RULE)
    tables = [model._items, *model._terms, model._contexts, model._weights]
    for each in tables:
        each.values[:] = dice.normal(size=each.values.shape) / 3
    values = [tf.Variable(each.values.astype(np.float64)) for each in tables]
    found: dict[int, NDArray[Any]] = {}

    def step(table: Any, rows: NDArray[np.int64], gradients: NDArray[np.float32], rate: float) -> None:
        dense = np.zeros_like(table.values)
        dense[rows] = gradients
        found[tables.index(table)] = dense

    monkeypatch.setattr(enhanced_skip_gram._Table, "step", step)
    centres, contexts = dice.integers(0, NODES, 40), dice.integers(0, NODES, 40)
    state = model._dice.bit_generator.state
    model._step(centres, contexts, 0.1)
    model._dice.bit_generator.state = state
    draws = model._dice.random(enhanced_skip_gram._SHARED) * model._running[-1]
    others = np.searchsorted(model._running, draws, side="right")

    items, *terms, context, weights = values
    with tf.GradientTape() as tape:
        parts = tf.stack([items, *(one.toarray() @ table for one, table in zip(ATTRIBUTES, terms, strict=True))], 1)
        has = np.stack([np.ones(NODES), *(np.diff(one.indptr) > 0 for one in ATTRIBUTES)], axis=1)
        exponents = tf.exp(weights) * has
        shares = exponents / tf.reduce_sum(exponents, axis=1, keepdims=True)
        hidden = tf.gather(tf.reduce_sum(parts * shares[:, :, None], axis=1), centres)
        positive = tf.reduce_sum(hidden * tf.gather(context, contexts), axis=1)
        negative = hidden @ tf.transpose(tf.gather(context, others))
        weight = (contexts[:, None] != others) * RULE.negative / len(others)
        loss = -tf.reduce_sum(tf.math.log_sigmoid(positive)) - tf.reduce_sum(weight * tf.math.log_sigmoid(-negative))
    for place, gradient in enumerate(tape.gradient(loss, values)):
        np.testing.assert_allclose(found[place], tf.convert_to_tensor(gradient), rtol=1e-4, atol=1e-5)


def two_tastes() -> Sequences:
    """Walks that stay among the even items or the odd ones; nobody ever met the last two."""
    dice = np.random.default_rng(5)
    return sequences_of([(2 * dice.integers(0, NODES // 2 - 1, 8) + number % 2).tolist() for number in range(400)])


def test_items_of_a_taste_come_together_and_a_new_one_comes_to_those_it_shares_its_terms_with() -> None:
    rule = SkipGram(**{**{name: getattr(RULE, name) for name in SkipGram.__slots__}, "epochs": 10})
    tastes = [matrix([[node % 2] for node in range(NODES)], 2), matrix([[] for _ in range(NODES)], 1)]
    first, again = (fit_enhanced_skip_gram(two_tastes(), tastes, rule) for _ in range(2))
    known = np.arange(NODES - 2)
    vectors = unit_length(first.vectors(known))
    assert np.array_equal(first.vectors(known), again.vectors(known))
    cosines = vectors @ vectors.T
    same = (known[:, None] + known) % 2 == 0
    assert cosines[same].min() > cosines[~same].max()
    new = unit_length(first.vectors_of_terms([each[NODES - 2 :] for each in tastes]))
    near = new @ vectors.T
    assert near[0, ::2].min() > near[0, 1::2].max()
    assert near[1, 1::2].min() > near[1, ::2].max()


def test_a_data_set_without_terms_has_items_alone() -> None:
    model: EnhancedSkipGram = fit_enhanced_skip_gram(two_tastes(), [], RULE)
    assert model.vectors(np.arange(3)).shape == (3, EMBEDDING_SIZE)


ITEMS = [lake_world.item("1", ["War", "Drama", "War"]), lake_world.item("2", ["War"]), lake_world.item("3")]


def test_side_information_is_shares_of_terms() -> None:
    table = pa.Table.from_pylist(ITEMS, arrow_schema(items_dataset(MOVIELENS)))
    side = side_information(table, MOVIELENS, datetime(1998, 1, 1, tzinfo=UTC))
    (genres,) = (each for each in side.attributes if each.shape[1] == 2)
    assert genres.toarray().tolist() == [[0.5, 0.5], [0, 1], [0, 0]]
    turned = side.of(pa.array(["3", "unknown", "1"]))
    (genres,) = (each for each in turned.attributes if each.shape[1] == 2)
    assert genres.toarray().tolist() == [[0, 0], [0, 0], [0.5, 0.5]]
    assert side.without(pa.array(["1"])).ids.to_pylist() == ["2"]
