"""User and item activity: what was known after each moment that has an event.

Every figure is a running sum of whole steps (half stars, years, cents) over the key's events in a total order, read off
at the last event of each moment. So it is exact, and no order of execution can change it. One shuffle and one sort per
group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.features import HALF_LIFE_DAYS, LAST_ITEMS, MISSING, TOP_TERMS
from feature_repo.contracts.schemas import Kind
from pipelines.features.statistics import mean, population_std, sums_so_far, whole_steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import Column, DataFrame, WindowSpec

    from feature_repo.contracts.schemas import Positive, Schema

_TERM_BITS = 16
_DAY_US = 86_400_000_000
_LOWEST_POWER = 1000.0


def user_activity(events: DataFrame, schema: Schema, terms: Mapping[str, Sequence[str]]) -> DataFrame:
    """Return the features of the group `user_activity`, one row per (user, moment).

    Args:
        events: those that are counted, with what was known of their items.
        schema: of the data set.
        terms: for each attribute of items that has terms, those that are counted, sorted by name.
    """
    order = Window.partitionBy("user_id").orderBy(F.asc("event_time"), F.desc("item_id"), F.desc("event_type"))
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    last = order.rowsBetween(1 - LAST_ITEMS, Window.currentRow)
    numeric = [attribute for attribute in schema.item_attributes if attribute.kind is Kind.NUMERIC]
    liked = is_liked(schema.positive)
    states = events.select(
        "user_id",
        "event_time",
        *sums_so_far("value", whole_steps("value", schema.value.step), so_far),
        *(
            column
            for attribute in numeric
            for column in sums_so_far(attribute.name, whole_steps(attribute.name, attribute.step), so_far)
        ),
        F.reverse(F.collect_list(F.struct("item_id", "value")).over(last)).alias("last"),
        *(column for name, names in terms.items() for column in _liked_term_counts(name, names, liked, so_far)),
        ends_moment(order),
    ).where(F.col("ends_moment"))
    return states.select(
        "user_id",
        "event_time",
        padded(F.col("last.item_id"), LAST_ITEMS, F.lit("")).alias("user_last_items"),
        padded(F.col("last.value"), LAST_ITEMS, F.lit(MISSING).cast("float")).alias("user_last_values"),
        F.col("value_count").alias("user_event_count"),
        mean("value", schema.value.step).alias("user_value_mean"),
        population_std("value", schema.value.step).alias("user_value_std"),
        *(
            column
            for attribute in numeric
            for column in (
                mean(attribute.name, attribute.step).alias(f"user_{attribute.name}_mean"),
                population_std(attribute.name, attribute.step).alias(f"user_{attribute.name}_std"),
            )
        ),
        *(_top_terms(name, names).alias(f"user_top_{name}") for name, names in terms.items()),
    )


def item_activity(events: DataFrame, schema: Schema) -> DataFrame:
    """Return the features of the group `item_activity`, one row per (item, moment)."""
    order = Window.partitionBy("item_id").orderBy(F.asc("event_time"), F.asc("user_id"))
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    states = (
        events.select(
            "item_id",
            "event_time",
            *sums_so_far("value", whole_steps("value", schema.value.step), so_far),
            F.first("event_time").over(so_far).alias("first"),
            "user_id",
            ends_moment(order),
        )
        .withColumn("weight", F.sum(_weight()).over(so_far))
        .where(F.col("ends_moment"))
    )
    return states.select(
        "item_id",
        "event_time",
        F.col("value_count").alias("item_event_count"),
        mean("value", schema.value.step).alias("item_value_mean"),
        population_std("value", schema.value.step).alias("item_value_std"),
        F.unix_seconds("first").alias("item_first_event_time"),
        F.unix_seconds("event_time").alias("item_last_event_time"),
        _popular_until().alias("item_popular_until"),
    )


def _weight() -> Column:
    """Return what an event counts, seen from the item's first: twice as much with every half-life that has passed.

    Cormode et al., Forward Decay (ICDE 2009): weights that grow from a fixed moment need no recomputing, and whoever
    reads them later divides. A double counts 2,000 half-lives, if the first event starts near its lower end.
    """
    half_lives = (F.unix_micros("event_time") - F.unix_micros("first")) / F.lit(HALF_LIFE_DAYS * _DAY_US)
    return F.pow(F.lit(2.0), half_lives - F.lit(_LOWEST_POWER))


def _popular_until() -> Column:
    """Return the day on which the decayed count is one. Events are added in order of time, so that bits agree."""
    first = F.unix_micros("first") / F.lit(_DAY_US)
    return (first + F.lit(HALF_LIFE_DAYS) * (F.log2("weight") + F.lit(_LOWEST_POWER))).cast("float")


def is_liked(positive: Positive) -> Column:
    """Tell whether an event says that the user likes the item."""
    return F.col("event_type").isin(*positive.event_types) & (F.col("value") >= F.lit(positive.threshold))


def padded(values: Column, length: int, missing: Column) -> Column:
    """Return a list of exactly `length`: its first values, then `missing`."""
    return F.slice(F.concat(values, F.array_repeat(missing, length)), 1, length)


def ends_moment(order: WindowSpec) -> Column:
    """Return `ends_moment`: whether the row is the key's last of its moment, where that moment's state is complete."""
    following = F.lead("event_time").over(order)
    return (following.isNull() | (following != F.col("event_time"))).alias("ends_moment")


def _liked_term_counts(attribute: str, terms: Sequence[str], liked: Column, so_far: WindowSpec) -> list[Column]:
    """Count, for each term, the liked events so far whose item has it."""
    return [
        F.count(F.when(liked & F.array_contains(attribute, term), 1)).over(so_far).alias(f"{attribute}_{index}")
        for index, term in enumerate(terms)
    ]


def _top_terms(attribute: str, terms: Sequence[str]) -> Column:
    """Return the terms with the highest counts, ties by name, none with a count of zero.

    A count and a term are packed into one long (the term's place among the sorted names, reversed, in the low bits),
    so that one sort of longs gives count downwards and name upwards.
    """
    if not terms:
        return F.array_repeat(F.lit(""), TOP_TERMS)
    low = (1 << _TERM_BITS) - 1
    packed = F.array(
        *(
            F.shiftleft(F.col(f"{attribute}_{index}"), _TERM_BITS).bitwiseOR(F.lit(low - index))
            for index in range(len(terms))
        )
    )
    counted = F.filter(packed, lambda code: code > F.lit(low))
    best = F.slice(F.sort_array(counted, asc=False), 1, TOP_TERMS)
    names = F.array(*(F.lit(term) for term in terms))
    named = F.transform(best, lambda code: F.get(names, (F.lit(low) - code.bitwiseAND(F.lit(low))).cast("int")))
    return padded(named, TOP_TERMS, F.lit(""))
