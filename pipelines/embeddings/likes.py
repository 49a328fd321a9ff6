"""What users liked, in order of time: what every kind of embedding is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from pipelines.features.activity import is_liked

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from feature_repo.contracts.schemas import Positive


def liked_events(events: DataFrame, positive: Positive) -> DataFrame:
    """Return user_id, item_id and event_time of the events that say that the user likes the item."""
    return events.where(is_liked(positive)).select("user_id", "item_id", "event_time")


def liked_often(liked: DataFrame, least: int) -> DataFrame:
    """Return the likes of items that were liked `least` times or more."""
    often = liked.groupBy("item_id").count().where(F.col("count") >= F.lit(least)).select("item_id")
    return liked.join(often, on="item_id", how="left_semi")


def numbered_items(liked: DataFrame) -> DataFrame:
    """Return item_id and `node`, 0, 1, 2, ... in the order of the ids, for every item that was liked.

    One task numbers them all: there are as many rows as items, not as events.
    """
    node = F.row_number().over(Window.orderBy("item_id")) - 1
    return liked.select("item_id").distinct().coalesce(1).select("item_id", node.cast("long").alias("node"))


def liked_sequences(likes: DataFrame) -> DataFrame:
    """Return one row per user: `nodes`, the items that the user liked, in order of time, ties by node.

    Users come in the order of their ids, in one partition: a skip-gram learns by example after example, so that the
    order of the examples is part of what it computes.

    Args:
        likes: user_id, node, event_time.
    """
    in_order = F.sort_array(F.collect_list(F.struct("event_time", "node")))
    sequences = likes.groupBy("user_id").agg(in_order.alias("liked"))
    return sequences.coalesce(1).sortWithinPartitions("user_id").select(F.col("liked.node").alias("nodes"))


@dataclass(frozen=True, slots=True)
class LikeSummary:
    """What was liked before the cutoff, in figures."""

    likes: int
    users: int
    items: int
    most: tuple[tuple[str, int], ...]
    """Items and how many users liked them, most first, ties by id; not all of them."""


def summarise(liked: DataFrame, most: int) -> LikeSummary:
    """Count likes, users and items, and return the `most` items that most users liked."""
    figures = liked.agg(
        F.count(F.lit(1)).alias("likes"),
        F.count_distinct("user_id").alias("users"),
        F.count_distinct("item_id").alias("items"),
    ).first()
    ranked = users_of_items(liked).orderBy(F.desc("users"), "item_id").limit(most).collect()
    most_liked = tuple((row["item_id"], row["users"]) for row in ranked)
    return LikeSummary(figures["likes"], figures["users"], figures["items"], most_liked)


def users_of_items(liked: DataFrame) -> DataFrame:
    """Return item_id and `users`, how many different users liked it."""
    return liked.groupBy("item_id").agg(F.count_distinct("user_id").alias("users"))
