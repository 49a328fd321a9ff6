"""What was known of items and users at a time, where event rows say it and so it changes.

Whatever is computed of an event uses what had been said of its item by the midnight before, never what a later row
said, nor the event's own: the stream, which knows the items as of the last refresh, has nothing else either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from feature_repo.contracts.datasets import EVENT_TIME, ITEM_ID, TITLE
from pipelines.features.terms import MOST_TERMS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def with_items(events: DataFrame, items: DataFrame) -> DataFrame:
    """Return events with the attributes of their items; null where nothing is known of an item, or not yet.

    Args:
        events: as in the events dataset.
        items: the items dataset, or the versions of items.
    """
    if EVENT_TIME.name in items.columns:
        return _as_of(events, items)
    return events.join(F.broadcast(items.drop(TITLE.name)), on=ITEM_ID.name, how="left")


def _as_of(events: DataFrame, versions: DataFrame) -> DataFrame:
    """Join to each event the last version of its item strictly before it: one sort, linear in both.

    A version bears the last microsecond of its day: to an event of that very microsecond it is unknown.
    """
    attributes = [name for name in versions.columns if name not in {ITEM_ID.name, EVENT_TIME.name, TITLE.name}]
    said = versions.select(ITEM_ID.name, EVENT_TIME.name, F.struct(*attributes).alias("said"))
    so_far = (
        Window.partitionBy(ITEM_ID.name)
        .orderBy(F.asc(EVENT_TIME.name), F.asc("is_version"))
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    return (
        events.withColumn("is_version", F.lit(False))  # noqa: FBT003 - Spark's own
        .unionByName(said.withColumn("is_version", F.lit(True)), allowMissingColumns=True)  # noqa: FBT003 - as above
        .withColumn("said", F.last("said", ignorenulls=True).over(so_far))
        .where(~F.col("is_version"))
        .select(*events.columns, *(F.col("said")[name].alias(name) for name in attributes))
    )


def first_terms(versions: DataFrame, attribute: str) -> list[str]:
    """Return the terms of a derived attribute that users' counts are kept for, sorted by name.

    They are the first that any item had: by the day, then by how many items had them at its end, then by name. Later
    events neither add to those of an earlier time nor take one away, as they would if most items ever were to count.
    """
    first = (
        versions.select(ITEM_ID.name, EVENT_TIME.name, F.explode(attribute).alias("term"))
        .where(F.coalesce(F.col("term"), F.lit("")) != "")
        .groupBy("term", EVENT_TIME.name)
        .agg(F.count_distinct(ITEM_ID.name).alias("items"))
        .groupBy("term")
        .agg(F.min(F.struct(EVENT_TIME.name, -F.col("items"))).alias("first"))
        .orderBy("first", "term")
        .limit(MOST_TERMS)
    )
    return sorted(row["term"] for row in first.collect())
