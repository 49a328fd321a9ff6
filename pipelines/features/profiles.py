"""What the source itself says of users and items, valid for all time; and each user's whole history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.features import ITEM_GENRES
from pipelines.features.activity import padded
from pipelines.features.statistics import MISSING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


def user_profile(users: DataFrame) -> DataFrame:
    """Return the features of `USER_PROFILE`, one row per user."""
    return users.select(
        "user_id",
        _timestamp(_ALWAYS).alias("event_time"),
        F.coalesce(F.col("age").cast("float"), F.lit(MISSING).cast("float")).alias("user_age"),
        F.coalesce("gender", F.lit("")).alias("user_gender"),
        F.coalesce("occupation", F.lit("")).alias("user_occupation"),
    )


def item_profile(items: DataFrame) -> DataFrame:
    """Return the features of `ITEM_PROFILE`, one row per item."""
    return items.select(
        "item_id",
        _timestamp(_ALWAYS).alias("event_time"),
        F.coalesce(F.col("release_year").cast("float"), F.lit(MISSING).cast("float")).alias("item_release_year"),
        padded(F.col("genres"), ITEM_GENRES, F.lit("")).alias("item_genres"),
    )


def user_history(events: DataFrame, cutoff: datetime) -> DataFrame:
    """Return the features of `USER_HISTORY` as of `cutoff`, one row per user with an event.

    It is stamped with the last microsecond before the cutoff: that is when it is complete, and it tells a reader which
    cutoff the row is of.
    """
    return (
        events.groupBy("user_id")
        .agg(F.sort_array(F.collect_set("item_id")).alias("user_seen_items"))
        .select("user_id", _timestamp(cutoff - timedelta(microseconds=1)).alias("event_time"), "user_seen_items")
    )


def _timestamp(moment: datetime) -> Column:
    return F.timestamp_micros(F.lit(int((moment - _ALWAYS) / timedelta(microseconds=1))))
