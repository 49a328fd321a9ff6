"""What happened in the last days, as of each midnight at which it is another figure than the day before.

An event enters all windows on its own day and leaves each of them so many days later. So a day's counts and sums are
written down as changes, once where they enter and once for every window where they leave, and a window's figure is the
running sum of its changes, in whole steps: exact, linear in the (key, day) pairs whatever the windows' lengths are, and
the same whether the running sum began long ago or at the last event that still matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.features import TREND_BASE_DAYS, TREND_DAYS, TREND_PSEUDO_COUNT, WINDOW_DAYS
from pipelines.features.statistics import mean, whole_steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pyspark.sql import Column, DataFrame

    from feature_repo.contracts.schemas import Schema

_DAY_US = 86_400_000_000
_TREND_SPAN = TREND_DAYS + TREND_BASE_DAYS


def user_windows(events: DataFrame, schema: Schema, cutoff: datetime) -> DataFrame:
    """Return the features of the group `user_windows`, one row per (user, day) on which a figure changes."""
    sums = _window_sums(events, "user_id", schema, WINDOW_DAYS, cutoff)
    return sums.select("user_id", end_of_day(F.col("day")).alias("event_time"), *_figures("user", schema))


def item_windows(events: DataFrame, schema: Schema, cutoff: datetime) -> DataFrame:
    """Return the features of the group `item_windows`, one row per (item, day) on which a figure changes."""
    windows = sorted({*WINDOW_DAYS, TREND_DAYS, _TREND_SPAN})
    sums = _window_sums(events, "item_id", schema, windows, cutoff)
    return sums.select(
        "item_id", end_of_day(F.col("day")).alias("event_time"), *_figures("item", schema), _trend().alias("item_trend")
    )


def _window_sums(events: DataFrame, key: str, schema: Schema, windows: Sequence[int], cutoff: datetime) -> DataFrame:
    """Return `<key>`, `day`, and for every window `d<n>_count` and `d<n>_sum`: of the n days that end with `day`.

    The events are shuffled once, by the key alone: what follows, by day and in order of days, stays where it is.
    """
    daily = (
        events.select(
            key,
            F.unix_date(F.to_date("event_time")).alias("day"),
            whole_steps("value", schema.value.step).alias("steps"),
        )
        .repartition(F.col(key))
        .groupBy(key, "day")
        .agg(F.count(F.lit(1)).alias("count"), F.sum("steps").alias("sum"))
    )
    changes = daily.select(key, F.explode(_changes(windows)).alias("change")).select(key, "change.*")
    order = Window.partitionBy(key).orderBy(F.asc("day"))
    so_far = order.rangeBetween(Window.unboundedPreceding, Window.currentRow)
    figures = [f"d{days}_{part}" for days in windows for part in ("count", "sum")]
    following = F.lead("day").over(order)
    return (
        changes.where(F.col("day") < F.unix_date(F.to_date(F.lit(cutoff))))
        .select(
            key,
            "day",
            *(F.sum(figure).over(so_far).alias(figure) for figure in figures),
            (following.isNull() | (following != F.col("day"))).alias("ends_day"),
        )
        .where(F.col("ends_day"))
    )


def _changes(windows: Sequence[int]) -> Column:
    """Return a day's count and sum as changes: into every window on that day, out of each when it has passed."""

    def change(leaves: int | None) -> Column:
        day = F.col("day") if leaves is None else F.col("day") + F.lit(leaves)
        parts = [day.alias("day")]
        for days in windows:
            for part in ("count", "sum"):
                sign = 1 if leaves is None else -1 if days == leaves else 0
                parts.append((F.col(part) * F.lit(sign)).alias(f"d{days}_{part}"))
        return F.struct(*parts)

    return F.array(change(None), *(change(days) for days in windows))


def _figures(owner: str, schema: Schema) -> list[Column]:
    counts = [F.col(f"d{days}_count").alias(f"{owner}_event_count_{days}d") for days in WINDOW_DAYS]
    means = [mean(f"d{days}", schema.value.step).alias(f"{owner}_value_mean_{days}d") for days in WINDOW_DAYS]
    return [*counts, *means]


def _trend() -> Column:
    """Return log2 of the events a day lately over those before, each with its share of the pseudo-count."""
    recent = F.col(f"d{TREND_DAYS}_count")
    before = F.col(f"d{_TREND_SPAN}_count") - recent
    lately = (recent + F.lit(TREND_PSEUDO_COUNT)).cast("double") / F.lit(float(TREND_DAYS))
    once = before.cast("double") / F.lit(float(TREND_BASE_DAYS)) + F.lit(TREND_PSEUDO_COUNT / TREND_DAYS)
    return F.log2(lately / once).cast("float")


def end_of_day(day: Column) -> Column:
    """Return the last microsecond of a day, counted from 1970: the stamp of what is known when the day is over."""
    return F.timestamp_micros((day.cast("long") + F.lit(1)) * F.lit(_DAY_US) - F.lit(1))
