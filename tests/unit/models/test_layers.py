"""Layers against hand-computed examples."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from models.layers.calendar_index import CalendarIndex
from models.layers.decayed_count import DecayedCount
from models.layers.elapsed import Elapsed
from models.layers.factorization_machine import FactorizationMachine, sums
from models.layers.hashed_index import HashedIndex
from models.layers.indicator import Indicator
from models.layers.mean_pooling import MeanPooling
from models.layers.numeric_match import NumericMatch
from models.layers.numeric_sums import NumericSums
from models.layers.quantile_index import QuantileIndex
from models.layers.rescale import Rescale, Scaled
from models.layers.sequence_weights import SequenceWeights
from models.layers.smoothed_mean import SmoothedMean
from models.layers.term_embedding import TermEmbedding
from models.layers.term_match import TermMatch
from models.layers.unknown_dropout import UnknownDropout
from models.layers.vector_norm import VectorNorm
from models.layers.vocabulary_index import VocabularyIndex
from models.layers.weighted_pooling import WeightedPooling


def test_vocabulary_index():
    assert VocabularyIndex(["b", "a"])(tf.constant([["a", ""], ["?", "b"]])).numpy().tolist() == [[3, 0], [1, 2]]


def test_an_empty_vocabulary_knows_missing_and_unknown():
    assert VocabularyIndex([])(tf.constant(["", "a"])).numpy().tolist() == [0, 1]


def test_unknown_terms_are_told_apart_by_their_hash():
    layer = VocabularyIndex(["b", "a"], buckets=3)
    unknown = [f"new {number}" for number in range(200)]
    received = layer(tf.constant(["a", "", "b", *unknown])).numpy()
    assert received[:3].tolist() == [3, 0, 2]
    assert set(received[3:]) == {1, 4, 5}, "the first bucket is what stands for unknown, the others follow the terms"
    hashed = tf.strings.to_hash_bucket_fast(unknown, 3).numpy()
    assert received[3:].tolist() == [{0: 1, 1: 4, 2: 5}[bucket] for bucket in hashed]
    assert VocabularyIndex([], buckets=3)(tf.constant(["", *unknown])).numpy().max() == 3


def test_hashed_index_is_the_documented_hash():
    """TensorFlow documents these three: a hash that changed would give every term another's weights."""
    received = HashedIndex(3)(tf.constant(["Hello", "TensorFlow", "2.x", ""])).numpy()
    assert received.tolist() == [2, 4, 4, 0]


def test_quantile_index_counts_boundaries():
    layer = QuantileIndex([1.0, 2.5], missing=-1.0)
    received = layer(tf.constant([0.5, 1.0, 2.4, 2.5, 99.0, -1.0, np.nan])).numpy()
    assert received.tolist() == [2, 3, 3, 4, 4, 0, 0]
    assert QuantileIndex([], missing=0.0)(tf.constant([0, 7], tf.int64)).numpy().tolist() == [0, 2]


def test_indicator_of_one_and_of_many():
    assert Indicator(4)(tf.constant([0, 1, 3])).numpy().tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert Indicator(4)(tf.constant([[3, 1, 0], [2, 2, 0]])).numpy().tolist() == [[1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("order", "expected"), [(1.0, [3 / 7, -4 / 7]), (2.0, [0.6, -0.8]), (np.inf, [0.75, -1.0])])
def test_vector_norm_by_hand(order, expected):
    layer = VectorNorm(order, missing=-1.0)
    received = layer(tf.constant([[3.0, -4.0, -1.0], [0.0, np.nan, -1.0], [3e30, -4e30, 0.0]])).numpy()
    np.testing.assert_allclose(received, [[*expected, 0], [0, 0, 0], [*expected, 0]], rtol=1e-6)


def test_rescale_marks_what_was_missing():
    (received,) = Rescale([Scaled(centre=2.0, scale=4.0)])(tf.constant([6.0, -1.0, np.nan, np.inf, 1e9]))
    assert received.numpy().tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [8.0, 1.0]]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [("log", [np.log(2), np.log(8)]), ("sqrt", [1, 7**0.5]), ("square", [1, 8]), ("linear", [1, 7])],
)
def test_rescale_takes_a_curve_first(curve, expected):
    (received,) = Rescale([Scaled(missing=0.0, curve=curve)])(tf.constant([0, 1, 7], tf.int64))
    np.testing.assert_allclose(received.numpy(), [[0, 0], [expected[0], 1], [expected[1], 1]], rtol=1e-6)


@pytest.mark.parametrize("curve", ["log", "sqrt"])
def test_a_curve_takes_a_negative_number_for_zero(curve):
    (received,) = Rescale([Scaled(curve=curve)])(tf.constant([-0.5, -2.0]))
    assert received.numpy().tolist() == [[0, 1], [0, 1]]


def test_columns_rescaled_together_are_what_each_is_alone():
    random = np.random.default_rng(5)
    kinds = [(curve, dtype) for curve in ("square", "log", "linear", "sqrt") for dtype in (tf.int64, tf.float32)] * 2
    scaled = [
        Scaled(random.normal(), random.uniform(0.5, 2), float(random.integers(-1, 2)), curve, -1.5, 2.0)
        for curve, _ in kinds
    ]
    columns = [tf.cast(random.integers(-2, 5, 20), dtype) for _, dtype in kinds]
    together = Rescale(scaled)(*columns)
    alone = [Rescale([each])(column)[0] for each, column in zip(scaled, columns, strict=True)]
    np.testing.assert_array_equal(tf.stack(together).numpy(), tf.stack(alone).numpy())
    again = Rescale.from_config(Rescale(scaled).get_config())
    np.testing.assert_array_equal(tf.stack(again(*columns)).numpy(), tf.stack(alone).numpy())


@given(st.integers(1, 4_102_444_800))
def test_the_calendar_is_python_s(second):
    moment = datetime.fromtimestamp(second, UTC)
    read = {part: int(CalendarIndex(part)(tf.constant([second], tf.int64))[0]) for part in ("hour", "weekday")}
    assert read == {"hour": moment.hour + 2, "weekday": moment.weekday() + 2}


def test_seasons_are_those_of_the_months():
    season = CalendarIndex("season")
    for year in range(1970, 2100, 7):
        for month in range(1, 13):
            second = int(datetime(year, month, 15, 12, tzinfo=UTC).timestamp())
            assert int(season(tf.constant([second], tf.int64))[0]) == month % 12 // 3 + 2, (year, month)
    assert season(tf.constant([0], tf.int64)).numpy().tolist() == [0]


def test_elapsed_is_a_share_of_a_day_s_logarithm():
    request, moment = tf.constant([100_000], tf.int64), tf.constant([13_600, 100_000, 100_007, 0], tf.int64)
    np.testing.assert_allclose(Elapsed()(request, moment).numpy(), [[1, 1], [0, 1], [0, 1], [0, 0]], atol=1e-6)
    assert Elapsed()(tf.constant([0], tf.int64), moment).numpy().max() == 0


def test_decayed_count_halves_with_each_half_life():
    day = 86_400
    layer = DecayedCount(half_life_days=14.0)
    until = tf.constant([10_241.0, 10_269.0, -1.0, np.nan])
    received = layer(tf.constant([10_241 * day], tf.int64), until).numpy()
    np.testing.assert_allclose(received, [[1, 1], [np.log2(5), 1], [0, 0], [0, 0]], atol=1e-5)
    later = layer(tf.constant([10_255 * day], tf.int64), until).numpy()
    np.testing.assert_allclose(later[:2, 0], [np.log2(1.5), np.log2(3)], atol=1e-5)


def test_numeric_match_is_a_distance_in_the_user_s_deviations():
    layer = NumericMatch(missing=-1.0, least=2.0)
    candidate = tf.constant([1990.0, 2000.0, -1.0, np.nan])
    received = layer(candidate, tf.constant([1995.0]), tf.constant([10.0])).numpy()
    assert received.tolist() == [[0.5, 1], [0.5, 1], [0, 0], [0, 0]]
    assert layer(candidate, tf.constant([1995.0]), tf.constant([0.0])).numpy()[0].tolist() == [2.5, 1]
    assert layer(candidate, tf.constant([-1.0]), tf.constant([-1.0])).numpy().max() == 0


def test_smoothed_mean_by_hand():
    layer = SmoothedMean(prior=3.0, pseudo_count=5.0)
    received = layer(tf.constant([5, 0, 4, 5], tf.int64), tf.constant([5.0, -1.0, np.nan, 0.0])).numpy()
    assert received.tolist() == [[1.0], [0.0], [0.0], [-1.5]]


def test_sequence_weights_split_liked_from_disliked():
    received = SequenceWeights(prior=3.5)(tf.constant([[5.0, 2.0, 0.0, -1.0, np.nan]])).numpy()
    assert received.tolist() == [[[1.5, 0, 1], [0, 1.5, 1], [0, 3.5, 1], [0, 0, 0], [0, 0, 0]]]


def test_weighted_pooling_of_nothing_is_nothing():
    embeddings = tf.constant([[[2.0, 4.0], [6.0, 8.0]]] * 2)
    received = WeightedPooling()(embeddings, tf.constant([[1.0, 0.0], [0.0, 0.0]])).numpy()
    assert received.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_mean_pooling_leaves_padding_out():
    embeddings = tf.constant([[[2.0], [4.0], [9.0]], [[1.0], [1.0], [1.0]]])
    assert MeanPooling()(embeddings, tf.constant([[2, 3, 0], [0, 0, 0]])).numpy().tolist() == [[3.0], [0.0]]


def test_term_match_counts_shared_terms_and_never_unknown_ones():
    candidate, user = tf.constant([[2, 3, 0], [1, 2, 0], [0, 0, 0]]), tf.constant([[3, 5], [1, 4], [0, 2]])
    assert TermMatch(terms=4)(candidate, user).numpy().tolist() == [[0.5], [0.0], [0.0]]


def test_term_match_takes_one_user_for_many_candidates_and_no_shared_index_for_a_term():
    candidate, user = tf.constant([2, 3, 4, 1]), tf.constant([[3, 4, 1]])
    assert TermMatch(terms=2)(candidate, user).numpy().tolist() == [[0.0], [1.0], [0.0], [0.0]]


def test_factorization_machine_sums_all_pairs():
    fields = np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32)
    expected = [sum(float(row[i] @ row[j]) for i, j in combinations(range(5), 2)) for row in fields]
    assert FactorizationMachine()(*sums(fields)).numpy()[:, 0] == pytest.approx(expected, abs=1e-4)


def test_sums_of_scaled_vectors_are_those_of_the_vectors():
    numbers = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    layer = NumericSums(3)
    total, squares = layer(numbers)
    vectors = [[number * vector for number, vector in zip(row, layer.vectors.numpy(), strict=True)] for row in numbers]
    np.testing.assert_allclose(total, np.sum(vectors, axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(squares, np.sum(np.square(vectors), axis=1), rtol=1e-5, atol=1e-7)


def test_term_embedding_is_keras_s():
    indices = tf.constant([[0, 3], [1, 1]])
    layer = TermEmbedding(4, 2)
    layer.build()
    np.testing.assert_array_equal(layer(indices), layer.embeddings.numpy()[indices.numpy()])


def test_unknown_dropout_replaces_known_terms_in_training_alone():
    indices = tf.constant([[0, 1, 2, 3] * 500])
    layer = UnknownDropout(rate=0.5, seed=1)
    assert layer(indices).numpy().tolist() == indices.numpy().tolist()
    received = layer(indices, training=True).numpy()[0]
    assert received[::4].max() == 0
    assert set(received[2::4]) == {1, 2}
    assert 0.4 < np.mean(received[2::4] == 1) < 0.6


def test_unknown_dropout_trains_every_bucket():
    layer = UnknownDropout(rate=0.5, seed=1, terms=4, buckets=3)
    received = layer(tf.constant([[2, 3, 4, 5] * 500]), training=True).numpy()[0]
    assert [set(received[place::4]) for place in range(4)] == [{2, 7}, {3, 1}, {4, 6}, {5, 7}]
