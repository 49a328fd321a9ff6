"""How large a made-up log is, and the laws that it follows."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict

_SECONDS_PER_DAY = 86_400
_ITEMS_PER_ROOT_EVENT = 6.7
"""MovieLens 100K, 1M and 25M have 5.3, 3.7 and 12 items per square root of an event."""
_EVENTS_PER_USER = 100
_FEWEST_ITEMS = 20

Count = Annotated[int, Ge(1), Le(10_000_000_000)]


class LogLayout(StrEnum):
    """How a log is written."""

    MOVIELENS_CSV = "movielens-csv"
    """ratings.csv and movies.csv, as MovieLens 25M has them; nothing of the users but their ids."""
    MOVIELENS_100K = "movielens-100k"
    """u.data, u.item and u.user, as MovieLens 100K has them."""
    PARQUET = "parquet"
    """events.parquet, items.parquet and users.parquet, in the columns of the lake."""


class LogScale(BaseModel):
    """What a log is made to. Equal scales give equal logs, to the byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: Count
    """How many events, exactly."""
    users: Annotated[int, Ge(1), Le(100_000_000)]
    """How many users; each has an event where there are enough of them."""
    items: Annotated[int, Ge(_FEWEST_ITEMS), Le(1_000_000)]
    """How many items; the least popular may have no event."""
    seed: Annotated[int, Ge(0)] = 0
    """What all chance is drawn from."""
    first_day: date = date(2023, 1, 1)
    """The first day (UTC) that has events."""
    days: Annotated[int, Ge(7), Le(3650)] = 730
    """How many days the log covers."""
    popularity_exponent: Annotated[float, Ge(0), Le(3)] = 1.0
    """Zipf's exponent: the item of rank r is met in proportion to (r + q) ** -exponent (Mandelbrot's form)."""
    activity_exponent: Annotated[float, Ge(0), Le(3)] = 1.0
    """The same for the events of a user."""
    drift: Annotated[float, Ge(0), Le(1)] = 0.7
    """The share of an item's popularity that comes and goes within the log; the rest lasts."""
    session_events: Annotated[float, Ge(1), Le(1000)] = 12.0
    """Mean number of events in one sitting of a user."""
    burst: Annotated[float, Ge(0), Le(1)] = 0.55
    """The share of the events within a session that happen in the same second as the one before."""
    taste: Annotated[float, Ge(0), Le(5)] = 1.0
    """How strongly users prefer genres, in what they meet and in how they rate it; 0 is not at all."""
    noise: Annotated[float, Gt(0), Le(5)] = 0.8
    """Standard deviation, in stars, of what nothing explains."""

    @property
    def seconds(self) -> int:
        """The log's length in seconds."""
        return self.days * _SECONDS_PER_DAY

    @property
    def first_second(self) -> int:
        """The log's beginning, in seconds since 1970."""
        return int(datetime.combine(self.first_day, time(), UTC).timestamp())

    @property
    def end(self) -> datetime:
        """The midnight after the last day."""
        return datetime.combine(self.first_day + timedelta(days=self.days), time(), UTC)


def usual_users(events: int) -> int:
    """Return as many users as MovieLens has for so many events: about one for each hundred."""
    return max(events // _EVENTS_PER_USER, 1)


def usual_items(events: int) -> int:
    """Return as many items as MovieLens has for so many events: they grow as the square root."""
    return max(round(_ITEMS_PER_ROOT_EVENT * math.sqrt(events)), _FEWEST_ITEMS)
