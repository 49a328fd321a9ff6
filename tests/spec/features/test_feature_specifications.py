"""What every feature is, drawn as tables: events and items above, the rows that the real Spark transforms give below.

The same tables hold for what is read online (test_online_read) and for what the stream makes (test_stream_and_batch).

Times are seconds after the base, or whole days (`6d`); a row holds what was known after all events of its second, or
of its day (`day 6`). Lists are parted by commas and padded as the contract declares; `-` is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.embeddings import EMBEDDING_GROUPS, EMBEDDING_SIZE, EMBEDDINGS, ITEM_EMBEDDINGS, VECTOR
from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import MOVIELENS, Attribute, Kind, Schema
from pipelines.io.arrow import arrow_schema
from pipelines.sources.mapping_file import read_mapping, shipped
from tests.ascii_tables import parse_table
from tests.movielens import (
    ITEM_ACTIVITY,
    ITEM_PROFILE,
    ITEM_WINDOWS,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_LIKED_ITEMS,
    USER_PROFILE,
    USER_SEQUENCE,
    USER_SESSION,
    USER_STATE,
    USER_WINDOWS,
)
from tests.shop_log import shop_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from feature_repo.contracts.features import FeatureGroup

pytestmark = pytest.mark.spark

BASE = datetime(1998, 1, 1, tzinfo=UTC)

ITEMS = """
| item | release_year | genres             |
| up   | 2009 | Animation,Drama            |
| heat | 1995 | Action,Crime,Thriller,Noir |
| jaws | 1975 | Action,Thriller            |
| roma | -    | Drama                      |
| blank| -    | -                          |
"""

EVENTS = """
| user | item  | value | time  |
| ann  | up    | 4     | 0     |
| ann  | jaws  | 2     | 10    |
| ann  | heat  | 5     | 10    |
| ann  | roma  | 4.5   | 20    |
| ann  | up    | 1     | 30    |
| bob  | jaws  | 3     | 10    |
| bob  | blank | 5     | 86400 |
| cem  | roma  | 0.5   | 10    |
| dan  | up    | 5     | 172800|
"""

USERS = """
| user | age | gender | occupation |
| ann  | 24  | F      | writer     |
| bob  | -   | -      | -          |
"""


LATER = """
| user | item  | value | time  |
| ann  | up    | 4     | 0     |
| ann  | jaws  | 2     | 86399 |
| ann  | up    | 5     | 6d    |
| bob  | up    | 3     | 7d    |
| bob  | jaws  | 1     | 100d  |
"""

VISITS = """
| user | item  | value | time |
| ann  | up    | 4     | 0    |
| ann  | jaws  | 2     | 1800 |
| ann  | heat  | 5     | 1800 |
| ann  | roma  | 4     | 3601 |
| ann  | up    | 3     | 3700 |
| ann  | jaws  | 1     | 1d   |
| bob  | jaws  | 3     | 10   |
"""

# Four stars are a like, three and a half are none, and take none back; heat and jaws are liked in one second.
LIKES = """
| user | item  | value | time |
| ann  | up    | 4     | 0    |
| ann  | jaws  | 4     | 10   |
| ann  | heat  | 5     | 10   |
| ann  | up    | 4.5   | 20   |
| ann  | heat  | 3.5   | 30   |
| ann  | roma  | 3.5   | 30   |
| bob  | jaws  | 3.5   | 10   |
"""

VECTORS = """
| item | vector  |
| up   | 1       |
| heat | 0,1     |
| jaws | 0.6,0.8 |
"""

SHOP_ITEMS = """
| item | price | category | tags    |
| mug  | 2.5   | home     | a,b     |
| bear | 10    | toys     | b,c,d,e |
| fork | -     | -        | -       |
"""

# To look at something is counted and no like, to give it back is neither; but what was given back was seen.
SHOP_EVENTS = """
| user | item | type     | value | time |
| ann  | mug  | view     | 1     | 0    |
| ann  | mug  | purchase | 2     | 10   |
| ann  | bear | purchase | 1     | 20   |
| ann  | fork | purchase | 3     | 30   |
| ann  | bear | return   | 1     | 40   |
| bob  | bear | view     | 1     | 10   |
| bob  | mug  | return   | 1     | 1d   |
"""

SHOP_USERS = """
| user | country |
| ann  | FR      |
| bob  | -       |
"""


# Nobody says since when ann follows bob. Dan follows her from the cutoff on: nobody knows of it.
SHOP_RELATIONS = """
| user | other | since |
| ann  | bob   | 1970  |
| bob  | ann   | 30    |
| ann  | cem   | 1d    |
| dan  | ann   | 2d    |
"""


def _stated(attributes: Iterable[Attribute]) -> tuple[Attribute, ...]:
    """Return attributes as a source states them, for all time, however they come about."""
    return tuple(Attribute(each.name, each.kind, each.meaning, each.step) for each in attributes)


RETAIL = read_mapping(shipped()["online-retail"])[1]
SHOP = replace(
    shop_schema(),
    item_attributes=_stated(shop_schema().item_attributes),
    user_attributes=_stated(shop_schema().user_attributes),
    has_relations=True,
)
SHOP_FEATURES = declared(SHOP)


@dataclass(frozen=True)
class Specification:
    """A group's rows for the events, items and users above."""

    group: FeatureGroup
    rows: str
    events: str = EVENTS
    cutoff: str = "2d"
    schema: Schema = MOVIELENS

    @property
    def title(self) -> str:
        """What tells it from others."""
        return f"{self.group.name}:{list(parse_table(self.rows)[0])[2]}"

    @property
    def end(self) -> datetime:
        """The cutoff."""
        return _time(self.cutoff)

    @property
    def expected(self) -> list[dict[str, Any]]:
        """The rows drawn, with the group's own names and types, and `time`."""
        columns = {column.name: column for column in (self.group.entity, *self.group.features)}
        return [
            {name: _time(cell) if name == "time" else _value(cell, columns[name]) for name, cell in row.items()}
            for row in parse_table(self.rows)
        ]


def of_shop(group: FeatureGroup | None, rows: str) -> Specification:
    assert group is not None
    return Specification(group, rows, SHOP_EVENTS, schema=SHOP)


SPECIFICATIONS = (
    Specification(
        USER_ACTIVITY,
        # Ties of one second stand by item id. Dan's event lies at the cutoff: nobody knows of him.
        """
        | user_id | time  | user_last_items      | user_last_values | user_event_count |
        | ann     | 0     | up                   | 4                | 1                 |
        | ann     | 10    | heat,jaws,up         | 5,2,4            | 3                 |
        | ann     | 20    | roma,heat,jaws,up    | 4.5,5,2,4        | 4                 |
        | ann     | 30    | up,roma,heat,jaws,up | 1,4.5,5,2,4      | 5                 |
        | bob     | 10    | jaws                 | 3                | 1                 |
        | bob     | 86400 | blank,jaws           | 5,3              | 2                 |
        | cem     | 10    | roma                 | 0.5              | 1                 |
        """,
    ),
    Specification(
        USER_ACTIVITY,
        # Means and spreads of all events so far; years only where known, -1 where none is.
        """
        | user_id | time  | user_value_mean | user_value_std | user_release_year_mean | user_release_year_std |
        | ann     | 0     | 4                | 0               | 2009                   | 0                     |
        | ann     | 10    | 3.6666667        | 1.2472191       | 1993                   | 13.9522996            |
        | ann     | 20    | 3.875            | 1.1388042       | 1993                   | 13.9522996            |
        | ann     | 30    | 3.3              | 1.5362291       | 1997                   | 13.9283883            |
        | bob     | 10    | 3                | 0               | 1975                   | 0                     |
        | bob     | 86400 | 4                | 1               | 1975                   | 0                     |
        | cem     | 10    | 0.5              | 0               | -1                     | -1                    |
        """,
    ),
    Specification(
        USER_ACTIVITY,
        # Liked means at least 4 stars; most often first, ties by name; only five of them.
        """
        | user_id | time  | user_top_genres                       |
        | ann     | 0     | Animation,Drama                       |
        | ann     | 10    | Action,Animation,Crime,Drama,Noir     |
        | ann     | 20    | Drama,Action,Animation,Crime,Noir     |
        | ann     | 30    | Drama,Action,Animation,Crime,Noir     |
        | bob     | 10    | -                                     |
        | bob     | 86400 | -                                     |
        | cem     | 10    | -                                     |
        """,
    ),
    Specification(
        ITEM_ACTIVITY,
        """
        | item_id | time  | item_event_count | item_value_mean | item_value_std |
        | up      | 0     | 1                 | 4                | 0               |
        | up      | 30    | 2                 | 2.5              | 1.5             |
        | jaws    | 10    | 2                 | 2.5              | 0.5             |
        | heat    | 10    | 1                 | 5                | 0               |
        | roma    | 10    | 1                 | 0.5              | 0               |
        | roma    | 20    | 2                 | 2.5              | 2               |
        | blank   | 86400 | 1                 | 5                | 0               |
        """,
    ),
    Specification(
        ITEM_ACTIVITY,
        # The base is day 10,227 since 1970, second 883,612,800. One event counts as one on its own day, two at once
        # 14 days, one half-life, later; 30 seconds more move that by less than float32 tells apart.
        """
        | item_id | time  | item_first_event_time | item_last_event_time | item_popular_until |
        | up      | 0     | 883612800             | 883612800            | 10227              |
        | up      | 30    | 883612800             | 883612830            | 10241              |
        | jaws    | 10    | 883612810             | 883612810            | 10241              |
        | heat    | 10    | 883612810             | 883612810            | 10227              |
        | roma    | 10    | 883612810             | 883612810            | 10227              |
        | roma    | 20    | 883612810             | 883612820            | 10241              |
        | blank   | 86400 | 883699200             | 883699200            | 10228              |
        """,
    ),
    Specification(
        USER_SESSION,
        # A pause of 1,800 seconds ends no session, one of 1,801 does.
        """
        | user_id | time | user_first_event_time | user_last_event_time | user_session_count |
        | ann     | 0    | 883612800             | 883612800            | 1                  |
        | ann     | 1800 | 883612800             | 883614600            | 1                  |
        | ann     | 3601 | 883612800             | 883616401            | 2                  |
        | ann     | 3700 | 883612800             | 883616500            | 2                  |
        | ann     | 1d   | 883612800             | 883699200            | 3                  |
        | bob     | 10   | 883612810             | 883612810            | 1                  |
        """,
        VISITS,
    ),
    Specification(
        USER_SESSION,
        """
        | user_id | time | user_session_event_count | user_session_seconds |
        | ann     | 0    | 1                        | 0                    |
        | ann     | 1800 | 3                        | 1800                 |
        | ann     | 3601 | 1                        | 0                    |
        | ann     | 3700 | 2                        | 99                   |
        | ann     | 1d   | 1                        | 0                    |
        | bob     | 10   | 1                        | 0                    |
        """,
        VISITS,
    ),
    Specification(
        USER_SEQUENCE,
        """
        | user_id | time | user_sequence_items  | user_sequence_types                |
        | ann     | 0    | up                   | rating                             |
        | ann     | 10   | heat,jaws,up         | rating,rating,rating               |
        | ann     | 20   | roma,heat,jaws,up    | rating,rating,rating,rating        |
        | ann     | 30   | up,roma,heat,jaws,up | rating,rating,rating,rating,rating |
        | bob     | 10   | jaws                 | rating                             |
        | bob     | 1d   | blank,jaws           | rating,rating                      |
        | cem     | 10   | roma                 | rating                             |
        """,
    ),
    Specification(
        USER_SEQUENCE,
        """
        | user_id | time | user_sequence_times                     |
        | ann     | 0    | 883612800                               |
        | ann     | 10   | 883612810,883612810,883612800           |
        | ann     | 20   | 883612820,883612810,883612810,883612800 |
        | ann     | 30   | 883612830,883612820,883612810,883612810,883612800 |
        | bob     | 10   | 883612810                               |
        | bob     | 1d   | 883699200,883612810                     |
        | cem     | 10   | 883612810                               |
        """,
    ),
    Specification(
        USER_SEQUENCE,
        # Counted from the first session on, so that a new event changes no other; ann's third begins on day 1.
        """
        | user_id | time | user_sequence_values | user_sequence_sessions |
        | ann     | 0    | 4                    | 1                      |
        | ann     | 1800 | 5,2,4                | 1,1,1                  |
        | ann     | 3601 | 4,5,2,4              | 2,1,1,1                |
        | ann     | 3700 | 3,4,5,2,4            | 2,2,1,1,1              |
        | ann     | 1d   | 1,3,4,5,2,4          | 3,2,2,1,1,1            |
        | bob     | 10   | 3                    | 1                      |
        """,
        VISITS,
    ),
    of_shop(
        SHOP_FEATURES.user_sequence,
        # What is given back is no counted event, as elsewhere; what was looked at is.
        """
        | user_id | time | user_sequence_items | user_sequence_types             | user_sequence_values |
        | ann     | 0    | mug                 | view                            | 1                    |
        | ann     | 10   | mug,mug             | purchase,view                   | 2,1                  |
        | ann     | 20   | bear,mug,mug        | purchase,purchase,view          | 1,2,1                |
        | ann     | 30   | fork,bear,mug,mug   | purchase,purchase,purchase,view | 3,1,2,1              |
        | bob     | 10   | bear                | view                            | 1                    |
        """,
    ),
    Specification(
        USER_WINDOWS,
        # On day 7 what happened on day 0 is no longer among the last 7 days; on day 96 nothing is left of the last 90.
        """
        | user_id | time   | user_event_count_7d | user_event_count_30d | user_event_count_90d |
        | ann     | day 0  | 2                   | 2                    | 2                    |
        | ann     | day 6  | 3                   | 3                    | 3                    |
        | ann     | day 7  | 1                   | 3                    | 3                    |
        | ann     | day 13 | 0                   | 3                    | 3                    |
        | ann     | day 30 | 0                   | 1                    | 3                    |
        | ann     | day 36 | 0                   | 0                    | 3                    |
        | ann     | day 90 | 0                   | 0                    | 1                    |
        | ann     | day 96 | 0                   | 0                    | 0                    |
        | bob     | day 7  | 1                   | 1                    | 1                    |
        | bob     | day 14 | 0                   | 1                    | 1                    |
        | bob     | day 37 | 0                   | 0                    | 1                    |
        | bob     | day 97 | 0                   | 0                    | 0                    |
        """,
        LATER,
        "100d",
    ),
    Specification(
        USER_WINDOWS,
        """
        | user_id | time   | user_value_mean_7d | user_value_mean_30d | user_value_mean_90d |
        | ann     | day 0  | 3                  | 3                   | 3                   |
        | ann     | day 6  | 3.6666667          | 3.6666667           | 3.6666667           |
        | ann     | day 7  | 5                  | 3.6666667           | 3.6666667           |
        | ann     | day 13 | -1                 | 3.6666667           | 3.6666667           |
        | ann     | day 30 | -1                 | 5                   | 3.6666667           |
        | ann     | day 36 | -1                 | -1                  | 3.6666667           |
        | ann     | day 90 | -1                 | -1                  | 5                   |
        | ann     | day 96 | -1                 | -1                  | -1                  |
        | bob     | day 7  | 3                  | 3                   | 3                   |
        | bob     | day 14 | -1                 | 3                   | 3                   |
        | bob     | day 37 | -1                 | -1                  | 3                   |
        | bob     | day 97 | -1                 | -1                  | -1                  |
        """,
        LATER,
        "100d",
    ),
    Specification(
        ITEM_WINDOWS,
        # log2 of (last 7 days + 5) / 7 over the 30 days before / 30 + 5 / 7; on day 44 all of it is long ago.
        """
        | item_id | time   | item_event_count_7d | item_event_count_30d | item_event_count_90d | item_trend |
        | up      | day 0  | 1                   | 1                    | 1                    | 0.263034   |
        | up      | day 6  | 2                   | 2                    | 2                    | 0.485427   |
        | up      | day 7  | 2                   | 3                    | 3                    | 0.419625   |
        | up      | day 13 | 1                   | 3                    | 3                    | 0.134301   |
        | up      | day 14 | 0                   | 3                    | 3                    | -0.189034  |
        | up      | day 30 | 0                   | 2                    | 3                    | -0.189034  |
        | up      | day 36 | 0                   | 1                    | 3                    | -0.189034  |
        | up      | day 37 | 0                   | 0                    | 3                    | -0.128733  |
        | up      | day 43 | 0                   | 0                    | 3                    | -0.065802  |
        | up      | day 44 | 0                   | 0                    | 3                    | 0          |
        | up      | day 90 | 0                   | 0                    | 2                    | 0          |
        | up      | day 96 | 0                   | 0                    | 1                    | 0          |
        | up      | day 97 | 0                   | 0                    | 0                    | 0          |
        | jaws    | day 0  | 1                   | 1                    | 1                    | 0.263034   |
        | jaws    | day 7  | 0                   | 1                    | 1                    | -0.065802  |
        | jaws    | day 30 | 0                   | 0                    | 1                    | -0.065802  |
        | jaws    | day 37 | 0                   | 0                    | 1                    | 0          |
        | jaws    | day 90 | 0                   | 0                    | 0                    | 0          |
        """,
        LATER,
        "100d",
    ),
    Specification(
        ITEM_WINDOWS,
        """
        | item_id | time   | item_value_mean_7d | item_value_mean_30d | item_value_mean_90d |
        | up      | day 0  | 4                  | 4                   | 4                   |
        | up      | day 6  | 4.5                | 4.5                 | 4.5                 |
        | up      | day 7  | 4                  | 4                   | 4                   |
        | up      | day 13 | 3                  | 4                   | 4                   |
        | up      | day 14 | -1                 | 4                   | 4                   |
        | up      | day 30 | -1                 | 4                   | 4                   |
        | up      | day 36 | -1                 | 3                   | 4                   |
        | up      | day 37 | -1                 | -1                  | 4                   |
        | up      | day 43 | -1                 | -1                  | 4                   |
        | up      | day 44 | -1                 | -1                  | 4                   |
        | up      | day 90 | -1                 | -1                  | 4                   |
        | up      | day 96 | -1                 | -1                  | 3                   |
        | up      | day 97 | -1                 | -1                  | -1                  |
        | jaws    | day 0  | 2                  | 2                   | 2                   |
        | jaws    | day 7  | -1                 | 2                   | 2                   |
        | jaws    | day 30 | -1                 | -1                  | 2                   |
        | jaws    | day 37 | -1                 | -1                  | 2                   |
        | jaws    | day 90 | -1                 | -1                  | -1                  |
        """,
        LATER,
        "100d",
    ),
    Specification(
        USER_PROFILE,
        """
        | user_id | time    | user_age | user_gender | user_occupation |
        | ann     | 1970    | 24       | F           | writer          |
        | bob     | 1970    | -1       | -           | -               |
        """,
    ),
    Specification(
        ITEM_PROFILE,
        """
        | item_id | time | item_release_year | item_genres           |
        | up      | 1970 | 2009              | Animation,Drama       |
        | heat    | 1970 | 1995              | Action,Crime,Thriller |
        | jaws    | 1970 | 1975              | Action,Thriller       |
        | roma    | 1970 | -1                | Drama                 |
        | blank   | 1970 | -1                | -                     |
        """,
    ),
    Specification(
        USER_HISTORY,
        """
        | user_id | time   | user_seen_items   |
        | ann     | cutoff | heat,jaws,roma,up |
        | bob     | cutoff | blank,jaws        |
        | cem     | cutoff | roma              |
        """,
    ),
    Specification(
        USER_STATE,
        """
        | user_id | time   | state_last_time  | state_last_items     | state_last_values | state_value_count |
        | ann     | cutoff | 883612830000000  | up,roma,heat,jaws,up | 1,4.5,5,2,4       | 5                 |
        | bob     | cutoff | 883699200000000  | blank,jaws           | 5,3               | 2                 |
        | cem     | cutoff | 883612810000000  | roma                 | 0.5               | 1                 |
        """,
    ),
    Specification(
        USER_STATE,
        """
        | user_id | time   | state_first_counted_time | state_last_counted_time | state_session_time |
        | ann     | cutoff | 883612800000000          | 883699200000000         | 883699200000000    |
        | bob     | cutoff | 883612810000000          | 883612810000000         | 883612810000000    |
        """,
        VISITS,
    ),
    Specification(
        USER_STATE,
        """
        | user_id | time   | state_session_count | state_session_event_count |
        | ann     | cutoff | 3                   | 1                         |
        | bob     | cutoff | 1                   | 1                         |
        """,
        VISITS,
    ),
    Specification(
        USER_STATE,
        """
        | user_id | time   | state_last_sessions | state_last_types                   |
        | ann     | cutoff | 3,2,2,1,1,1         | rating,rating,rating,rating,rating,rating |
        | bob     | cutoff | 1                   | rating                             |
        """,
        VISITS,
    ),
    Specification(
        USER_STATE,
        """
        | user_id | time   | state_last_times                                                |
        | ann     | cutoff | 883699200,883616500,883616401,883614600,883614600,883612800     |
        | bob     | cutoff | 883612810                                                       |
        """,
        VISITS,
    ),
    Specification(
        USER_STATE,
        # Values in steps of half a star, years in years.
        """
        | user_id | time   | state_value_sum | state_value_squares | state_release_year_count | state_release_year_sum |
        | ann     | cutoff | 33              | 265                 | 4                        | 7988                   |
        | bob     | cutoff | 16              | 136                 | 1                        | 1975                   |
        | cem     | cutoff | 1               | 1                   | 0                        | 0                      |
        """,
    ),
    Specification(
        USER_STATE,
        # Of everything that a user liked, in the order of the names: not the first few alone.
        """
        | user_id | time   | state_release_year_squares | state_genres_terms                         |
        | ann     | cutoff | 15952812                   | Action,Animation,Crime,Drama,Noir,Thriller |
        | bob     | cutoff | 3900625                    | -                                          |
        | cem     | cutoff | 0                          | -                                          |
        """,
    ),
    Specification(
        USER_STATE,
        """
        | user_id | time   | state_genres_counts |
        | ann     | cutoff | 1,1,1,2,1,1         |
        | bob     | cutoff | -                   |
        | cem     | cutoff | -                   |
        """,
    ),
    of_shop(
        SHOP_FEATURES.user_activity,
        # Of the counted events' items, where known, as often as there are events; terms of what was bought.
        """
        | user_id | time | user_price_mean | user_price_std | user_top_category | user_top_tags |
        | ann     | 0    | 2.5             | 0              | -                 | -             |
        | ann     | 10   | 2.5             | 0              | home              | a,b           |
        | ann     | 20   | 5               | 3.5355339      | home,toys         | b,a,c,d,e     |
        | ann     | 30   | 5               | 3.5355339      | home,toys         | b,a,c,d,e     |
        | bob     | 10   | 10              | 0              | -                 | -             |
        """,
    ),
    of_shop(
        SHOP_FEATURES.user_history,
        """
        | user_id | time   | user_seen_items |
        | ann     | cutoff | bear,fork,mug   |
        | bob     | cutoff | bear,mug        |
        """,
    ),
    of_shop(
        SHOP_FEATURES.user_state,
        # Prices in pence; the last time is that of an event that is not counted.
        """
        | user_id | time   | state_price_count | state_price_sum | state_price_squares | state_last_time |
        | ann     | cutoff | 3                 | 1500            | 1125000             | 883612840000000 |
        | bob     | cutoff | 1                 | 1000            | 1000000             | 883699200000000 |
        """,
    ),
    of_shop(
        SHOP_FEATURES.user_state,
        """
        | user_id | time   | state_category_terms | state_category_counts | state_tags_terms | state_tags_counts |
        | ann     | cutoff | home,toys            | 1,1                   | a,b,c,d,e        | 1,2,1,1,1         |
        | bob     | cutoff | -                    | -                     | -                | -                 |
        """,
    ),
    of_shop(
        SHOP_FEATURES.user_profile,
        """
        | user_id | time | user_country |
        | ann     | 1970 | FR           |
        | bob     | 1970 | -            |
        """,
    ),
    of_shop(
        SHOP_FEATURES.item_profile,
        """
        | item_id | time | item_price | item_category | item_tags |
        | mug     | 1970 | 2.5        | home          | a,b       |
        | bear    | 1970 | 10         | toys          | b,c,d     |
        | fork    | 1970 | -1         | -             | -         |
        """,
    ),
    of_shop(
        SHOP_FEATURES.user_relations,
        # 10,227 days before the base is the beginning of 1970. Cem has no event, and is followed all the same.
        """
        | user_id | time       | user_followed_count | user_follower_count |
        | ann     | day -10227 | 1                   | 0                   |
        | ann     | day 0      | 1                   | 1                   |
        | ann     | day 1      | 2                   | 1                   |
        | bob     | day -10227 | 0                   | 1                   |
        | bob     | day 0      | 1                   | 1                   |
        | cem     | day 1      | 0                   | 1                   |
        """,
    ),
    of_shop(
        SHOP_FEATURES.user_circle,
        # What ann bought, which bob sees; he bought nothing that she could see.
        """
        | user_id | time   | user_circle_items |
        | ann     | cutoff | -                 |
        | bob     | cutoff | fork,bear,mug     |
        | cem     | cutoff | -                 |
        """,
    ),
    *(
        Specification(
            kind.item_group,
            # The snapshot's vectors, whatever they were fitted on.
            f"""
            | item_id | time   | {kind.item_group.name} | {kind.item_group.name}_fit |
            | up      | cutoff | 1                      | snapshot                   |
            | heat    | cutoff | 0,1                    | snapshot                   |
            | jaws    | cutoff | 0.6,0.8                | snapshot                   |
            """,
        )
        for kind in EMBEDDINGS.values()
    ),
    *(
        Specification(
            kind.user_group,
            # Ann liked heat last, up before: (0.9, 1) of unit length. What bob liked has no vector.
            f"""
            | user_id | time   | {kind.user_group.name} | {kind.user_group.name}_fit |
            | ann     | cutoff | 0.6689647,0.7432941    | snapshot                   |
            """,
        )
        for kind in EMBEDDINGS.values()
    ),
    Specification(
        USER_LIKED_ITEMS,
        # Ann gave up one star in the end, and liked it once. Cem likes nothing, which is known of him.
        """
        | user_id | time   | user_liked_items | user_liked_times              |
        | ann     | cutoff | roma,heat,up     | 883612820,883612810,883612800 |
        | bob     | cutoff | blank            | 883699200                     |
        | cem     | cutoff | -                | -                             |
        """,
    ),
    Specification(
        USER_LIKED_ITEMS,
        """
        | user_id | time   | user_liked_items | user_liked_times              |
        | ann     | cutoff | up,heat,jaws     | 883612820,883612810,883612810 |
        | bob     | cutoff | -                | -                             |
        """,
        LIKES,
    ),
    Specification(
        USER_STATE,
        """
        | user_id | time   | state_liked_items | state_liked_times                               |
        | ann     | cutoff | up,heat,jaws      | 883612820000000,883612810000000,883612810000000 |
        | bob     | cutoff | -                 | -                                               |
        """,
        LIKES,
    ),
    of_shop(
        SHOP_FEATURES.user_liked_items,
        # To buy is to like; to look at something is counted, and no like.
        """
        | user_id | time   | user_liked_items | user_liked_times              |
        | ann     | cutoff | fork,bear,mug    | 883612830,883612820,883612810 |
        | bob     | cutoff | -                | -                             |
        """,
    ),
)


Feature = tuple[str, str, Dtype, int]
"""Group, name, type and length: features of two schemas that agree in these are the same one."""


def unspecified(specifications: Iterable[Specification]) -> set[Feature]:
    """Return the features of all schemas at hand, and of the embeddings, that no specification draws."""

    def feature(group: FeatureGroup, column: Column) -> Feature:
        return group.name, column.name, column.dtype, column.length

    groups = [group for schema in (MOVIELENS, SHOP, RETAIL) for group in declared(schema).groups]
    all_features = {feature(group, column) for group in (*groups, *EMBEDDING_GROUPS) for column in group.features}
    return all_features - {
        feature(spec.group, column)
        for spec in specifications
        for column in spec.group.features
        if column.name in parse_table(spec.rows)[0]
    }


def test_every_feature_has_a_specification() -> None:
    assert unspecified(SPECIFICATIONS) == set()


@pytest.mark.parametrize("name", sorted({spec.group.name for spec in SPECIFICATIONS}))
def test_a_group_s_specifications_are_missed_when_they_are_gone(name: str) -> None:
    rest = [spec for spec in SPECIFICATIONS if spec.group.name != name]
    assert {group for group, *_ in unspecified(rest)} == {name}


def test_features_that_only_other_schemas_give_rise_to_are_missed_when_they_are_gone() -> None:
    gone = unspecified(spec for spec in SPECIFICATIONS if spec.schema is MOVIELENS)
    assert {name for _, name, *_ in gone} == {
        "user_price_mean",
        "user_price_std",
        "user_top_category",
        "user_top_tags",
        "user_country",
        "user_followed_count",
        "user_follower_count",
        "user_circle_items",
        "item_price",
        "item_category",
        "item_tags",
        *(f"state_price_{part}" for part in ("count", "sum", "squares")),
        *(f"state_{name}_{part}" for name in ("category", "tags") for part in ("terms", "counts")),
    }


@pytest.mark.parametrize("spec", SPECIFICATIONS, ids=lambda spec: spec.title)
def test_specification(
    spec: Specification, compute_group: Callable[..., Any], compute_vectors: Callable[..., Any]
) -> None:
    events, items, users = inputs(spec)
    if spec.group in EMBEDDING_GROUPS:
        table = compute_vectors(spec.group, item_vectors(), events, spec.end)
    else:
        table = compute_group(
            spec.group, events, items, users, cutoff=spec.end, schema=spec.schema, relations=relations()
        )
    names = list(spec.expected[0])
    received = [
        {name: row["event_time"] if name == "time" else row[name] for name in names} for row in table.to_pylist()
    ]
    key = spec.group.entity.name
    in_order = sorted(spec.expected, key=lambda row: (row[key], row["time"]))
    assert len(received) == len(in_order)
    for row, wanted in zip(sorted(received, key=lambda row: (row[key], row["time"])), in_order, strict=True):
        assert row == {name: about(value) for name, value in wanted.items()}


def about(value: Any) -> Any:
    """Return what equals a value as float32 stores it."""
    numbers = value if isinstance(value, list) else [value]
    return pytest.approx(value, abs=1e-5) if any(isinstance(number, float) for number in numbers) else value


def inputs(spec: Specification) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the events, items and users that a specification is of."""
    items, users = (ITEMS, USERS) if spec.schema is MOVIELENS else (SHOP_ITEMS, SHOP_USERS)
    events = [
        {
            "user_id": row["user"],
            "item_id": row["item"],
            "event_type": row.get("type", "rating"),
            "value": float(row["value"]),
            "event_time": _time(row["time"]),
        }
        for row in parse_table(spec.events)
    ]
    return (
        events,
        [
            {"item_id": row["item"], "title": row["item"], **_said(row, spec.schema.item_attributes)}
            for row in parse_table(items)
        ],
        [{"user_id": row["user"], **_said(row, spec.schema.user_attributes)} for row in parse_table(users)],
    )


def relations() -> list[dict[str, Any]]:
    """Return who follows whom in the shop."""
    return [
        {"user_id": row["user"], "other_user_id": row["other"], "since": _time(row["since"])}
        for row in parse_table(SHOP_RELATIONS)
    ]


def item_vectors() -> pa.Table:
    """Return the drawn vectors as a snapshot has them."""
    rows = [
        {
            "item_id": row["item"],
            VECTOR.name: _value(row["vector"], replace(VECTOR, length=EMBEDDING_SIZE, missing=0.0)),
        }
        for row in parse_table(VECTORS)
    ]
    return pa.Table.from_pylist(rows, arrow_schema(ITEM_EMBEDDINGS))


def _said(row: dict[str, str], attributes: Iterable[Attribute]) -> dict[str, Any]:
    return {each.name: _attribute_value(row.get(each.name, "-"), each.kind) for each in attributes}


def _attribute_value(cell: str, kind: Kind) -> object:
    if kind is Kind.MULTI_VALUED:
        return _parts(cell)
    if cell == "-":
        return None
    return cell if kind is not Kind.NUMERIC else float(cell) if "." in cell else int(cell)


def _parts(cell: str) -> list[str]:
    return [] if cell == "-" else cell.split(",")


def _time(cell: str) -> datetime:
    if cell == "1970":
        return datetime(1970, 1, 1, tzinfo=UTC)
    if cell == "cutoff":
        return BASE + timedelta(days=2) - timedelta(microseconds=1)
    if cell.startswith("day "):
        return BASE + timedelta(days=int(cell.removeprefix("day ")) + 1) - timedelta(microseconds=1)
    return BASE + (timedelta(days=int(cell[:-1])) if cell.endswith("d") else timedelta(seconds=int(cell)))


def _value(cell: str, column: Column) -> object:
    read = {Dtype.STRING: str, Dtype.INT64: int, Dtype.FLOAT32: float}[column.dtype]
    if column.length:
        values = [read(part) for part in _parts(cell)]
        return [*values, *[column.missing] * (column.length - len(values))] if column.length > 0 else values
    return column.missing if cell == "-" else read(cell)
