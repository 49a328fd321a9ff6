"""When a user was here: first and last event, sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.features import SESSION_GAP_S
from pipelines.features.activity import ends_moment

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

_SECOND_US = 1_000_000


def user_session(events: DataFrame) -> DataFrame:
    """Return the features of the group `user_session`, one row per (user, moment).

    Args:
        events: those that are counted, as in the events dataset.
    """
    order = Window.partitionBy("user_id").orderBy(F.asc("event_time"))
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    states = (
        events.select(
            "user_id",
            "event_time",
            F.row_number().over(order).alias("number"),
            begins_session(order),
            ends_moment(order),
        )
        .select(
            "*",
            F.first("event_time").over(so_far).alias("first"),
            F.count(F.when(F.col("begins"), 1)).over(so_far).alias("sessions"),
            F.last(F.when(F.col("begins"), F.struct("number", "event_time")), ignorenulls=True)
            .over(so_far)
            .alias("start"),
        )
        .where(F.col("ends_moment"))
    )
    lasted = F.unix_micros("event_time") - F.unix_micros("start.event_time")
    return states.select(
        "user_id",
        "event_time",
        F.unix_seconds("first").alias("user_first_event_time"),
        F.unix_seconds("event_time").alias("user_last_event_time"),
        F.col("sessions").alias("user_session_count"),
        (F.col("number") - F.col("start.number") + F.lit(1)).cast("long").alias("user_session_event_count"),
        F.floor(lasted / F.lit(_SECOND_US)).alias("user_session_seconds"),
    )


def begins_session(order: WindowSpec) -> Column:
    """Return `begins`: whether the row is the key's first, or comes after a longer pause than a session has."""
    time = F.unix_micros("event_time")
    pause = time - F.lag(time).over(order)
    return (pause.isNull() | (pause > F.lit(SESSION_GAP_S * _SECOND_US))).alias("begins")
