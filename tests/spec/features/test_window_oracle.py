"""Windows once more, by counting what lies in each of them, on a random log of half a year; and by starting late."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.movielens import ITEM_WINDOWS, USER_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_repo.contracts.features import FeatureGroup

pytestmark = pytest.mark.spark

BASE = datetime(1998, 1, 1, tzinfo=UTC)
DAYS = 180
CUTOFF = BASE + timedelta(days=DAYS)
Rows = list[dict[str, Any]]


def long_log(seed: int) -> Rows:
    """Return events of few users and items at any second of half a year, midnights and the cutoff among them."""
    dice = random.Random(seed)
    events = {}
    for _ in range(250):
        day, second = dice.randint(0, DAYS), dice.choice([0, 1, 86_399, dice.randint(0, 86_399)])
        key = f"u{dice.randint(1, 6)}", f"i{dice.randint(1, 5)}", BASE + timedelta(days=day, seconds=second)
        events[key] = {
            "user_id": key[0],
            "item_id": key[1],
            "event_type": "rating",
            "value": dice.randint(1, 10) / 2,
            "event_time": key[2],
        }
    return list(events.values())


def of_last(events: Rows, day: date, days: int) -> list[float]:
    return [event["value"] for event in events if 0 <= (day - event["event_time"].date()).days < days]


def figures(owner: str, events: Rows, day: date) -> dict[str, Any]:
    """Return a key's figures at the end of a day."""
    windows = {days: of_last(events, day, days) for days in (7, 30, 90)}
    counts = {f"{owner}_event_count_{days}d": len(values) for days, values in windows.items()}
    means = {f"{owner}_value_mean_{days}d": mean(values) for days, values in windows.items()}
    if owner == "user":
        return counts | means
    lately, before = len(windows[7]), len(of_last(events, day, 37)) - len(windows[7])
    trend = math.log2(((lately + 5) / 7) / ((before + 5 * 30 / 7) / 30))
    return counts | means | {"item_trend": pytest.approx(trend, abs=1e-6)}


def mean(values: list[float]) -> float:
    return float(np.float32(sum(values) / len(values))) if values else -1.0


@pytest.mark.parametrize("group", [USER_WINDOWS, ITEM_WINDOWS], ids=lambda group: group.name)
def test_the_latest_row_before_any_midnight_is_exact(group: FeatureGroup, compute_group: Callable[..., Any]) -> None:
    events = long_log(11)
    key = group.entity.name
    rows = compute_group(group, events, [], cutoff=CUTOFF).to_pylist()
    for entity in sorted({event[key] for event in events}):
        of_entity = [event for event in events if event[key] == entity and event["event_time"] < CUTOFF]
        stamped = {row["event_time"]: row for row in rows if row[key] == entity}
        first = min(event["event_time"].date() for event in of_entity)
        latest: dict[str, Any] | None = None
        for number in range((CUTOFF.date() - first).days):
            day = first + timedelta(days=number)
            stamp = datetime.combine(day, time.max, UTC)
            latest = stamped.pop(stamp, latest)
            assert latest is not None
            expected = figures(key.removesuffix("_id"), of_entity, day)
            assert {name: latest[name] for name in expected} == expected, f"{entity} at the end of {day}"
        assert not stamped, "a row that no day asks for"


@pytest.mark.parametrize("group", [USER_WINDOWS, ITEM_WINDOWS], ids=lambda group: group.name)
def test_what_is_older_than_its_lifetime_says_nothing_else_than_missing(
    group: FeatureGroup, compute_group: Callable[..., Any]
) -> None:
    """So a lifetime hides nothing that is true, and a row that counts something never outlives what it counts."""
    days = [(1, 0), (1, 4), (1, 170), (2, 3), (2, 92), (2, 93), (2, 94), (3, 120)]
    events = [
        {**long_log(13)[0], group.entity.name: f"e{entity}", "event_time": BASE + timedelta(days=day, seconds=day)}
        for entity, day in days
    ]
    cutoff = BASE + timedelta(days=400)
    rows = sorted(compute_group(group, events, [], cutoff=cutoff).to_pylist(), key=lambda row: row["event_time"])
    assert group.ttl_days == 90
    blank = {column.name: column.blank for column in group.features}
    hidden = 0
    for number in range(401):
        midnight = BASE + timedelta(days=number)
        for entity in ("e1", "e2", "e3"):
            known = [row for row in rows if row[group.entity.name] == entity and row["event_time"] < midnight]
            if known and group.is_too_old(known[-1]["event_time"], midnight):
                assert {name: known[-1][name] for name in blank} == blank
                hidden += 1
    assert hidden > 100
    counting = [row for row in rows if row[group.features[2].name]]
    for row in counting:
        last = row["event_time"] + timedelta(days=group.ttl_days)
        assert any(
            later[group.entity.name] == row[group.entity.name] and row["event_time"] < later["event_time"] <= last
            for later in rows
        ), "the row that follows comes within the lifetime"


@pytest.mark.parametrize("group", [USER_WINDOWS, ITEM_WINDOWS], ids=lambda group: group.name)
def test_a_late_start_reads_no_more_than_the_longest_window_and_gives_the_same_rows(
    group: FeatureGroup, compute_group: Callable[..., Any]
) -> None:
    events = long_log(12)
    start = BASE + timedelta(days=150)
    whole = compute_group(group, events, [], cutoff=CUTOFF).to_pylist()
    assert group.lookback_days == 90
    recent = [event for event in events if event["event_time"] >= start - timedelta(days=group.lookback_days)]
    assert len(recent) < len(events)
    expected = [row for row in whole if row["event_time"] >= start]
    for given in (events, recent):
        rows = compute_group(group, given, [], cutoff=CUTOFF, start=start).to_pylist()
        assert [row for row in rows if row["event_time"] >= start] == expected
