"""Who is asked at an origin, and what counts as an answer: by hand, and against loops over random logs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.questions import ANSWERS, QUESTIONS, Asked, Role
from feature_repo.contracts.schemas import MOVIELENS, Positive
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import duckdb_session
from pipelines.questions.asked import AskedUsers, ask, first_and_last_event, likes_before, seen_before
from pipelines.questions.origins import Origin
from tests.lake_world import DAY_ONE, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import duckdb

    from pipelines.questions.asked import Likes
    from tests.lake_world import Row

    Log = Callable[[list[Row]], duckdb.DuckDBPyConnection]

LIKED = MOVIELENS.positive
BOUGHT_OR_WISHED = Positive(("purchase", "wish"), 1.0)
EVERYBODY = 100
NAMES = ("user_ids", "item_ids", "users", "items", "age_days")


def pairs(likes: Likes) -> list[tuple[str, str]]:
    """Return user and item of each like."""
    return list(zip(likes.user_ids[likes.users].tolist(), likes.item_ids[likes.items].tolist(), strict=True))


def midnight(day: int) -> datetime:
    return DAY_ONE + timedelta(days=day)


def origin_at(day: int, days: int = 5) -> Origin:
    return Origin(midnight(day), midnight(day + days), Role.TEST)


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    """Give what makes rows the view `events` of a DuckDB session: one for all, a new one costs more than it does."""
    with duckdb_session("200MB") as connection:

        def logged(rows: list[Row]) -> duckdb.DuckDBPyConnection:
            connection.register("events", pa.Table.from_pylist(rows, schema=arrow_schema(EVENTS)))
            return connection

        yield logged


@pytest.fixture(scope="module")
def asked_at_ten(log: Log) -> Callable[..., AskedUsers]:
    def asked(rows: list[Row], positive: Positive = LIKED, most_users: int = EVERYBODY) -> AskedUsers:
        return ask(log(rows), origin_at(10), positive, most_users)

    return asked


def answers_of(asked: AskedUsers) -> list[tuple[str, str, float, int]]:
    """Return user, item, days after DAY_ONE, is_new."""
    days = [(row["liked_time"] - DAY_ONE) / timedelta(days=1) for row in asked.answers.to_pylist()]
    return [
        (row["user_id"], row["item_id"], day, row["is_new"])
        for row, day in zip(asked.answers.to_pylist(), days, strict=True)
    ]


def users_of(asked: AskedUsers) -> list[str]:
    users: list[str] = asked.questions.column("user_id").to_pylist()
    count = len(users) // 2
    assert users[:count] == users[count:] == sorted(set(users))
    return users[:count]


def test_what_a_user_likes_next_is_an_answer(asked_at_ten):
    asked = asked_at_ten([
        event("ann", "old", 3.0, day=1),
        event("ann", "x", 4.0, day=10),
        event("ann", "y", 5.0, day=14.99),
        event("bob", "y", 5.0, day=2),
    ])  # fmt: skip
    assert answers_of(asked) == [("ann", "x", 10.0, 1), ("ann", "y", pytest.approx(14.99), 0)]
    assert asked.questions.to_pylist() == [
        {"question_id": 0, "user_id": "ann", "asked": "at_origin", "asked_time": midnight(10), "history": 1},
        {"question_id": 1, "user_id": "ann", "asked": "before_next", "asked_time": midnight(10), "history": 1},
    ]
    assert asked.counted == {"users": 1, "asked": 1, "answers": 2, "new_items": 1, "repeats": 0.0}


def test_below_the_threshold_is_no_like(asked_at_ten):
    asked = asked_at_ten([event("ann", "x", 3.5, day=11), event("ann", "y", 4.0, day=12), event("bob", "x", 1.0, 11)])
    assert answers_of(asked) == [("ann", "y", 12.0, 1)]


def test_the_threshold_is_compared_as_values_are_stored(asked_at_ten):
    stored = float(np.float32(0.1))
    asked = asked_at_ten([event("ann", "x", stored, day=11)], Positive(("rating",), 0.1))
    assert [row[1] for row in answers_of(asked)] == ["x"]


def test_only_positive_event_types_are_likes(asked_at_ten):
    rows = [
        {**event("ann", "bought", 1.0, day=11), "event_type": "purchase"},
        {**event("ann", "viewed", 1.0, day=11), "event_type": "view"},
        {**event("bob", "wished", 2.0, day=12), "event_type": "wish"},
        {**event("cem", "viewed", 1.0, day=12), "event_type": "view"},
    ]
    asked = asked_at_ten(rows, BOUGHT_OR_WISHED)
    assert answers_of(asked) == [("ann", "bought", 11.0, 1), ("bob", "wished", 12.0, 1)]


def test_quotes_in_names_of_event_types(asked_at_ten):
    rows = [{**event("ann", "x", 1.0, day=11), "event_type": "l'achat {1}"}, event("ann", "y", 5.0, day=11)]
    assert [row[1] for row in answers_of(asked_at_ten(rows, Positive(("l'achat {1}",), 1.0)))] == ["x"]


@pytest.mark.parametrize("value", [5.0, 1.0])
def test_any_event_before_the_origin_makes_a_like_a_repeat(asked_at_ten, value):
    asked = asked_at_ten([
        event("ann", "x", value, day=9.999),
        event("ann", "x", 5.0, day=11),
        event("ann", "y", 5.0, day=11),
        event("ann", "y", 5.0, day=12),
        event("bob", "x", 5.0, day=11),
    ])  # fmt: skip
    assert answers_of(asked) == [("ann", "y", 11.0, 1), ("bob", "x", 11.0, 0)]
    assert asked.counted["repeats"] == pytest.approx(1 / 3)
    assert asked.counted["new_items"] == 1


def test_who_likes_only_what_they_had_is_not_asked(asked_at_ten):
    asked = asked_at_ten([event("ann", "x", 1.0, day=1), event("ann", "x", 5.0, day=11)])
    assert users_of(asked) == []
    assert asked.counted == {"users": 0, "asked": 0, "answers": 0, "new_items": 0, "repeats": 1.0}


def test_an_item_that_is_disliked_first_and_liked_later_after_the_origin_is_an_answer(asked_at_ten):
    asked = asked_at_ten([event("ann", "x", 1.0, day=10.5), event("ann", "x", 5.0, day=13)])
    assert answers_of(asked) == [("ann", "x", 13.0, 1)]


def test_likes_from_the_end_on_are_no_answers(asked_at_ten):
    late = [event("ann", "x", 5.0, day=15), event("bob", "x", 5.0, day=14.999)]
    assert users_of(asked_at_ten(late)) == ["bob"]


def test_the_second_question_is_at_the_first_event_from_the_origin_on(asked_at_ten):
    asked = asked_at_ten([
        event("ann", "w", 5.0, day=9),
        event("ann", "x", 1.0, day=10.25),
        event("ann", "y", 5.0, day=12),
        event("bob", "y", 5.0, day=13.5),
    ])  # fmt: skip
    times = [(row["user_id"], row["asked"], row["asked_time"]) for row in asked.questions.to_pylist()]
    assert times == [
        ("ann", "at_origin", midnight(10)),
        ("bob", "at_origin", midnight(10)),
        ("ann", "before_next", midnight(10) + timedelta(hours=6)),
        ("bob", "before_next", midnight(13) + timedelta(hours=12)),
    ]


@pytest.mark.parametrize("role", [Role.TRAIN, Role.VALIDATION])
def test_where_nothing_is_judged_users_are_asked_at_the_origin_alone(log, role):
    rows = [event("bob", "y", 5.0, day=13.5), event("ann", "x", 5.0, day=11)]
    asked = ask(log(rows), replace(origin_at(10), role=role), LIKED, EVERYBODY)
    kinds = [(row["question_id"], row["user_id"], row["asked"]) for row in asked.questions.to_pylist()]
    assert kinds == [(0, "ann", "at_origin"), (1, "bob", "at_origin")]
    assert asked.users.to_pylist() == ["ann", "bob"]


def test_users_without_a_history_are_asked(asked_at_ten):
    asked = asked_at_ten([event("new", "x", 5.0, day=11), event("old", "y", 1.0, day=1), event("old", "x", 5.0, 11)])
    assert asked.questions.column("history").to_pylist() == [0, 1, 0, 1]
    assert users_of(asked) == ["new", "old"]


@pytest.mark.parametrize(
    "rows",
    [[], [event("ann", "x", 1.0, day=11)], [event("ann", "x", 5.0, day=9)], [event("ann", "x", 5.0, day=30)]],
    ids=["no event", "no like", "none after", "none in time"],
)
def test_nobody_likes_anything_new(asked_at_ten, rows):
    asked = asked_at_ten(rows)
    assert asked.questions.schema == arrow_schema(QUESTIONS)
    assert asked.answers.schema == arrow_schema(ANSWERS)
    assert (len(asked.questions), len(asked.answers)) == (0, 0)
    assert asked.counted == {"users": 0, "asked": 0, "answers": 0, "new_items": 0, "repeats": None}


def many(users: int) -> list[Row]:
    return [event(f"user {number:03}", item, 5.0, day=11) for number in range(users) for item in ("x", "y")]


def test_of_too_many_users_a_sample_is_asked_that_does_not_depend_on_the_order_of_the_log(asked_at_ten):
    rows = many(60)
    some = asked_at_ten(rows, most_users=20)
    again = asked_at_ten(rows[::-1], most_users=20)
    assert some.questions.equals(again.questions)
    assert some.answers.equals(again.answers)
    assert len(users_of(some)) == 20
    assert some.answers.column("user_id").to_pylist() == [user for user in users_of(some) for _ in range(2)]
    assert some.counted == {"users": 60, "asked": 20, "answers": 120, "new_items": 2, "repeats": 0.0}


def test_a_smaller_sample_is_part_of_a_larger_one_and_not_the_first_by_name(asked_at_ten):
    rows = many(60)
    samples = [set(users_of(asked_at_ten(rows, most_users=most))) for most in (1, 10, 30, 60)]
    assert [len(sample) for sample in samples] == [1, 10, 30, 60]
    assert samples[0] < samples[1] < samples[2] < samples[3]
    assert samples[1] != {f"user {number:03}" for number in range(10)}


def test_origins_of_one_connection_do_not_see_each_other_s_tables(log):
    rows = [event("ann", "x", 5.0, day=3), event("bob", "x", 5.0, day=11), event("ann", "y", 5.0, day=12)]
    connection = log(rows)
    early = ask(connection, origin_at(2), LIKED, EVERYBODY)
    late = ask(connection, origin_at(10), LIKED, EVERYBODY)
    assert answers_of(early) == [("ann", "x", 3.0, 1)]
    assert answers_of(late) == [("ann", "y", 12.0, 1), ("bob", "x", 11.0, 0)]


def test_the_first_and_the_last_event_of_a_log(log):
    found = first_and_last_event(log([event("ann", "x", day=3.5), event("bob", "x", day=2.25)]))
    assert found == (DAY_ONE + timedelta(days=2.25), DAY_ONE + timedelta(days=3.5))


def test_likes_have_the_age_of_the_last_time_before_the_origin(log):
    rows = [
        event("bob", "x", 4.0, day=9),
        event("ann", "x", 4.0, day=2),
        event("ann", "x", 5.0, day=8.5),
        event("ann", "x", 1.0, day=9.5),
        event("ann", "x", 5.0, day=10),
        event("ann", "a", 3.5, day=3),
        event("ann", "b", 4.0, day=3),
    ]
    likes = likes_before(log(rows), midnight(10), LIKED)
    found = [(*pair, age) for pair, age in zip(pairs(likes), likes.age_days.tolist(), strict=True)]
    assert found == [("ann", "b", 7.0), ("ann", "x", 1.5), ("bob", "x", 1.0)]


def test_nothing_was_liked(log):
    likes = likes_before(log([event("ann", "x", 1.0)]), midnight(10), LIKED)
    assert (len(likes.users), len(likes.items), len(likes.age_days)) == (0, 0, 0)
    assert likes.age_days.dtype == np.float64


def test_seen_is_every_event_of_some_users_before_the_origin(log):
    rows = [
        event("ann", "y", 1.0, day=1),
        event("ann", "y", 5.0, day=2),
        event("ann", "x", 5.0, day=3),
        event("ann", "z", 5.0, day=10),
        event("bob", "x", 5.0, day=3),
        event("cem", "x", 5.0, day=9.99),
    ]
    seen = seen_before(log(rows), midnight(10), pa.array(["ann", "cem", "nobody"]))
    none = seen_before(log(rows), midnight(10), pa.array([], pa.string()))
    assert seen.to_pylist() == [
        {"user_id": "ann", "item_id": "x"},
        {"user_id": "ann", "item_id": "y"},
        {"user_id": "cem", "item_id": "x"},
    ]
    assert len(none) == 0


events = st.builds(
    lambda user, item, kind, value, hours: {
        **event(f"u{user}", f"i{item}", value, day=hours / 24),
        "event_type": kind,
    },
    st.integers(0, 5),
    st.integers(0, 7),
    st.sampled_from(["purchase", "wish", "view"]),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(0, 16 * 24),
)
logs = st.lists(events, max_size=60)


def by_loops(rows: list[Row], origin: Origin, positive: Positive) -> dict[str, Any]:
    """Return what `ask` should find, by walking through the log."""
    had: dict[str, set[str]] = defaultdict(set)
    history: dict[str, int] = defaultdict(int)
    following: dict[str, datetime] = {}
    liked: dict[tuple[str, str], datetime] = {}
    for row in sorted(rows, key=lambda row: row["event_time"]):
        user, item, time = row["user_id"], row["item_id"], row["event_time"]
        if time < origin.moment:
            had[user].add(item)
            history[user] += 1
            continue
        following.setdefault(user, time)
        if time < origin.end and row["event_type"] in positive.event_types and row["value"] >= positive.min_value:
            liked.setdefault((user, item), time)
    known = {item for items in had.values() for item in items}
    answers = {pair: time for pair, time in liked.items() if pair[1] not in had[pair[0]]}
    users = sorted({user for user, _ in answers})
    return {
        "answers": [(*pair, answers[pair], int(pair[1] not in known)) for pair in sorted(answers)],
        "questions": [(user, Asked.AT_ORIGIN.value, origin.moment, history[user]) for user in users]
        + [(user, Asked.BEFORE_NEXT.value, following[user], history[user]) for user in users],
        "counted": {
            "users": len(users),
            "asked": len(users),
            "answers": len(answers),
            "new_items": len({item for _, item in answers} - known),
            "repeats": (len(liked) - len(answers)) / len(liked) if liked else None,
        },
    }


@settings(max_examples=40, deadline=None)
@given(logs, st.integers(0, 15), st.integers(1, 6))
def test_questions_of_random_logs_are_what_loops_find(log, rows, day, days):
    origin = origin_at(day, days)
    asked = ask(log(rows), origin, BOUGHT_OR_WISHED, EVERYBODY)
    expected = by_loops(rows, origin, BOUGHT_OR_WISHED)
    assert [tuple(row.values()) for row in asked.answers.to_pylist()] == expected["answers"]
    questions = asked.questions.to_pylist()
    assert [tuple(row.values())[1:] for row in questions] == expected["questions"]
    assert [row["question_id"] for row in questions] == list(range(len(questions)))
    assert asked.counted == expected["counted"]


@settings(max_examples=25, deadline=None)
@given(logs, st.integers(0, 15))
def test_what_random_logs_hold_before_an_origin_is_what_loops_find(log, rows, day):
    moment = midnight(day)
    latest: dict[tuple[str, str], datetime] = {}
    seen = set()
    for row in rows:
        pair = (row["user_id"], row["item_id"])
        if row["event_time"] >= moment:
            continue
        seen.add(pair)
        if row["event_type"] != "view" and row["value"] >= 1.0:
            latest[pair] = max(latest.get(pair, row["event_time"]), row["event_time"])
    likes = likes_before(log(rows), moment, BOUGHT_OR_WISHED)
    found = seen_before(log(rows), moment, pa.array(["u0", "u1", "u2"]))
    assert pairs(likes) == sorted(latest)
    assert likes.item_ids.tolist() == sorted({what for _, what in latest})
    assert likes.age_days.tolist() == [
        pytest.approx((moment - latest[pair]) / timedelta(days=1)) for pair in sorted(latest)
    ]
    expected = sorted(pair for pair in seen if pair[0] in {"u0", "u1", "u2"})
    assert [tuple(row.values()) for row in found.to_pylist()] == expected


@settings(max_examples=25, deadline=None)
@given(logs, logs)
def test_what_is_known_at_an_origin_does_not_change_with_what_happens_later(log, rows, more):
    later = [{**row, "event_time": row["event_time"] + timedelta(days=8)} for row in more]
    moment = midnight(8)
    users = pa.array([f"u{number}" for number in range(6)])
    one, other = (likes_before(log(each), moment, BOUGHT_OR_WISHED) for each in (rows, rows + later))
    seen, still = (seen_before(log(each), moment, users) for each in (rows, rows + later))
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in NAMES)
    assert seen.equals(still)


@settings(max_examples=15, deadline=None)
@given(logs)
def test_the_history_of_who_is_asked_does_not_change_with_the_end_of_the_answers(log, rows):
    short = ask(log(rows), origin_at(8, 2), BOUGHT_OR_WISHED, EVERYBODY)
    long = ask(log(rows), origin_at(8, 6), BOUGHT_OR_WISHED, EVERYBODY)
    assert set(users_of(short)) <= set(users_of(long))
    histories = {row["user_id"]: row["history"] for row in long.questions.to_pylist()}
    assert all(histories[row["user_id"]] == row["history"] for row in short.questions.to_pylist())
