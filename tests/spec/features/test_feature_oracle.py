"""The features once more, by brute force from their definitions, on a random log full of ties; and no leaks."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.movielens import (
    FEATURE_GROUPS,
    ITEM_ACTIVITY,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_SEQUENCE,
    USER_SESSION,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_repo.contracts.features import FeatureGroup

pytestmark = pytest.mark.spark

BASE = datetime(1998, 1, 1, tzinfo=UTC)
CUTOFF = BASE + timedelta(days=2)
GENRES = ("Action", "Comedy", "Drama", "Horror", "Musical", "Sci-Fi", "War")
Rows = list[dict[str, Any]]


def random_log(seed: int) -> tuple[Rows, Rows]:
    """Return events in which most seconds hold several of one user or item, and some items come again; and items."""
    dice = random.Random(seed)
    items = [
        {
            "item_id": str(number),
            "title": "t",
            "release_year": dice.choice([None, 1950, 1999, 2001]),
            "genres": dice.sample(GENRES, dice.randint(0, 5)),
        }
        for number in range(25)
    ]
    events = {}
    for _ in range(500):
        user, item, second = (
            f"u{dice.randint(1, 12)}",
            str(dice.randint(0, 24)),
            dice.choice([*range(20), 3_000, 90_000, 90_001]),
        )
        events[user, item, second] = {
            "user_id": user,
            "item_id": item,
            "event_type": "rating",
            "value": dice.randint(1, 10) / 2,
            "event_time": BASE + timedelta(seconds=second),
        }
    shuffled = list(events.values())
    dice.shuffle(shuffled)
    return shuffled, items


def moments(values: list[Fraction]) -> tuple[float, float]:
    if not values:
        return -1.0, -1.0
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return float(np.float32(float(mean))), float(np.float32(math.sqrt(variance)))


def padded(values: list[Any], length: int, missing: object) -> list[Any]:
    return [*values[:length], *[missing] * (length - len(values))]


def user_row(known: Rows, items: dict[str, dict[str, Any]]) -> dict[str, Any]:
    latest = sorted(known, key=lambda event: (-event["event_time"].timestamp(), event["item_id"]))
    years = [Fraction(year) for event in known if (year := items[event["item_id"]]["release_year"]) is not None]
    likes = Counter(genre for event in known if event["value"] >= 4 for genre in items[event["item_id"]]["genres"])
    top = sorted(likes, key=lambda genre: (-likes[genre], genre))
    mean, std = moments([Fraction(event["value"]) for event in known])
    year_mean, year_std = moments(years)
    return {
        "user_last_items": padded([event["item_id"] for event in latest], 10, ""),
        "user_last_values": padded([event["value"] for event in latest], 10, -1.0),
        "user_event_count": len(known),
        "user_value_mean": mean,
        "user_value_std": std,
        "user_release_year_mean": year_mean,
        "user_release_year_std": year_std,
        "user_top_genres": padded(top, 5, ""),
    }


def session_row(known: Rows) -> dict[str, Any]:
    times = sorted(seconds(event) for event in known)
    sessions = [[times[0]]]
    for earlier, later in itertools.pairwise(times):
        if later - earlier > 1800:
            sessions.append([])
        sessions[-1].append(later)
    return {
        "user_first_event_time": times[0],
        "user_last_event_time": times[-1],
        "user_session_count": len(sessions),
        "user_session_event_count": len(sessions[-1]),
        "user_session_seconds": sessions[-1][-1] - sessions[-1][0],
    }


def sequence_row(known: Rows) -> dict[str, Any]:
    latest = sorted(known, key=lambda event: (-seconds(event), event["item_id"]))
    until = [[other for other in known if seconds(other) <= seconds(event)] for event in latest]
    return {
        "user_sequence_items": padded([event["item_id"] for event in latest], 50, ""),
        "user_sequence_times": padded([seconds(event) for event in latest], 50, 0),
        "user_sequence_types": padded([event["event_type"] for event in latest], 50, ""),
        "user_sequence_values": padded([event["value"] for event in latest], 50, -1.0),
        "user_sequence_sessions": padded([session_row(before)["user_session_count"] for before in until], 50, 0),
    }


def item_row(known: Rows) -> dict[str, Any]:
    mean, std = moments([Fraction(event["value"]) for event in known])
    times = [seconds(event) for event in known]
    decayed = sum(2.0 ** ((time - times[0]) / 86_400 / 14) for time in times)
    return {
        "item_event_count": len(known),
        "item_value_mean": mean,
        "item_value_std": std,
        "item_first_event_time": min(times),
        "item_last_event_time": max(times),
        "item_popular_until": pytest.approx(times[0] / 86_400 + 14 * math.log2(decayed), abs=0.001),
    }


def seconds(event: dict[str, Any]) -> int:
    return int(event["event_time"].timestamp())


def rows_after_each_second(key: str, events: Rows, describe: Callable[[Rows], dict[str, Any]]) -> Rows:
    moments_of_keys = sorted({(event[key], event["event_time"]) for event in events})
    return [
        {key: name, "event_time": time}
        | describe([event for event in events if event[key] == name and event["event_time"] <= time])
        for name, time in moments_of_keys
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_user_activity_is_what_brute_force_finds(seed: int, compute_group: Callable[..., Any]) -> None:
    events, items = random_log(seed)
    by_id = {item["item_id"]: item for item in items}
    expected = rows_after_each_second("user_id", events, lambda known: user_row(known, by_id))
    assert_same_rows(compute_group(USER_ACTIVITY, events, items), expected, "user_id")


def test_item_activity_is_what_brute_force_finds(compute_group: Callable[..., Any]) -> None:
    events, items = random_log(3)
    expected = rows_after_each_second("item_id", events, item_row)
    assert_same_rows(compute_group(ITEM_ACTIVITY, events, items), expected, "item_id")


@pytest.mark.parametrize(("group", "describe"), [(USER_SESSION, session_row), (USER_SEQUENCE, sequence_row)])
def test_sessions_and_sequences_are_what_brute_force_finds(
    group: FeatureGroup, describe: Callable[[Rows], dict[str, Any]], compute_group: Callable[..., Any]
) -> None:
    events, items = random_log(7)
    expected = rows_after_each_second("user_id", events, describe)
    assert_same_rows(compute_group(group, events, items), expected, "user_id")


def test_user_history_is_what_brute_force_finds(compute_group: Callable[..., Any]) -> None:
    events, items = random_log(4)
    expected = [
        {
            "user_id": user,
            "event_time": CUTOFF - timedelta(microseconds=1),
            "user_seen_items": sorted({event["item_id"] for event in events if event["user_id"] == user}),
        }
        for user in sorted({event["user_id"] for event in events})
    ]
    assert_same_rows(compute_group(USER_HISTORY, events, items), expected, "user_id")


def assert_same_rows(table: Any, expected: Rows, key: str) -> None:
    received = sorted(table.to_pylist(), key=lambda row: (row[key], row["event_time"]))
    assert len(received) == len(expected)
    for row, wanted in zip(received, expected, strict=True):
        assert row == wanted


@pytest.mark.parametrize("group", FEATURE_GROUPS)
def test_future_events_change_no_earlier_row(group: FeatureGroup, compute_group: Callable[..., Any]) -> None:
    events, items = random_log(5)
    border = BASE + timedelta(seconds=90_000)
    past = [event for event in events if event["event_time"] < border]
    future = [
        {**event, "value": 0.5, "event_time": CUTOFF + timedelta(seconds=number)} for number, event in enumerate(past)
    ]
    before = compute_group(group, past, items)
    if group.by_date:
        after = compute_group(group, events, items)
        kept = [row for row in after.to_pylist() if row["event_time"] < border]
        assert kept == before.to_pylist(), "events before the cutoff changed a row before them"
        assert after.num_rows > before.num_rows
    assert compute_group(group, past + future, items).equals(before), "events from the cutoff on were read"


def test_the_order_of_events_changes_nothing(compute_group: Callable[..., Any]) -> None:
    events, items = random_log(6)
    assert compute_group(USER_ACTIVITY, events, items).equals(compute_group(USER_ACTIVITY, events[::-1], items[::-1]))
