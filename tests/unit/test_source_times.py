"""What a text, or a column of times, is taken for: the moment that it says, or none, and never another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.expressions import Cell, micros_of
from pipelines.sources.mapping import TimeOf

EARLIEST, LATEST = datetime(1900, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 - texts without a zone, too


@pytest.fixture(scope="module")
def database():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def read(database: duckdb.DuckDBPyConnection, text: str, kind: str = "VARCHAR", **how: Any) -> datetime | None:
    sql = micros_of(Cell("c", kind, "when"), TimeOf(column="when", **how), "events.time")
    ((micros,),) = database.execute(f"SELECT {sql} FROM (SELECT CAST($1 AS {kind}) AS c)", [text]).fetchall()  # noqa: S608 - the module's own SQL
    return None if micros is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)


@pytest.mark.parametrize(
    "text",
    [
        "2024-07-01 12:00:00",
        "2024-07-01T12:00",
        "2024-7-1 12:00:00.0",
        "2024-07-01 12:00:00,000",
        "2024-07-01T12:00:00Z",
        "2024-07-01T12:00:00z",
        "2024-07-01 12:00:00 UTC",
        "2024-07-01 12:00:00 GMT",
        "2024-07-01 14:00:00+02",
        "2024-07-01 14:00:00 +0200",
        "2024-07-01T06:30:00-05:30",
        "20240701T120000Z",
        "20240701T120000,000Z",
        "20240701 140000 +0200",
        "20240701T120000",
    ],
)
def test_a_text_means_the_moment_that_it_says(database, text):
    assert read(database, text) == datetime(2024, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2024-07-01 12:00:00", 11), ("2024-07-01 12:00:00 UTC", 12), ("2024-07-01 12:00:00 GMT", 12)],
)
def test_a_zone_is_for_texts_that_do_not_say_theirs(database, text, hour):
    assert read(database, text, zone="Europe/London") == datetime(2024, 7, 1, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2024-07-01 05:00:00 PM",
        "2024-07-01 12:00:00 America/New_York",
        "2024-07-01 12:00:00 PST",
        "2024-07-01 12:00:00 xyz",
        "2024-07-01T12:00:00+01:00[Europe/Paris]",
        "2024-07-01 12:00:00+99:00",
        "2024-02-30",
        "1719835200",
        "yesterday",
        "",
    ],
)
def test_a_text_that_says_more_than_is_understood_is_no_time(database, text):
    assert read(database, text) is None


@settings(deadline=None, max_examples=50)
@given(st.datetimes(EARLIEST, LATEST), st.integers(-14 * 60, 14 * 60))
def test_what_python_writes_is_read_back(database, moment, minutes):
    there = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert read(database, there.isoformat()) == there
    assert read(database, moment.isoformat(sep=" ")) == moment.replace(tzinfo=UTC)


def test_a_format_with_a_zone_of_either_kind_is_not_shifted_again(database):
    noon = datetime(2024, 7, 1, 17, tzinfo=UTC)
    for text, end in (("12:00 -0500", "%z"), ("12:00 EST", "%Z")):
        assert read(database, f"2024-07-01 {text}", format=f"%Y-%m-%d %H:%M {end}", zone="Europe/London") == noon


def test_times_with_a_zone_are_moments_whatever_their_precision(database):
    for kind in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"):
        found = read(database, "2024-07-01 12:00:00.5+00", kind, zone="Europe/London")
        assert found == datetime(2024, 7, 1, 12, 0, 0, 500_000, tzinfo=UTC)
