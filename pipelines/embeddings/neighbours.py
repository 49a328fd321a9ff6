"""Nearest neighbours of the items liked most: by a snapshot's vectors, and by ItemCF's cosine as the plain baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.embeddings import VECTOR
from pipelines.embeddings.likes import users_of_items
from pipelines.embeddings.vectors import matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from pyspark.sql import DataFrame

Neighbours = dict[str, list[tuple[str, float]]]
"""Item id → ids and cosines of its neighbours, nearest first."""


def item_cosines(liked: DataFrame, items: Sequence[str], k: int) -> Neighbours:
    """Return the `k` items with the highest ItemCF cosine to each of `items`.

    The cosine: users who liked both, over the geometric mean of the users who liked either.
    """
    pairs = liked.select("user_id", "item_id").distinct()
    chosen = pairs.where(F.col("item_id").isin(*items)).withColumnRenamed("item_id", "chosen")
    users = users_of_items(liked)
    both = (
        chosen.join(pairs, on="user_id", how="inner")
        .where(F.col("chosen") != F.col("item_id"))
        .groupBy("chosen", "item_id")
        .agg(F.count(F.lit(1)).alias("both"))
        .join(users, on="item_id", how="inner")
        .join(users.toDF("chosen", "chosen_users"), on="chosen", how="inner")
    )
    cosine = F.col("both") / F.sqrt(F.col("users") * F.col("chosen_users"))
    best = Window.partitionBy("chosen").orderBy(F.desc("cosine"), "item_id")
    rows = (
        both.withColumn("cosine", cosine)
        .withColumn("rank", F.row_number().over(best))
        .where(F.col("rank") <= F.lit(k))
        .orderBy("chosen", "rank")
        .select("chosen", "item_id", "cosine")
        .collect()
    )
    found: Neighbours = {item: [] for item in items}
    for row in rows:
        found[row["chosen"]].append((row["item_id"], row["cosine"]))
    return found


def vector_cosines(snapshot: pa.Table, items: Sequence[str], k: int) -> Neighbours:
    """Return the `k` items whose vectors are nearest to that of each of `items`; an item without a vector has none."""
    ids, vectors = snapshot.column("item_id").to_pylist(), matrix(snapshot.column(VECTOR.name))
    places = {item: place for place, item in enumerate(ids)}
    found: Neighbours = {}
    for item in items:
        place = places.get(item)
        cosines = vectors @ vectors[place] if place is not None else np.empty(0, dtype=np.float32)
        nearest = [other for other in np.argsort(-cosines, kind="stable")[: k + 1].tolist() if other != place][:k]
        found[item] = [(ids[other], float(cosines[other])) for other in nearest]
    return found
