"""What a user's activity is made of, as of the cutoff: the whole numbers from which the stream counts on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.features import SEQUENCE_ITEMS, SESSION_GAP_S
from feature_repo.contracts.schemas import Kind
from pipelines.features.activity import is_liked
from pipelines.features.likes import times, with_likes
from pipelines.features.profiles import last_moment
from pipelines.features.statistics import whole_steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pyspark.sql import Column, DataFrame

    from feature_repo.contracts.schemas import Schema


_SECOND_US = 1_000_000


def user_state(
    events: DataFrame, liked_items: DataFrame, schema: Schema, terms: Mapping[str, Sequence[str]], cutoff: datetime
) -> DataFrame:
    """Return the features of the group `user_state`, one row per user with an event.

    Args:
        events: every event before the cutoff, counted or not, with what was known of their items, terms as lists.
        liked_items: what `likes.liked_last` found among them.
        schema: of the data set.
        terms: for each attribute of items that has terms, those that are counted, sorted by name.
        cutoff: the exclusive end of the interval, which stamps the rows as in `user_history`.
    """
    counted = F.col("event_type").isin(*schema.counted_types)
    liked = counted & is_liked(schema.positive)
    numeric = {"value": schema.value.step} | {
        attribute.name: attribute.step for attribute in schema.item_attributes if attribute.kind is Kind.NUMERIC
    }
    latest_first = F.struct((-F.unix_micros("event_time")).alias("back"), "item_id", "event_type", "value")
    states = events.groupBy("user_id").agg(
        F.unix_micros(F.max("event_time")).alias("state_last_time"),
        F.slice(F.sort_array(F.collect_list(F.when(counted, latest_first))), 1, SEQUENCE_ITEMS).alias("last"),
        _presence(F.sort_array(F.collect_list(F.when(counted, F.unix_micros("event_time"))))),
        *(sums for name, step in numeric.items() for sums in _sums(name, F.when(counted, whole_steps(name, step)))),
        *(_liked_terms(name, names, liked) for name, names in terms.items()),
    )
    return with_likes(states, liked_items).select(
        "user_id",
        last_moment(cutoff).alias("event_time"),
        "state_last_time",
        F.col("last.item_id").alias("state_last_items"),
        F.transform("last", lambda event: F.floor(_time(event) / F.lit(_SECOND_US))).alias("state_last_times"),
        F.col("last.event_type").alias("state_last_types"),
        F.col("last.value").alias("state_last_values"),
        _sessions(F.col("last"), F.col("presence.sessions")).alias("state_last_sessions"),
        F.col("presence.first").alias("state_first_counted_time"),
        F.col("presence.last").alias("state_last_counted_time"),
        F.col("presence.session").alias("state_session_time"),
        F.col("presence.sessions").alias("state_session_count"),
        F.col("presence.events").alias("state_session_event_count"),
        *(f"state_{name}_{part}" for name in numeric for part in ("count", "sum", "squares")),
        *(
            column
            for name in terms
            for column in (
                F.col(f"{name}_liked.term").alias(f"state_{name}_terms"),
                F.col(f"{name}_liked.count").alias(f"state_{name}_counts"),
            )
        ),
        F.col("liked.item_id").alias("state_liked_items"),
        times(F.col("liked")).alias("state_liked_times"),
    )


def _presence(times: Column) -> Column:
    """Return `presence`: first and last of the sorted times, and the last session's start, number and events."""
    never, none, one = (F.lit(number).cast("long") for number in (-1, 0, 1))
    start = F.struct(
        never.alias("first"), never.alias("last"), never.alias("session"), none.alias("sessions"), none.alias("events")
    )

    def plus(known: Column, time: Column) -> Column:
        is_first = known["first"] == never
        begins = is_first | (time - known["last"] > F.lit(SESSION_GAP_S * _SECOND_US))
        return F.struct(
            F.when(is_first, time).otherwise(known["first"]).alias("first"),
            time.alias("last"),
            F.when(begins, time).otherwise(known["session"]).alias("session"),
            (known["sessions"] + F.when(begins, one).otherwise(none)).alias("sessions"),
            F.when(begins, one).otherwise(known["events"] + one).alias("events"),
        )

    return F.aggregate(times, start, plus).alias("presence")


def _time(event: Column) -> Column:
    """Return microseconds since 1970 of one of the last events, by which they are in order, the latest first."""
    return -event["back"]


def _sessions(last: Column, sessions: Column) -> Column:
    """Return which session each of the last events was in: that of the latest, less those that began after it."""
    gap = F.lit(SESSION_GAP_S * _SECOND_US)
    begins = F.filter(last, lambda event, place: _time(event) - _time(F.get(last, place + F.lit(1))) > gap)
    return F.transform(
        last, lambda event: sessions - F.size(F.filter(begins, lambda start: _time(start) > _time(event)))
    )


def _sums(name: str, steps: Column) -> tuple[Column, Column, Column]:
    return (
        F.count(steps).alias(f"state_{name}_count"),
        F.coalesce(F.sum(steps), F.lit(0)).alias(f"state_{name}_sum"),
        F.coalesce(F.sum(steps * steps), F.lit(0)).alias(f"state_{name}_squares"),
    )


def _liked_terms(attribute: str, terms: Sequence[str], liked: Column) -> Column:
    """Return `<attribute>_liked`: (term, count) of every term that a liked item has, in the order of the names."""
    pairs = (
        F.struct(
            F.lit(term).alias("term"), F.count(F.when(liked & F.array_contains(attribute, term), 1)).alias("count")
        )
        for term in terms
    )
    empty = F.array().cast("array<struct<term:string,count:bigint>>")
    return F.filter(F.concat(empty, F.array(*pairs)), lambda pair: pair["count"] > 0).alias(f"{attribute}_liked")
