"""What users like, and since when: each item once, the one liked last first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from pipelines.features.activity import is_liked
from pipelines.features.profiles import last_moment

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import Column, DataFrame

    from feature_repo.contracts.schemas import Positive


def liked_last(events: DataFrame, positive: Positive, most: int) -> DataFrame:
    """Return `newest` of the items that any event says a user likes: a later event takes nothing back.

    Args:
        events: every event before the cutoff.
        positive: which events say that a user likes an item.
        most: so many items of a user.
    """
    return newest(
        events.where(is_liked(positive)).select("user_id", "item_id", F.unix_micros("event_time").alias("at")), most
    )


def newest(liked: DataFrame, most: int) -> DataFrame:
    """Return `user_id` and `last`: (before, item_id) of the items liked last, each once, latest first, ties by id.

    Args:
        liked: `user_id`, `item_id` and `at`, the time in microseconds since 1970; `before` is its negative.
        most: so many items of a user.
    """
    last = F.array_sort(F.collect_list(F.struct((-F.col("at")).alias("before"), "item_id")))
    each = liked.groupBy("user_id", "item_id").agg(F.max("at").alias("at"))
    return each.groupBy("user_id").agg(F.slice(last, 1, most).alias("last"))


def times(last: Column) -> Column:
    """Return the microseconds since 1970 of a `last` as `newest` has it."""
    return F.transform(last, lambda one: -one["before"])


def with_likes(users: DataFrame, liked: DataFrame) -> DataFrame:
    """Return `users` with the column `liked` of what `newest` found; whoever likes nothing has an empty list."""
    nothing = F.array().cast("array<struct<before:bigint,item_id:string>>")
    found = liked.select("user_id", F.col("last").alias("found"))
    return (
        users.join(found, on="user_id", how="left")
        .withColumn("liked", F.coalesce(F.col("found"), nothing))
        .drop("found")
    )


def user_liked_items(events: DataFrame, liked: DataFrame, cutoff: datetime) -> DataFrame:
    """Return the features of `user_liked_items` as of `cutoff`, one row per user with an event.

    Args:
        events: every event before the cutoff.
        liked: what `liked_last` found among them.
        cutoff: the exclusive end of the interval, which stamps the rows as in `user_history`.
    """
    return with_likes(events.select("user_id").distinct(), liked).select(
        "user_id",
        last_moment(cutoff).alias("event_time"),
        F.col("liked.item_id").alias("user_liked_items"),
        F.transform(times(F.col("liked")), lambda at: F.unix_seconds(F.timestamp_micros(at))).alias("user_liked_times"),
    )
