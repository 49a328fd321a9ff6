"""User vectors: the recency-weighted mean of the vectors of the items that a user liked last, of unit length.

The recommender computes the same from the user's online features (serving/recommender/user_vector.py): of the last
LAST_ITEMS counted events those count that have at least the value of a positive one, and whose item has a vector; the
latest with weight 1, the one before it with RECENCY_DECAY, and so on. A user without such an item has no vector. (The
online features hold no event types: there a counted event of such a value is a like, whatever its type.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.embeddings import RECENCY_DECAY, USER_EMBEDDINGS, VECTOR
from pipelines.embeddings.vectors import matrix, unit_length, vector_array
from pipelines.io.spark import spark_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from feature_repo.contracts.schemas import Schema


def last_liked(events: DataFrame, schema: Schema, last: int) -> DataFrame:
    """Return user_id and `items`, the liked ones among each user's last events, latest first, ties by item id.

    Args:
        events: Every event before the cutoff.
        schema: Which events are counted, and which of them are likes.
        last: How many of a user's counted events are looked at.
    """
    liked = F.col("value") >= F.lit(schema.positive.threshold)
    counted = events.where(F.col("event_type").isin(*schema.counted_types))
    # Times upwards and ids upwards within a time: the negated time gives both in one sort.
    latest_first = F.struct((-F.unix_micros("event_time")).alias("ago"), "item_id", liked.alias("liked"))
    latest = F.slice(F.sort_array(F.collect_list(latest_first)), 1, last)
    return (
        counted.groupBy("user_id")
        .agg(F.filter(latest, lambda event: event.liked).alias("latest"))
        .select("user_id", F.col("latest.item_id").alias("items"))
    )


def user_vectors(lasts: DataFrame, items: Path) -> DataFrame:
    """Return the rows of USER_EMBEDDINGS for what `last_liked` gave.

    Args:
        lasts: user_id, items.
        items: A snapshot file of item embeddings, which every executor must be able to read.
    """
    return lasts.mapInArrow(_averager(str(items)), spark_schema(USER_EMBEDDINGS))


def _averager(items: str) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def average(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ids, vectors = read_item_vectors(items)
        for batch in batches:
            lists = batch.column("items")
            rows = pc.fill_null(pc.index_in(lists.flatten(), value_set=ids), -1).to_numpy()
            users = pc.list_parent_indices(lists).to_numpy()
            means, known = weighted_means(vectors, users, rows, batch.num_rows)
            yield pa.record_batch(
                {"user_id": batch.column("user_id").filter(pa.array(known)), VECTOR.name: vector_array(means[known])}
            )

    return average


@lru_cache(maxsize=2)
def read_item_vectors(file: str) -> tuple[pa.Array, NDArray[np.float32]]:
    """Return ids, `[items]`, and vectors, `[items, size]`, of a snapshot file; once per process."""
    table = pq.read_table(file, partitioning=None)
    return table.column("item_id").combine_chunks(), matrix(table.column(VECTOR.name))


def weighted_means(
    vectors: NDArray[np.float32], users: NDArray[np.int64], rows: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return `[count, size]`, the unit-length mean of each user's items, and `[count]`, whether the user has one.

    Args:
        vectors: `[items, size]`
        users: `[likes]`, whose like it is, ascending; a user's likes come latest first.
        rows: `[likes]`, the item's row in `vectors`, below 0 where it has none.
        count: How many users there are.
    """
    users, rows = users[rows >= 0], rows[rows >= 0]
    starts = np.searchsorted(users, np.arange(count))
    weights = RECENCY_DECAY ** (np.arange(len(users)) - starts[users])
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, users, weights[:, None] * vectors[rows])
    known = np.any(sums != 0, axis=1)
    return unit_length(sums), known
