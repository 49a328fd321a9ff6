"""User and item activity: what was known after each second that has an event.

Every figure is a running sum of integers (half stars, years) over the key's events in a total order, read off at the
last event of each second. So it is exact, and no order of execution can change it. One shuffle and one sort per group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.features import LAST_ITEMS, LIKED_VALUE, TOP_GENRES
from pipelines.features.statistics import mean, population_std

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

_HALF = 2
_YEAR_ORIGIN = 1900
"""Years are summed as years since then, so that the sums of squares stay far from the limits of a long."""
_GENRE_BITS = 16


def user_activity(events: DataFrame, items: DataFrame, genres: list[str]) -> DataFrame:
    """Return the features of `USER_ACTIVITY`, one row per (user, second).

    Args:
        events: ratings, as in the events dataset.
        items: the items dataset.
        genres: every genre that occurs in `items`, sorted by name.
    """
    order = Window.partitionBy("user_id").orderBy(F.asc("event_time"), F.desc("item_id"))
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    last = order.rowsBetween(1 - LAST_ITEMS, Window.currentRow)
    known = F.col("release_year").isNotNull()
    year = F.col("release_year") - F.lit(_YEAR_ORIGIN)
    details = items.select("item_id", "release_year", "genres")
    states = (
        _with_half_stars(events)
        .join(F.broadcast(details), on="item_id", how="left")
        .select(
            "user_id",
            "event_time",
            *_rating_sums(so_far),
            F.count(F.when(known, 1)).over(so_far).alias("year_count"),
            F.sum(year).over(so_far).alias("year_sum"),
            F.sum(year * year).over(so_far).alias("year_squares"),
            F.reverse(F.collect_list(F.struct("item_id", "value")).over(last)).alias("last"),
            *_liked_genre_counts(genres, so_far),
            _ends_second(order),
        )
        .where(F.col("ends_second"))
    )
    years = F.coalesce(F.col("year_sum"), F.lit(0)) + F.col("year_count") * F.lit(_YEAR_ORIGIN)
    return states.select(
        "user_id",
        "event_time",
        padded(F.col("last.item_id"), LAST_ITEMS, F.lit("")).alias("user_last_items"),
        padded(F.col("last.value"), LAST_ITEMS, F.lit(-1.0).cast("float")).alias("user_last_values"),
        F.col("ratings").alias("user_rating_count"),
        mean("ratings", "half_stars", _HALF).alias("user_rating_mean"),
        population_std("ratings", "half_stars", "half_star_squares", _HALF).alias("user_rating_std"),
        mean("year_count", years, 1).alias("user_release_year_mean"),
        population_std("year_count", "year_sum", "year_squares", 1).alias("user_release_year_std"),
        _top_genres(genres).alias("user_top_genres"),
    )


def item_activity(events: DataFrame) -> DataFrame:
    """Return the features of `ITEM_ACTIVITY`, one row per (item, second)."""
    order = Window.partitionBy("item_id").orderBy(F.asc("event_time"), F.asc("user_id"))
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    states = (
        _with_half_stars(events)
        .select("item_id", "event_time", *_rating_sums(so_far), _ends_second(order))
        .where(F.col("ends_second"))
    )
    return states.select(
        "item_id",
        "event_time",
        F.col("ratings").alias("item_rating_count"),
        mean("ratings", "half_stars", _HALF).alias("item_rating_mean"),
        population_std("ratings", "half_stars", "half_star_squares", _HALF).alias("item_rating_std"),
    )


def padded(values: Column, length: int, missing: Column) -> Column:
    """Return a list of exactly `length`: its first values, then `missing`."""
    return F.slice(F.concat(values, F.array_repeat(missing, length)), 1, length)


def _with_half_stars(events: DataFrame) -> DataFrame:
    return events.select(
        "user_id", "item_id", "event_time", "value", (F.col("value") * F.lit(_HALF)).cast("long").alias("half_star")
    )


def _rating_sums(so_far: WindowSpec) -> tuple[Column, Column, Column]:
    half_star = F.col("half_star")
    return (
        F.count(half_star).over(so_far).alias("ratings"),
        F.sum(half_star).over(so_far).alias("half_stars"),
        F.sum(half_star * half_star).over(so_far).alias("half_star_squares"),
    )


def _ends_second(order: WindowSpec) -> Column:
    """Tell whether the row is the key's last of its second: only there is the second's state complete."""
    following = F.lead("event_time").over(order)
    return (following.isNull() | (following != F.col("event_time"))).alias("ends_second")


def _liked_genre_counts(genres: list[str], so_far: WindowSpec) -> list[Column]:
    """Count, for each genre, the liked events so far whose item has it."""
    liked = F.col("value") >= F.lit(LIKED_VALUE)
    return [
        F.count(F.when(liked & F.array_contains("genres", genre), 1)).over(so_far).alias(f"genre_{index}")
        for index, genre in enumerate(genres)
    ]


def _top_genres(genres: list[str]) -> Column:
    """Return the names of the genres with the highest counts, ties by name, none with a count of zero.

    A count and a genre are packed into one long (the genre's place among the sorted names, reversed, in the low bits),
    so that one sort of longs gives count downwards and name upwards.
    """
    if not genres:
        return F.array_repeat(F.lit(""), TOP_GENRES)
    low = (1 << _GENRE_BITS) - 1
    packed = F.array(
        *(
            F.shiftleft(F.col(f"genre_{index}"), _GENRE_BITS).bitwiseOR(F.lit(low - index))
            for index in range(len(genres))
        )
    )
    counted = F.filter(packed, lambda code: code > F.lit(low))
    best = F.slice(F.sort_array(counted, asc=False), 1, TOP_GENRES)
    names = F.array(*(F.lit(genre) for genre in genres))
    named = F.transform(best, lambda code: F.get(names, (F.lit(low) - code.bitwiseAND(F.lit(low))).cast("int")))
    return padded(named, TOP_GENRES, F.lit(""))
