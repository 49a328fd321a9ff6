"""Numbers, some of which belong together, to a vector for each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

if TYPE_CHECKING:
    from collections.abc import Sequence


@keras.saving.register_keras_serializable(package="kestrel")
class GroupedNumbers(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Sums each group's numbers times a vector of each: how a number, and the flag beside it, become one field.

    Args:
        sizes: How many of the numbers, one after the other, each group has.
        embedding_size: Dimensions of the vectors.
        l2: Weight decay on the vectors.

    Call arguments:
        numbers: float32 `[batch_size, num_numbers]`.

    Returns:
        float32 `[batch_size, num_groups, embedding_size]`.

    Example:
        >>> GroupedNumbers((2, 1), 4)(ops.array([[0.5, 1.0, -2.0]])).shape  # a number with its flag, another without
        (1, 2, 4)
    """

    def __init__(self, sizes: Sequence[int], embedding_size: int, l2: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.sizes, self.embedding_size, self.l2 = tuple(sizes), embedding_size, l2

    def build(self, shape: tuple[int | None, int]) -> None:
        """Make one vector per number."""
        self.vectors = self.add_weight(
            shape=(shape[-1], self.embedding_size),
            initializer=keras.initializers.RandomNormal(stddev=0.01),
            regularizer=keras.regularizers.L2(self.l2),
            name="vectors",
        )
        self._belongs = np.repeat(np.eye(len(self.sizes), dtype=np.float32), self.sizes, axis=1)

    def call(self, numbers: Any) -> Any:
        """Return the groups' vectors."""
        return ops.matmul(ops.expand_dims(numbers, 1) * self._belongs, self.vectors)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {
            **super().get_config(),
            "sizes": self.sizes,
            "embedding_size": self.embedding_size,
            "l2": self.l2,
        }
