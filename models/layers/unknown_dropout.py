"""Terms to 'unknown', now and then, so that what stands for unknown is trained."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.layers.vocabulary_index import FIRST_TERM_INDEX, UNKNOWN_INDEX, unknown_index


@keras.saving.register_keras_serializable(package="kestrel")
class UnknownDropout(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """In training, replaces terms by index 1 at a given rate; missing values stay missing. Otherwise does nothing.

    The vocabulary is fitted on train rows, so no train row has an unknown term: without this, the embedding that every
    new item gets would stay at its random start. Where unknown terms share several buckets, each is trained by its part
    of the terms.

    Call arguments:
        indices: int32 of any shape.
        training: whether to replace.

    Returns:
        int32 of the same shape.
    """

    def __init__(self, rate: float, seed: int, terms: int = 0, buckets: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.rate, self.seed, self.terms, self.buckets = rate, seed, terms, max(buckets, 1)
        self._generator = keras.random.SeedGenerator(seed)

    def call(self, indices: Any, *, training: bool = False) -> Any:
        """Return the indices, some of them replaced."""
        if not training or self.rate == 0:
            return indices
        replaced = keras.random.uniform(ops.shape(indices), seed=self._generator) < self.rate
        unknown = UNKNOWN_INDEX if self.buckets == 1 else unknown_index(ops.mod(indices, self.buckets), self.terms)
        return ops.where(ops.logical_and(replaced, indices >= FIRST_TERM_INDEX), unknown, indices)

    def compute_output_spec(self, indices: Any, *, training: bool = False) -> Any:
        """Say that the output has the input's shape."""
        del training
        return keras.KerasTensor(indices.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {**super().get_config(), **{name: getattr(self, name) for name in ("rate", "seed", "terms", "buckets")}}
