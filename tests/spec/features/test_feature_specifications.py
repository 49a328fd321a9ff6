"""What every feature is, drawn as tables: events and items above, the rows that the real Spark transforms give below.

Times are seconds after the base, or whole days (`6d`); a row holds what was known after all events of its second, or
of its day (`day 6`). Lists are parted by commas and padded as the contract declares; `-` is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.columns import Column, Dtype
from tests.ascii_tables import parse_table
from tests.movielens import (
    FEATURE_GROUPS,
    ITEM_ACTIVITY,
    ITEM_PROFILE,
    ITEM_WINDOWS,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_PROFILE,
    USER_SEQUENCE,
    USER_SESSION,
    USER_STATE,
    USER_WINDOWS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_repo.contracts.features import FeatureGroup

pytestmark = pytest.mark.spark

BASE = datetime(1998, 1, 1, tzinfo=UTC)

ITEMS = """
| item | year | genres                     |
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


@dataclass(frozen=True)
class Specification:
    """A group's rows for the events, items and users above."""

    group: FeatureGroup
    rows: str
    events: str = EVENTS
    cutoff: str = "2d"


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
)


def test_every_feature_has_a_specification() -> None:
    specified = {(spec.group.name, name) for spec in SPECIFICATIONS for name in parse_table(spec.rows)[0]}
    declared = {(group.name, column.name) for group in FEATURE_GROUPS for column in group.features}
    assert declared - specified == set()


@pytest.mark.parametrize(
    "spec", SPECIFICATIONS, ids=lambda spec: f"{spec.group.name}:{list(parse_table(spec.rows)[0])[2]}"
)
def test_specification(spec: Specification, compute_group: Callable[..., Any]) -> None:
    table = compute_group(spec.group, *_inputs(spec.events), cutoff=_time(spec.cutoff))
    columns = {column.name: column for column in (spec.group.entity, *spec.group.features)}
    expected = [
        {name: _time(cell) if name == "time" else _value(cell, columns[name]) for name, cell in row.items()}
        for row in parse_table(spec.rows)
    ]
    names = list(expected[0])
    received = [
        {name: row["event_time"] if name == "time" else row[name] for name in names} for row in table.to_pylist()
    ]
    key = spec.group.entity.name
    in_order = sorted(expected, key=lambda row: (row[key], row["time"]))
    assert len(received) == len(in_order)
    for row, wanted in zip(sorted(received, key=lambda row: (row[key], row["time"])), in_order, strict=True):
        assert row == {
            name: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
            for name, value in wanted.items()
        }


def _inputs(drawn: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    events = [
        {
            "user_id": row["user"],
            "item_id": row["item"],
            "event_type": "rating",
            "value": float(row["value"]),
            "event_time": _time(row["time"]),
        }
        for row in parse_table(drawn)
    ]
    items = [
        {
            "item_id": row["item"],
            "title": row["item"],
            "release_year": None if row["year"] == "-" else int(row["year"]),
            "genres": _parts(row["genres"]),
        }
        for row in parse_table(ITEMS)
    ]
    users = [
        {
            "user_id": row["user"],
            "age": None if row["age"] == "-" else int(row["age"]),
            "gender": None if row["gender"] == "-" else row["gender"],
            "occupation": None if row["occupation"] == "-" else row["occupation"],
        }
        for row in parse_table(USERS)
    ]
    return events, items, users


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
