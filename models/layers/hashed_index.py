"""Strings to indices without a vocabulary."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from models.layers.vocabulary_index import FIRST_TERM_INDEX, MISSING_INDEX


@keras.saving.register_keras_serializable(package="kestrel")
class HashedIndex(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Hashes terms into buckets (FarmHash Fingerprint64, the same on every machine): 0 is missing, buckets start at 2.

    Call arguments:
        terms: strings of any shape.

    Returns:
        int32 of the same shape.
    """

    def __init__(self, buckets: int, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.buckets = buckets

    def call(self, terms: tf.Tensor) -> tf.Tensor:
        """Return the index of each term."""
        hashed = tf.cast(tf.strings.to_hash_bucket_fast(terms, self.buckets), tf.int32)
        return tf.where(tf.equal(terms, ""), MISSING_INDEX, hashed + FIRST_TERM_INDEX)

    def compute_output_spec(self, terms: Any) -> Any:
        """Say that the output has the input's shape."""
        return keras.KerasTensor(terms.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "buckets": self.buckets}
