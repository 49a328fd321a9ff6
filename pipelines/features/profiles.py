"""What the source itself says of users and items, valid for all time; and each user's whole history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.columns import Dtype
from pipelines.features.activity import padded

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from feature_repo.contracts.columns import Column as Declaration
    from feature_repo.contracts.features import FeatureGroup

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


def profile(rows: DataFrame, group: FeatureGroup) -> DataFrame:
    """Return the features of a profile group, one row per row of the items or users dataset.

    The feature `item_genres` is made of the attribute `genres`, and so on.
    """
    prefix = group.entity.name.removesuffix("id")
    features = (_profile_feature(column, column.name.removeprefix(prefix)) for column in group.features)
    return rows.select(group.entity.name, _timestamp(_ALWAYS).alias("event_time"), *features)


def _profile_feature(column: Declaration, attribute: str) -> Column:
    """Return one feature: a number, a term, or a list of terms of fixed length."""
    value = F.col(attribute)
    if column.length:
        return padded(value, column.length, F.lit("")).alias(column.name)
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
