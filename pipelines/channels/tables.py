"""The tables that fitted channels are read from: item → what a like of it adds to others, or item → a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from feature_repo.contracts.channels import NEIGHBOURS, SCORES
from feature_repo.contracts.questions import SimpleList
from pipelines.channels.fits import all_together, ease_weights, item_cosines, liked_together, shares
from pipelines.channels.lists import top
from pipelines.io.arrow import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipelines.channels.fits import Variant
    from pipelines.channels.likes import LikeMatrix

_CHUNK = 256
"""Rows whose greatest weights are looked for at a time."""


def scores_table(matrix: LikeMatrix, variant: Variant) -> pa.Table:
    """Return rows of SCORES, by id: the share of the users who like each item; without those that it is 0 of."""
    score = shares(matrix, variant).astype(np.float32)
    order = np.argsort(matrix.items)
    order = order[score[order] > 0]
    return pa.table([pa.array(matrix.items[order], pa.string()), pa.array(score[order])], schema=arrow_schema(SCORES))


def neighbours_table(matrix: LikeMatrix, variant: Variant, ease_items: int, most: int) -> pa.Table:
    """Return rows of NEIGHBOURS, by id, of every liked item, of EASE of the `ease_items` most liked ones.

    Args:
        matrix: What was liked.
        variant: Of ItemCF or EASE. A half-life is for who reads the table: the weights do not depend on it.
        ease_items: EASE takes its square of memory. ItemCF takes a few rows at a time.
        most: How many neighbours an item has at most: the greatest weights by their size, ties by row.
    """
    is_ease = variant.method is SimpleList.EASE
    head = min(ease_items, matrix.liked_items) if is_ease else matrix.liked_items
    by_id = np.argsort(matrix.items[:head])
    liked = matrix.liked[:, by_id]
    if is_ease:
        blocks = _rows_of(ease_weights(all_together(liked), variant.strength))
    else:
        counts = matrix.counts[by_id]
        blocks = (item_cosines(block, counts, variant.strength, rows.start) for rows, block in liked_together(liked))
    found = [_greatest(block, most) for block in blocks]
    lengths = np.concatenate([np.empty(0, dtype=np.intp), *(each[0] for each in found)])
    neighbours = np.concatenate([np.empty(0, dtype=np.intp), *(each[1] for each in found)])
    weights = np.concatenate([np.empty(0, dtype=np.float32), *(each[2] for each in found)])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    schema = arrow_schema(NEIGHBOURS)
    return pa.table(
        [
            pa.array(matrix.items[by_id], pa.string()),
            pa.ListArray.from_arrays(offsets, pa.array(neighbours.astype(np.int64))).cast(schema.field(1).type),
            pa.ListArray.from_arrays(offsets, pa.array(weights)).cast(schema.field(2).type),
        ],
        schema=schema,
    )


def _rows_of(weights: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(weights), _CHUNK):
        yield weights[start : start + _CHUNK]


def _greatest(block: NDArray[np.float32], most: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return how many neighbours each row has, and of all one after the other the columns and the weights."""
    columns = top(np.where(block == 0, -np.inf, np.abs(block)), most)
    has = columns >= 0
    weights = np.take_along_axis(block, columns, axis=1)
    return has.sum(axis=1), columns[has], weights[has]
