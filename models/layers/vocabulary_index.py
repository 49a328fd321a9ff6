"""Strings to indices."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

MISSING_INDEX = 0
"""Index of "no value" and of padding."""
UNKNOWN_INDEX = 1
"""Index of every term that the vocabulary lacks."""
FIRST_TERM_INDEX = 2


@keras.saving.register_keras_serializable(package="kestrel")
class VocabularyIndex(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Looks terms up: 0 is missing, 1 is out of vocabulary, terms start at 2.

    `keras.layers.StringLookup` does the work; it refuses an empty vocabulary, which a column that the source never
    fills has (MovieLens latest-small knows no occupations).

    Call arguments:
        terms: strings of any shape, `[batch_size]` or `[batch_size, length]`.

    Returns:
        int32 of the same shape.

    Example:
        >>> VocabularyIndex(["a", "b"])(tf.constant(["b", "?", ""]))  # 3, 1, 0
    """

    def __init__(self, vocabulary: list[str], **options: Any) -> None:
        super().__init__(trainable=False, **options)
        self.vocabulary = list(vocabulary)
        self._lookup = (
            keras.layers.StringLookup(vocabulary=self.vocabulary, mask_token="", num_oov_indices=1)
            if self.vocabulary
            else None
        )

    def call(self, terms: tf.Tensor) -> tf.Tensor:
        """Return the index of each term."""
        if self._lookup is None:
            return tf.where(tf.equal(terms, ""), MISSING_INDEX, UNKNOWN_INDEX)
        return tf.cast(self._lookup(terms), tf.int32)

    def compute_output_spec(self, terms: Any) -> Any:
        """Say that the output has the input's shape."""
        return keras.KerasTensor(terms.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "vocabulary": self.vocabulary}
