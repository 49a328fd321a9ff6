"""Layers against hand-computed examples."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf

from models.layers.factorization_machine import FactorizationMachine
from models.layers.mean_pooling import MeanPooling
from models.layers.sequence_weights import SequenceWeights
from models.layers.smoothed_mean import SmoothedMean
from models.layers.standardise import Standardise
from models.layers.term_match import TermMatch
from models.layers.unknown_dropout import UnknownDropout
from models.layers.vocabulary_index import VocabularyIndex
from models.layers.weighted_pooling import WeightedPooling


def test_vocabulary_index():
    assert VocabularyIndex(["b", "a"])(tf.constant([["a", ""], ["?", "b"]])).numpy().tolist() == [[3, 0], [1, 2]]


def test_an_empty_vocabulary_knows_missing_and_unknown():
    assert VocabularyIndex([])(tf.constant(["", "a"])).numpy().tolist() == [0, 1]


def test_standardise_marks_what_was_missing():
    layer = Standardise(mean=2.0, std=4.0, missing=-1.0, log=False)
    received = layer(tf.constant([6.0, -1.0, np.nan, np.inf, 1e9])).numpy()
    assert received.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [8.0, 1.0]]


def test_standardise_takes_the_logarithm_of_counts():
    layer = Standardise(mean=0.0, std=1.0, missing=0.0, log=True)
    received = layer(tf.constant([0, 1, 7], tf.int64)).numpy()
    np.testing.assert_allclose(received, [[0, 0], [np.log(2), 1], [np.log(8), 1]], rtol=1e-6)


def test_smoothed_mean_by_hand():
    layer = SmoothedMean(prior=3.0, pseudo_count=5.0)
    received = layer(tf.constant([5, 0, 4], tf.int64), tf.constant([5.0, -1.0, np.nan])).numpy()
    assert received.tolist() == [[1.0], [0.0], [0.0]]


def test_sequence_weights_split_liked_from_disliked():
    received = SequenceWeights(prior=3.5)(tf.constant([[5.0, 2.0, -1.0, np.nan]])).numpy()
    assert received.tolist() == [[[1.5, 0, 1], [0, 1.5, 1], [0, 0, 0], [0, 0, 0]]]


def test_weighted_pooling_of_nothing_is_nothing():
    embeddings = tf.constant([[[2.0, 4.0], [6.0, 8.0]]] * 2)
    received = WeightedPooling()(embeddings, tf.constant([[1.0, 0.0], [0.0, 0.0]])).numpy()
    assert received.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_mean_pooling_leaves_padding_out():
    embeddings = tf.constant([[[2.0], [4.0], [9.0]], [[1.0], [1.0], [1.0]]])
    assert MeanPooling()(embeddings, tf.constant([[2, 3, 0], [0, 0, 0]])).numpy().tolist() == [[3.0], [0.0]]


def test_term_match_counts_shared_terms_and_never_unknown_ones():
    candidate, user = tf.constant([[2, 3, 0], [1, 2, 0], [0, 0, 0]]), tf.constant([[3, 5], [1, 4], [0, 2]])
    assert TermMatch()(candidate, user).numpy().tolist() == [[0.5], [0.0], [0.0]]


def test_factorization_machine_sums_all_pairs():
    fields = np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32)
    expected = [sum(float(row[i] @ row[j]) for i, j in combinations(range(5), 2)) for row in fields]
    assert FactorizationMachine()(fields).numpy()[:, 0] == pytest.approx(expected, abs=1e-4)


def test_unknown_dropout_replaces_known_terms_in_training_alone():
    indices = tf.constant([[0, 1, 2, 3] * 500])
    layer = UnknownDropout(rate=0.5, seed=1)
    assert layer(indices).numpy().tolist() == indices.numpy().tolist()
    received = layer(indices, training=True).numpy()[0]
    assert received[::4].max() == 0
    assert set(received[2::4]) == {1, 2}
    assert 0.4 < np.mean(received[2::4] == 1) < 0.6
