"""Who follows whom once more, by brute force from the definitions; and no leaks."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.features import CIRCLE_ITEMS, declared
from feature_repo.contracts.schemas import MOVIELENS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.spark

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BASE = datetime(1998, 1, 1, tzinfo=UTC)
CUTOFF = BASE + timedelta(days=4)
DAY, MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
FOLLOWED = replace(MOVIELENS, has_relations=True)
FEATURES = declared(FOLLOWED)
Rows = list[dict[str, Any]]


def random_world(seed: int, items: int = 90) -> tuple[Rows, Rows]:
    """Return events full of ties, more likes than a circle keeps, and relations; some lie at the cutoff or after it."""
    dice = random.Random(seed)
    moments = [BASE + timedelta(hours=hours) for hours in (0, 0, 23, 24, 47, 48, 95, 96, 120)]
    events = {}
    for _ in range(900):
        event = {
            "user_id": f"u{dice.randint(1, 9)}",
            "item_id": f"i{dice.randrange(items)}",
            "event_type": "rating",
            "value": dice.choice([1.0, 3.5, 4.0, 5.0]),
            "event_time": dice.choice(moments),
        }
        events[event["user_id"], event["item_id"], event["event_time"]] = event
    pairs = {(dice.randint(1, 12), dice.randint(1, 12)) for _ in range(40)}
    relations = [
        {"user_id": f"u{user}", "other_user_id": f"u{other}", "since": dice.choice([EPOCH, *moments])}
        for user, other in sorted(pairs)
        if user != other
    ]
    return list(events.values()), relations


def brute_counts(events: Rows, relations: Rows) -> dict[tuple[str, datetime], tuple[int, int]]:
    """Return (user, last moment of a day) → followed and followers, for the days on which something happens."""
    known = [row for row in relations if row["since"] < CUTOFF]
    firsts: dict[str, datetime] = {}
    for event in events:
        if event["event_time"] < CUTOFF:
            firsts[event["user_id"]] = min(event["event_time"], firsts.get(event["user_id"], CUTOFF))
    moments = {*firsts.items()}
    moments |= {(row[side], row["since"]) for row in known for side in ("user_id", "other_user_id")}
    return {
        (user, end): (
            sum(row["user_id"] == user and row["since"] <= end for row in known),
            sum(row["other_user_id"] == user and row["since"] <= end for row in known),
        )
        for user, moment in moments
        for end in (EPOCH + ((moment - EPOCH) // DAY + 1) * DAY - MICROSECOND,)
    }


def brute_circle(user: str, events: Rows, relations: Rows) -> list[str]:
    others = {row["other_user_id"] for row in relations if row["user_id"] == user and row["since"] < CUTOFF}
    latest: dict[str, datetime] = {}
    for event in events:
        if event["user_id"] in others and event["value"] >= 4 and event["event_time"] < CUTOFF:
            latest[event["item_id"]] = max(event["event_time"], latest.get(event["item_id"], EPOCH))
    return sorted(latest, key=lambda item: (EPOCH - latest[item], item))[:CIRCLE_ITEMS]


@pytest.mark.parametrize("seed", [1, 2])
def test_relations_are_what_brute_force_finds(seed: int, compute_group: Callable[..., Any]) -> None:
    events, relations = random_world(seed)
    table = compute_group(FEATURES.user_relations, events, [], cutoff=CUTOFF, schema=FOLLOWED, relations=relations)
    received = {
        (row["user_id"], row["event_time"]): (row["user_followed_count"], row["user_follower_count"])
        for row in table.to_pylist()
    }
    assert len(received) == table.num_rows
    assert received == brute_counts(events, relations)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_circle_is_what_brute_force_finds(seed: int, compute_group: Callable[..., Any]) -> None:
    events, relations = random_world(seed)
    table = compute_group(FEATURES.user_circle, events, [], cutoff=CUTOFF, schema=FOLLOWED, relations=relations)
    received = {row["user_id"]: row["user_circle_items"] for row in table.to_pylist()}
    everybody = {event["user_id"] for event in events if event["event_time"] < CUTOFF}
    everybody |= {row[side] for row in relations if row["since"] < CUTOFF for side in ("user_id", "other_user_id")}
    assert received == {user: brute_circle(user, events, relations) for user in everybody}
    assert any(len(items) == CIRCLE_ITEMS for items in received.values()), "a circle is cut somewhere"
    assert {row["event_time"] for row in table.to_pylist()} == {CUTOFF - MICROSECOND}


@pytest.mark.parametrize("name", ["user_relations", "user_circle"])
def test_what_happens_later_changes_no_earlier_row(name: str, compute_group: Callable[..., Any]) -> None:
    group = getattr(FEATURES, name)
    events, relations = random_world(3)
    past = [event for event in events if event["event_time"] < CUTOFF]
    past_relations = [row for row in relations if row["since"] < CUTOFF]
    assert len(past) < len(events)
    assert len(past_relations) < len(relations)
    given = {"cutoff": CUTOFF, "schema": FOLLOWED}
    with_future = compute_group(group, events, [], relations=relations, **given)
    assert with_future.equals(compute_group(group, past, [], relations=past_relations, **given))
    later = compute_group(group, events, [], relations=relations, cutoff=CUTOFF + 30 * DAY, schema=FOLLOWED)
    if name == "user_relations":
        earlier = [row for row in later.to_pylist() if row["event_time"] < CUTOFF]
        assert earlier == with_future.to_pylist()
    assert not later.equals(with_future)
