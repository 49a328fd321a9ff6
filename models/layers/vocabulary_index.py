"""Strings to indices."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

MISSING_INDEX = 0
"""Index of "no value" and of padding."""
UNKNOWN_INDEX = 1
"""Index of every term that the vocabulary lacks."""
FIRST_TERM_INDEX = 2


def unknown_index(bucket: Any, terms: int) -> Any:
    """Return the index of a bucket of unknown terms, counted from 0, in a vocabulary of so many terms."""
    return ops.where(ops.equal(bucket, 0), UNKNOWN_INDEX, bucket + (FIRST_TERM_INDEX + terms - 1))


def index_count(terms: int, buckets: int) -> int:
    """Return how many indices a vocabulary has, missing and unknown included."""
    return FIRST_TERM_INDEX + terms + max(buckets, 1) - 1


@keras.saving.register_keras_serializable(package="kestrel")
class VocabularyIndex(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Looks terms up: 0 is missing, 1 is out of vocabulary, terms start at 2.

    With more than one bucket, terms out of the vocabulary are told apart by their hash (FarmHash Fingerprint64): the
    first bucket is 1, the others follow the last term.

    It is one operation of the graph. `keras.layers.StringLookup` takes four, and refuses an empty vocabulary, which a
    column that the source never fills has (MovieLens latest-small knows no occupations).

    Call arguments:
        terms: strings of any shape, `[batch_size]` or `[batch_size, length]`.

    Returns:
        int32 of the same shape.

    Example:
        >>> VocabularyIndex(["a", "b"])(tf.constant(["b", "?", ""]))  # 3, 1, 0
    """

    def __init__(self, vocabulary: list[str], buckets: int = 1, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.vocabulary, self.buckets = list(vocabulary), max(buckets, 1)
        keys = tf.constant(["", *self.vocabulary], tf.string)
        indices = tf.range(FIRST_TERM_INDEX - 1, FIRST_TERM_INDEX + len(self.vocabulary))
        values = tf.where(tf.equal(keys, ""), MISSING_INDEX, indices)
        self._table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), UNKNOWN_INDEX)

    def call(self, terms: tf.Tensor) -> tf.Tensor:
        """Return the index of each term."""
        indices = self._table.lookup(terms)
        if self.buckets == 1:
            return indices
        bucket = tf.cast(tf.strings.to_hash_bucket_fast(terms, self.buckets), tf.int32)
        return tf.where(tf.equal(indices, UNKNOWN_INDEX), unknown_index(bucket, len(self.vocabulary)), indices)

    def compute_output_spec(self, terms: Any) -> Any:
        """Say that the output has the input's shape."""
        return keras.KerasTensor(terms.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "vocabulary": self.vocabulary, "buckets": self.buckets}
