"""Batches of whole groups, for objectives that compare the rows of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inputs import Columns


class GroupBatches(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
    """Batches of about `batch_size` rows that part no group; Keras takes them in another order each epoch.

    Groups come together by chance: neighbours are alike, as they were asked at one moment.

    Args:
        inputs: Encoded columns.
        targets: `[rows, columns]`
        weights: `[rows]`
        groups: `[rows]`, in any order. One of more rows than `batch_size` is a batch with whatever begins in it.
        batch_size: Rows after which the next group begins another batch.
        seed: Of which groups come together.
    """

    def __init__(  # noqa: PLR0917 - rows as Keras takes them, and how they are divided
        self,
        inputs: Columns,
        targets: NDArray[Any],
        weights: NDArray[Any],
        groups: NDArray[Any],
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._inputs, self._targets, self._weights = inputs, targets, weights
        _, codes = np.unique(groups, return_inverse=True)
        places = np.random.default_rng(seed).permutation(codes.max(initial=-1) + 1)
        groups = places[codes]
        order = np.argsort(groups, kind="stable")
        begins = np.flatnonzero(np.diff(groups[order], prepend=groups[order[:1]] - 1))
        first = np.flatnonzero(np.diff(begins // batch_size, prepend=-1))
        self._rows = np.split(order, begins[first][1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Columns, NDArray[Any], NDArray[Any]]:
        rows = self._rows[index]
        return {name: values[rows] for name, values in self._inputs.items()}, self._targets[rows], self._weights[rows]
