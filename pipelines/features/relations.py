"""Who follows whom: how many, as of each midnight; and what others whom a user follows liked last, for recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.features import CIRCLE_ITEMS
from pipelines.features.likes import liked_last, newest
from pipelines.features.profiles import last_moment
from pipelines.features.windows import end_of_day

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import Column, DataFrame

    from feature_repo.contracts.schemas import Positive

_FOLLOWED, _FOLLOWERS = "user_followed_count", "user_follower_count"


def user_relations(relations: DataFrame, events: DataFrame) -> DataFrame:
    """Return the features of the group `user_relations`, one row per (user, day) on which a figure changes.

    Whoever has an event has a row of that day at the latest, so that following nobody is known, and not missing.

    Args:
        relations: those that began before the cutoff.
        events: every event before the cutoff.
    """
    since = F.unix_date(F.to_date("since"))
    changes = (
        relations.select("user_id", since.alias("day"), *_change(1, 0))
        .unionByName(relations.select(F.col("other_user_id").alias("user_id"), since.alias("day"), *_change(0, 1)))
        .unionByName(
            events.groupBy("user_id")
            .agg(F.unix_date(F.to_date(F.min("event_time"))).alias("day"))
            .select("user_id", "day", *_change(0, 0))
        )
    )
    daily = changes.groupBy("user_id", "day").agg(*(F.sum(name).alias(name) for name in (_FOLLOWED, _FOLLOWERS)))
    so_far = Window.partitionBy("user_id").orderBy("day").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return daily.select(
        "user_id",
        end_of_day(F.col("day")).alias("event_time"),
        *(F.sum(name).over(so_far).alias(name) for name in (_FOLLOWED, _FOLLOWERS)),
    )


def user_circle(relations: DataFrame, events: DataFrame, positive: Positive, cutoff: datetime) -> DataFrame:
    """Return the features of `user_circle` as of `cutoff`, one row per user with an event or in a relation.

    Of everybody who is followed the last items are enough: what is among the last of a circle is among those of
    whoever liked it last. So nobody's whole history is multiplied by the number of followers.

    Args:
        relations: those that began before the cutoff.
        events: every event before the cutoff.
        positive: which events say that a user likes an item.
        cutoff: the exclusive end of the interval, which stamps the rows as in `user_history`.
    """
    liked = liked_last(events, positive, CIRCLE_ITEMS)
    followed = relations.select(F.col("user_id").alias("follower"), F.col("other_user_id").alias("user_id"))
    found = newest(
        followed.join(liked, on="user_id")
        .select(F.col("follower").alias("user_id"), F.explode("last").alias("one"))
        .select("user_id", F.col("one.item_id").alias("item_id"), (-F.col("one.before")).alias("at")),
        CIRCLE_ITEMS,
    )
    everybody = events.select("user_id").union(relations.select("user_id")).union(relations.select("other_user_id"))
    nothing = F.array().cast("array<string>")
    return (
        everybody.distinct()
        .join(found, on="user_id", how="left")
        .select(
            "user_id",
            last_moment(cutoff).alias("event_time"),
            F.coalesce(F.col("last.item_id"), nothing).alias("user_circle_items"),
        )
    )


def _change(followed: int, followers: int) -> tuple[Column, Column]:
    return F.lit(followed).cast("long").alias(_FOLLOWED), F.lit(followers).cast("long").alias(_FOLLOWERS)
