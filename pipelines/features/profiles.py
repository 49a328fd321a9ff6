"""What is said of users and items, by the source for all time or by event rows as of midnight; and users' histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.columns import Dtype
from pipelines.features.activity import padded
from pipelines.features.windows import end_of_day

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from feature_repo.contracts.columns import Column as Declaration
    from feature_repo.contracts.features import FeatureGroup

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


def profile(rows: DataFrame, group: FeatureGroup) -> DataFrame:
    """Return the features of a profile group, one row per row of the items or users dataset."""
    return rows.select(group.entity.name, _timestamp(_ALWAYS).alias("event_time"), *_profile_features(group))


def dated_profile(versions: DataFrame, events: DataFrame, group: FeatureGroup) -> DataFrame:
    """Return the features of a profile group of derived attributes, one row per (key, day) on which any changes.

    The first row is of the key's first event, by the stream perhaps, of which nothing was said: so everybody with an
    event has a row, as with stated attributes.

    Args:
        versions: of items or users, before the cutoff.
        events: every event before the cutoff.
        group: the feature group.
    """
    key = group.entity.name
    names = [column.name for column in group.features]
    said_since = versions.groupBy(key).agg(F.min("event_time").alias("said_since"))
    unsaid = (
        events.groupBy(key)
        .agg(end_of_day(F.unix_date(F.to_date(F.min("event_time")))).alias("event_time"))
        .join(said_since, on=key, how="left")
        .where(F.col("said_since").isNull() | (F.col("event_time") < F.col("said_since")))
        .drop("said_since")
    )
    rows = versions.unionByName(unsaid, allowMissingColumns=True).select(key, "event_time", *_profile_features(group))
    before = F.lag(F.struct(*names)).over(Window.partitionBy(key).orderBy(F.asc("event_time")))
    return rows.withColumn("before", before).where(~F.col("before").eqNullSafe(F.struct(*names)))


def _profile_features(group: FeatureGroup) -> list[Column]:
    """Return the features of a profile: the feature `item_genres` is made of the attribute `genres`, and so on."""
    prefix = group.entity.name.removesuffix("id")
    return [_profile_feature(column, column.name.removeprefix(prefix)) for column in group.features]


def _profile_feature(column: Declaration, attribute: str) -> Column:
    """Return one feature: a number, a term, or a list of terms of fixed length."""
    value = F.col(attribute)
    if column.length:
        terms = F.coalesce(value, F.array().cast("array<string>"))
        return padded(terms, column.length, F.lit("")).alias(column.name)
    kind = "string" if column.dtype is Dtype.STRING else "float"
    return F.coalesce(value, F.lit(column.missing)).cast(kind).alias(column.name)


def user_history(events: DataFrame, cutoff: datetime) -> DataFrame:
    """Return the features of `user_history` as of `cutoff`, one row per user with an event.

    It is stamped with the last microsecond before the cutoff: that is when it is complete, and it tells a reader which
    cutoff the row is of.
    """
    return (
        events.groupBy("user_id")
        .agg(F.sort_array(F.collect_set("item_id")).alias("user_seen_items"))
        .select("user_id", last_moment(cutoff).alias("event_time"), "user_seen_items")
    )


def last_moment(cutoff: datetime) -> Column:
    """Return the last microsecond before `cutoff`, the stamp of what is as of it."""
    return _timestamp(cutoff - timedelta(microseconds=1))


def _timestamp(moment: datetime) -> Column:
    return F.timestamp_micros(F.lit(int((moment - _ALWAYS) / timedelta(microseconds=1))))
