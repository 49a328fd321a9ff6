"""What a user likes once more, by brute force from the definition: by Spark, by the fold, by questions."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import MOVIELENS, Schema
from pipelines.io.arrow import arrow_schema
from pipelines.questions.asked import likes_before
from pipelines.sources.mapping_file import read_mapping, shipped
from pipelines.stream.fold import UNKNOWN_ITEM, UserState, advance, liked_features
from tests.shop_log import shop_schema
from tests.spec.features.test_stream_and_batch import as_event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feature_repo.contracts.events import Event

BASE = datetime(2010, 12, 1, tzinfo=UTC)
CUTOFF = BASE + timedelta(days=2)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
RETAIL = read_mapping(shipped()["online-retail"])[1]
SHOP = replace(shop_schema(), item_attributes=(), user_attributes=())
Row = dict[str, Any]

SCHEMAS = {
    "stars": (MOVIELENS, [0.5, 3.5, 4.0, 4.5]),
    "bought, implicit": (replace(RETAIL, item_attributes=(), user_attributes=()), [1.0, 7.0]),
    "bought, returned, viewed": (SHOP, [1.0, 2.0]),
}
"""Schema without derived attributes, and values that its events may have, the threshold among them."""


def drawn_log(seed: int, schema: Schema, values: Sequence[float]) -> list[Row]:
    """Return events full of ties, of every type, some at the cutoff or after it; some seconds apart by microseconds."""
    dice = random.Random(seed)
    events = {}
    for _ in range(700):
        moment = BASE + timedelta(seconds=dice.choice([*range(12), 90_000, 172_800, 180_000]))
        event = {
            "user_id": f"u{dice.randrange(9)}",
            "item_id": f"i{dice.randrange(25)}",
            "event_type": dice.choice([each.name for each in schema.event_types]),
            "value": dice.choice(values),
            "event_time": moment + dice.choice([0, 0, 1, 999_999]) * MICROSECOND,
        }
        events[tuple(event[name] for name in EVENTS.key)] = event
    events["nobody's like"] = {**event, "user_id": "cold", "value": min(values), "event_time": BASE}
    if min(values) >= schema.positive.min_value and len(schema.event_types) == 1:
        del events["nobody's like"]
    return list(events.values())


def liked_by(user: str, events: Sequence[Row], schema: Schema) -> list[tuple[str, datetime]]:
    """Return what the definition says, by looking at every pair of item and event; nothing is capped."""
    likes = [
        (event["item_id"], event["event_time"])
        for event in events
        if event["user_id"] == user
        and event["event_type"] in schema.positive.event_types
        and event["value"] >= schema.positive.min_value
    ]
    latest = {(item, max(time for other, time in likes if other == item)) for item, _ in likes}
    return sorted(latest, key=lambda like: (EPOCH - like[1], like[0]))


def columns_of(likes: Sequence[tuple[str, datetime]]) -> Row:
    return {
        "user_liked_items": [item for item, _ in likes],
        "user_liked_times": [int((time - EPOCH).total_seconds()) for _, time in likes],
    }


@pytest.mark.spark
@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("cap", [1, 6, 1_000])
def test_spark_finds_what_brute_force_finds(name: str, cap: int, compute_group: Callable[..., Any]) -> None:
    schema, values = replace(SCHEMAS[name][0], liked_items=cap), SCHEMAS[name][1]
    log = drawn_log(cap, schema, values)
    table = compute_group(declared(schema).user_liked_items, log, [], cutoff=CUTOFF, schema=schema)
    known = [event for event in log if event["event_time"] < CUTOFF]
    assert len(known) < len(log), "or nothing shows that the future is unknown"
    likes = {event["user_id"]: liked_by(event["user_id"], known, schema) for event in known}
    assert table.num_rows == len(likes)
    assert {row.pop("user_id"): row for row in table.to_pylist()} == {
        user: {"event_time": CUTOFF - MICROSECOND, **columns_of(liked[:cap])} for user, liked in likes.items()
    }
    lengths = {len(liked) for liked in likes.values()}
    assert max(lengths) > cap or cap == 1_000, "somebody likes more than is kept"
    assert 0 in lengths or name == "bought, implicit", "somebody likes nothing, and has a row"


def test_questions_ask_about_the_same_likes() -> None:
    for schema, values in SCHEMAS.values():
        log = drawn_log(9, schema, values)
        with duckdb.connect() as connection:
            connection.register("events", pa.Table.from_pylist(log, arrow_schema(EVENTS)))
            likes = likes_before(connection, CUTOFF, schema.positive)
        pairs = zip(likes.user_ids[likes.users].tolist(), likes.item_ids[likes.items].tolist(), strict=True)
        ages = dict(zip(pairs, likes.age_days.tolist(), strict=True))
        known = [event for event in log if event["event_time"] < CUTOFF]
        assert ages == {
            (user, item): (CUTOFF - time) / timedelta(days=1)
            for user in {event["user_id"] for event in known}
            for item, time in liked_by(user, known, schema)
        }


EVENT = st.tuples(st.integers(0, 7), st.sampled_from([1.0, 3.5, 4.0, 5.0]), st.integers(0, 9), st.integers(0, 2))
"""Item, stars, second, and microsecond in it."""


def rating(item: int, stars: float, second: int, microsecond: int) -> Row:
    time = BASE + timedelta(seconds=second, microseconds=microsecond)
    return {"user_id": "ann", "item_id": f"i{item}", "event_type": "rating", "value": stars, "event_time": time}


def folded(state: UserState, events: Sequence[Event], schema: Schema) -> UserState:
    return advance(state, events, lambda _: UNKNOWN_ITEM, schema)


@settings(deadline=None, max_examples=300)
@given(drawn=st.lists(EVENT, max_size=30), cuts=st.lists(st.integers(0, 10), max_size=3), cap=st.integers(1, 9))
def test_the_fold_from_any_capped_list_gives_what_the_whole_log_gives(
    drawn: list[tuple[int, float, int, int]], cuts: list[int], cap: int
) -> None:
    """However often it begins from a list that was capped before: whatever fell off would not have come back."""
    schema = replace(MOVIELENS, liked_items=cap)
    rows = list({(item, second, us): rating(item, stars, second, us) for item, stars, second, us in drawn}.values())
    state = UserState()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 11], strict=True):
        low, high = (BASE + timedelta(seconds=second) for second in (start, end))
        state = folded(state, [as_event(row) for row in rows if low <= row["event_time"] < high], schema)
    assert liked_features(state) == columns_of(liked_by("ann", rows, schema)[:cap])


def test_a_like_that_enters_pushes_out_the_oldest_and_one_that_comes_again_nobody() -> None:
    schema = replace(MOVIELENS, liked_items=2)
    first = [as_event(rating(1, 4.0, 1, 0)), as_event(rating(2, 4.0, 2, 0))]
    full = folded(UserState(), first, schema)
    assert [item for item, _ in full.liked] == ["i2", "i1"], "the cap exactly reached"
    assert [item for item, _ in folded(full, [as_event(rating(1, 4.0, 3, 0))], schema).liked] == ["i1", "i2"]
    assert [item for item, _ in folded(full, [as_event(rating(3, 4.0, 3, 0))], schema).liked] == ["i3", "i2"]
    assert folded(full, [as_event(rating(1, 3.5, 3, 0))], schema).liked == full.liked, "below the threshold"
