"""The daily statistics tables: what happened on each day (UTC), for monitoring and business reports.

They are a third outlet beside training sets and online features, and like the lake partitioned by date: a late event
rewrites its own day, and the days on which somebody counted as new because the event was not known.
"""

from __future__ import annotations

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import ITEM_ID, Dataset

TOP_ITEMS = 20
"""How many items of a day are kept by name."""
TOP_TERMS = 100
"""How many terms of an attribute are kept for a day, so that a table stays small whatever the attribute holds."""

DAY = Column("day", Dtype.TIMESTAMP, "The midnight in UTC that begins the day")
_EVENTS = Column("events", Dtype.INT64, "Events")
_USERS = Column("active_users", Dtype.INT64, "Users with at least one of these events")
_ITEMS = Column("active_items", Dtype.INT64, "Items with at least one of these events")
_MEAN = Column("value_mean", Dtype.FLOAT32, "Mean value of the events")
_POSITIVES = Column("positive_share", Dtype.FLOAT32, "Share of the events that count as positive")

DAILY_ACTIVITY = Dataset(
    name="daily_activity",
    columns=(
        DAY,
        _EVENTS,
        _USERS,
        _ITEMS,
        Column("new_users", Dtype.INT64, "Users whose first event is of this day"),
        Column("new_items", Dtype.INT64, "Items whose first event is of this day"),
        _MEAN,
        _POSITIVES,
    ),
    key=("day",),
    sort=("day",),
    partitioned_by_event_date=True,
    meaning="One row for each day that has an event",
)

DAILY_TOP_ITEMS = Dataset(
    name="daily_top_items",
    columns=(
        DAY,
        Column("place", Dtype.INT64, "1 for the item with the most events; ties by item id"),
        ITEM_ID,
        _EVENTS,
        _USERS,
        _MEAN,
        _POSITIVES,
    ),
    key=("day", "place"),
    sort=("day", "place"),
    partitioned_by_event_date=True,
    meaning=f"The {TOP_ITEMS} items of each day with the most events",
)

DAILY_TERMS = Dataset(
    name="daily_terms",
    columns=(
        DAY,
        Column("attribute", Dtype.STRING, "The dataset and its column, such as items.genres or events.event_type"),
        Column("term", Dtype.STRING, "A value that the attribute has; empty where the item or user has none"),
        _EVENTS,
        _USERS,
        _ITEMS,
        _MEAN,
        _POSITIVES,
    ),
    key=("day", "attribute", "term"),
    sort=("day", "attribute", "term"),
    partitioned_by_event_date=True,
    meaning=f"Each day by the terms of every attribute; of each attribute the {TOP_TERMS} with the most events",
)

DAILY_STATISTICS = (DAILY_ACTIVITY, DAILY_TOP_ITEMS, DAILY_TERMS)
