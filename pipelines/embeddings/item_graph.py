"""The item graph: which item was liked after which in one session, and how often.

There is an edge from a to b, its count the number of times, where the same user liked b after a in the same session,
not more than some items later. Time gives the direction; items liked in the same second know no order, and have an edge
both ways. A user's session ends with a pause. No item has an edge to itself.

Walks follow the counts damped by the target's popularity: as they are, nearly every walk is at the few items that
everybody likes after two steps, and says nothing of where it began (decision 0075 has the figures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from feature_repo.contracts.embeddings import Walks

_SCALE = 1e6
"""Weights are whole numbers, so that drawing by them is exact."""


def item_edges(likes: DataFrame, walks: Walks) -> DataFrame:
    """Return `source`, `target` (nodes) and `count` of every edge, in no order.

    Args:
        likes: user_id, node, event_time.
        walks: How far an edge reaches, and what ends a session.
    """
    by_time = Window.partitionBy("user_id").orderBy("event_time", "node")
    pause = F.unix_micros("event_time") - F.unix_micros(F.lag("event_time").over(by_time))
    begins = F.when(pause > F.lit(walks.session_minutes * 60_000_000), 1).otherwise(0)
    so_far = by_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    after = Window.partitionBy("user_id", "session").orderBy("event_time", "node").rowsBetween(1, walks.reach)
    following = F.collect_list(F.struct("event_time", "node")).over(after)
    pairs = (
        likes.withColumn("begins", begins)
        .withColumn("session", F.sum("begins").over(so_far))
        .withColumn("following", following)
        .select("event_time", "node", F.explode("following").alias("next"))
        .where(F.col("node") != F.col("next.node"))
    )
    forth = F.struct(F.col("node").alias("source"), F.col("next.node").alias("target"))
    back = F.struct(F.col("next.node").alias("source"), F.col("node").alias("target"))
    together = F.col("event_time") == F.col("next.event_time")
    edges = F.when(together, F.array(forth, back)).otherwise(F.array(forth))
    return pairs.select(F.inline(edges)).groupBy("source", "target").agg(F.count(F.lit(1)).alias("count"))


def weighted_edges(edges: DataFrame, walks: Walks) -> DataFrame:
    """Return `source`, `target` and `weight`, a whole number, of the edges that walks follow.

    Unless `walks.directed`, an edge and the one back are both given their counts together. Edges of a count below
    `walks.least_count` are left out. The weight is the count over the target's own, of all its edges, to the power
    `walks.damping`. Of each source the heaviest `walks.successors` are kept.
    """
    if not walks.directed:
        both = edges.union(edges.select(F.col("target").alias("source"), F.col("source").alias("target"), "count"))
        edges = both.groupBy("source", "target").agg(F.sum("count").alias("count"))
    of_target = F.sum("count").over(Window.partitionBy("target"))
    heaviest = Window.partitionBy("source").orderBy(F.desc("weight"), "target")
    weight = F.round(F.lit(_SCALE) * F.col("count") / F.pow(of_target, F.lit(walks.damping))).cast("long")
    return (
        edges.where(F.col("count") >= F.lit(walks.least_count))
        .select("source", "target", F.greatest(weight, F.lit(1)).alias("weight"))
        .withColumn("rank", F.row_number().over(heaviest))
        .where(F.col("rank") <= F.lit(walks.successors))
        .select("source", "target", "weight")
    )
