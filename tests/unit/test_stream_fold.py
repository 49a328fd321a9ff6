"""The fold by itself: any cut of a log gives the same, and brute force from the definitions finds the same figures."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contracts.events import Event, key_id
from feature_repo.contracts.schemas import MOVIELENS, Attribute, EventType, Kind, Positive, Schema, ValueRange
from pipelines.stream.fold import (
    UNKNOWN_ITEM,
    ItemFacts,
    Sums,
    UserState,
    advance,
    features,
    mean,
    sequence_features,
    session_features,
    whole_steps,
)
from pipelines.stream.state_row import row_of, state_of

SHOP = Schema(
    event_types=(EventType("purchase"), EventType("return"), EventType("view", counted=False)),
    value=ValueRange(0, 1000, 0.01),
    positive=Positive(("purchase",), 1.0),
    item_attributes=(
        Attribute("price", Kind.NUMERIC, step=0.01),
        Attribute("colour", Kind.CATEGORICAL),
        Attribute("tags", Kind.MULTI_VALUED),
    ),
)
PRICES = (0.29, 1.1, 2.5, 19.99)
FACTS = {
    f"i{number}": ItemFacts(
        {"price": float(np.float32(PRICES[number]))} if number < 4 else {},
        {"colour": frozenset(["red", "blue"][number % 2 :][:1]), "tags": frozenset("abc"[: number % 4])},
    )
    for number in range(6)
}


def facts(item: str) -> ItemFacts:
    return FACTS.get(item, UNKNOWN_ITEM)


events = st.builds(
    lambda item, kind, value, second: Event(
        key_id("u", f"i{item}", kind, second), "u", f"i{item}", kind, float(np.float32(value / 100)), second
    ),
    st.integers(0, 7),
    st.sampled_from([event_type.name for event_type in SHOP.event_types]),
    st.integers(0, 100_000),
    st.integers(0, 12),
)
logs = st.lists(events, max_size=60, unique_by=lambda event: event.key)


def moments(values: list[Fraction]) -> tuple[float, float]:
    if not values:
        return -1.0, -1.0
    average = sum(values) / len(values)
    variance = sum((value - average) ** 2 for value in values) / len(values)
    return float(average), math.sqrt(variance)


def brute_force(log: list[Event]) -> dict[str, Any]:
    counted = [event for event in log if event.event_type != "view"]
    if not counted:
        return {}
    latest = sorted(counted, key=lambda event: (-event.event_time, event.item_id, event.event_type))[:10]
    values = [Fraction(round(event.value * 100), 100) for event in counted]
    prices = [
        Fraction(round(facts(event.item_id).numbers["price"] * 100), 100)
        for event in counted
        if facts(event.item_id).numbers
    ]
    liked = [event for event in counted if event.event_type == "purchase" and event.value >= 1]
    row: dict[str, Any] = {
        "user_last_items": [event.item_id for event in latest] + [""] * (10 - len(latest)),
        "user_last_values": [event.value for event in latest] + [-1.0] * (10 - len(latest)),
        "user_event_count": len(counted),
    }
    row["user_value_mean"], row["user_value_std"] = moments(values)
    row["user_price_mean"], row["user_price_std"] = moments(prices)
    for name in ("colour", "tags"):
        counts = Counter(term for event in liked for term in facts(event.item_id).terms.get(name, ()))
        top = sorted(counts, key=lambda term, counts=counts: (-counts[term], term))[:5]
        row[f"user_top_{name}"] = top + [""] * (5 - len(top))
    return row


@given(logs)
def test_brute_force_finds_the_same(log: list[Event]) -> None:
    row = features(advance(UserState(), log, facts, SHOP), SHOP)
    expected = brute_force(log)
    assert row.keys() == expected.keys()
    for name, value in row.items():
        if isinstance(value, float):
            assert value == pytest.approx(expected[name], rel=1e-6, abs=1e-6)
        else:
            assert value == expected[name], name


@given(logs, st.integers(0, 13))
def test_a_log_cut_at_any_time_gives_the_same(log: list[Event], cut: int) -> None:
    before, after = ([event for event in log if (event.event_time < cut) is early] for early in (True, False))
    whole = advance(UserState(), log, facts, SHOP)
    halfway = advance(UserState(), before, facts, SHOP)
    stored = state_of(row_of(halfway, SHOP), SHOP) if before else UserState()
    in_two = advance(stored, after[::-1], facts, SHOP)
    assert row_of(in_two, SHOP) == row_of(whole, SHOP)
    assert features(in_two, SHOP) == features(whole, SHOP)
    assert sequence_features(in_two) == sequence_features(whole)


@given(logs)
def test_a_sequence_is_what_was_done_each_in_the_session_it_was_in(log: list[Event]) -> None:
    """A pause of half an hour and one second between two seconds of the log, so that sessions begin and end."""
    spread = [replace(event, event_time=event.event_time * 901 * 1_000_000) for event in log]
    row = sequence_features(advance(UserState(), spread, facts, SHOP))
    counted = [event for event in spread if event.event_type != "view"]
    assert bool(row) == bool(counted)
    latest = sorted(counted, key=lambda event: (-event.event_time, event.item_id, event.event_type))[:50]
    for place, event in enumerate(latest):
        until = [other for other in counted if other.event_time <= event.event_time]
        sessions = session_features(advance(UserState(), until, facts, SHOP))["user_session_count"]
        received = [row[f"user_sequence_{name}"][place] for name in ("items", "times", "types", "values", "sessions")]
        assert received == [event.item_id, event.event_time // 1_000_000, event.event_type, event.value, sessions]
    blank = [("", 0, "", -1.0, 0)] * (50 - len(latest))
    assert not row or list(zip(*row.values(), strict=True))[len(latest) :] == blank


def test_whole_steps_round_halves_away_from_zero() -> None:
    assert [whole_steps(value, 1.0) for value in (0.5, 1.5, 2.5, -0.5, -2.5, 0.49999999999999994)] == [
        1,
        2,
        3,
        -1,
        -3,
        0,
    ]
    assert whole_steps(float(np.float32(4.7)), 0.1) == 47


def test_figures_are_those_that_float32_holds() -> None:
    assert mean(Sums(3, 10, 34), 0.5) == float(np.float32(10 * 0.5 / 3))
    assert features(UserState(), MOVIELENS) == {}
