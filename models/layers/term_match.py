"""How far the candidate's terms are the user's."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.vocabulary_index import FIRST_TERM_INDEX


@keras.saving.register_keras_serializable(package="kestrel")
class TermMatch(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Returns the share of the candidate's known terms that are among the user's.

    A term that shares its index with others, out of the vocabulary, matches nothing.

    Call arguments:
        candidate: int32 `[batch_size, length]` or `[batch_size]`, indices into a vocabulary of `terms` terms.
        user: int32 `[batch_size, other_length]` or `[1, other_length]`, indices into the same one.

    Returns:
        float32 `[batch_size, 1]` from 0 to 1.
    """

    def __init__(self, terms: int, **options: Any) -> None:
        super().__init__(**{**options, "trainable": False})
        self.terms = terms

    def call(self, candidate: Any, user: Any) -> Any:
        """Return the share."""
        if len(candidate.shape) == 1:
            candidate = ops.expand_dims(candidate, 1)
        known = ops.logical_and(candidate >= FIRST_TERM_INDEX, candidate < FIRST_TERM_INDEX + self.terms)
        shared = ops.any(ops.equal(ops.expand_dims(candidate, 2), ops.expand_dims(user, 1)), axis=2)
        matches = ops.sum(ops.cast(ops.logical_and(known, shared), "float32"), axis=1, keepdims=True)
        return matches / ops.maximum(ops.sum(ops.cast(known, "float32"), axis=1, keepdims=True), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), "terms": self.terms}
