"""An event as it is sent: what passes, and what each refusal says."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.events import LANDED, SENT, Event, RefusedError, check_event, key_id, stream_name
from feature_repo.contracts.schemas import MOVIELENS

NOW = datetime(1998, 4, 23, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "user_id": "196",
    "item_id": "242",
    "event_type": "rating",
    "value": 3.5,
    "event_time": "1998-04-22T23:10:38Z",
}


def check(raw: object) -> Event:
    return check_event(raw, MOVIELENS, {"242"}.__contains__, NOW)


def test_an_event_has_the_columns_of_the_lake_and_an_id() -> None:
    assert [column.name for column in SENT] == ["event_id", *EVENTS.column_names]
    assert [field.name for field in fields(Event)] == [column.name for column in SENT]
    assert LANDED.key == EVENTS.key
    assert set(LANDED.column_names) >= set(EVENTS.column_names)
    assert {column.dtype for column in SENT} <= set(Dtype)


def test_a_good_event_passes() -> None:
    event = check(GOOD)
    assert event.key == ("196", "242", "rating", 893286638000000)
    assert event.value == 3.5
    assert event.event_id == key_id(*event.key)


def test_the_id_is_the_senders_or_made_from_the_key() -> None:
    assert check({**GOOD, "event_id": "mine"}).event_id == "mine"
    assert check({**GOOD, "event_id": None}).event_id == check({**GOOD, "value": 1}).event_id
    assert check({**GOOD, "event_time": "1998-04-22T23:10:37Z"}).event_id != check(GOOD).event_id
    assert check({**GOOD, "event_time": "1998-04-23T01:10:38+02:00"}).event_id == check(GOOD).event_id


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"user_id": None}, "user_id", "a value"),
        ({"user_id": 196}, "user_id", "a string"),
        ({"user_id": ""}, "user_id", "1 to 128"),
        ({"user_id": "x" * 129}, "user_id", "1 to 128"),
        ({"user_id": "a\nb"}, "user_id", "control"),
        ({"item_id": "no such"}, "item_id", "catalogue"),
        ({"event_type": "click"}, "event_type", "rating"),
        ({"event_type": ["rating"]}, "event_type", "rating"),
        ({"value": "4"}, "value", "0.5 to 5"),
        ({"value": True}, "value", "0.5 to 5"),
        ({"value": 0}, "value", "0.5 to 5"),
        ({"value": 5.5}, "value", "0.5 to 5"),
        ({"value": 3.3}, "value", "steps of 0.5"),
        ({"value": float("nan")}, "value", "0.5 to 5"),
        ({"value": float("inf")}, "value", "0.5 to 5"),
        ({"value": float("-inf")}, "value", "0.5 to 5"),
        ({"value": 1.7976931348623157e308}, "value", "0.5 to 5"),
        ({"value": -1e308}, "value", "0.5 to 5"),
        ({"value": 5e-324}, "value", "0.5 to 5"),
        ({"value": 10**400}, "value", "0.5 to 5"),
        ({"event_time": 893286638}, "event_time", "ISO 8601"),
        ({"event_time": "yesterday"}, "event_time", "ISO 8601"),
        ({"event_time": "1998-04-22T23:10:38"}, "event_time", "distance from UTC"),
        ({"event_time": "1998-04-23T00:00:01Z"}, "event_time", "platform's clock, 1998-04-23T00:00:00"),
        ({"event_time": "1969-12-31T23:59:59Z"}, "event_time", "from 1970"),
        ({"event_time": "0001-01-01T00:00:00+23:59"}, "event_time", "from 1970"),
        ({"event_time": "9999-12-31T23:59:59-23:59"}, "event_time", "platform's clock"),
        ({"event_time": "1998-04-22T23:10:38Z\0and more"}, "event_time", "ISO 8601"),
        ({"event_time": "\ud800"}, "event_time", "ISO 8601"),
        ({"event_id": ""}, "event_id", "1 to 128"),
        ({"event_id": "\ud800"}, "event_id", "1 to 128"),
        ({"user_id": "a\udfff"}, "user_id", "1 to 128"),
        ({"rating": 4}, "event", "no field but event_id, user_id"),
    ],
)
def test_a_bad_field_is_refused_by_name(change: dict[str, Any], field: str, expected: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check({**GOOD, **change})
    refusal = caught.value.refusal
    assert refusal.object == field
    assert expected in refusal.expected
    assert all(asdict(refusal).values())
    (received,) = change.values()
    assert refusal.received.startswith(repr(received)[:60]) or field == "event"


def test_a_value_that_is_almost_a_whole_step_is_that_step() -> None:
    assert check({**GOOD, "value": 3.5000004}).value == 3.5, "as the lake's checks want it"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (3.3, "Send 3.5, "),
        (-1, "Send 0.5, "),
        (1e300, "Send 5, "),
        (1e308, "Send 5, "),
        (-1e308, "Send 0.5, "),
        (10**400, "Send 5, "),
        ("4", "Send 0.5, say"),
    ],
)
def test_the_remedy_is_a_value_that_passes(value: object, remedy: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check({**GOOD, "value": value})
    assert caught.value.refusal.remedy.startswith(remedy)


def test_what_no_message_can_show_is_refused_all_the_same() -> None:
    for received in (nested(5000), 10**5000):
        with pytest.raises(RefusedError) as caught:
            check({**GOOD, "value": received})
        assert "too long to show" in caught.value.refusal.received


def nested(depth: int) -> list[Any]:
    lists: list[Any] = []
    for _ in range(depth):
        lists = [lists]
    return lists


@pytest.mark.parametrize("raw", [None, 1, "event", [], [GOOD]])
def test_what_is_no_object_is_refused(raw: object) -> None:
    with pytest.raises(RefusedError, match="expected an object"):
        check(raw)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(),
    st.text(max_size=9),
    st.lists(st.none()),
    st.just({}),
)


@given(st.sampled_from([column.name for column in SENT]), ANYTHING)
def test_whatever_is_sent_passes_or_is_refused(name: str, value: object) -> None:
    try:
        event = check({**GOOD, name: value})
    except RefusedError as error:
        refusal = asdict(error.refusal)
    else:
        refusal = {"object": name}
        assert Event.from_fields(event.fields()) == event
    assert refusal["object"] == name
    assert all(refusal.values())


def test_entries_without_the_fields_are_no_events() -> None:
    whole = check(GOOD).fields()
    for name in whole:
        with pytest.raises(ValueError, match=name):
            Event.from_fields({key: value for key, value in whole.items() if key != name})
    with pytest.raises(ValueError, match="float"):
        Event.from_fields({**whole, "value": "many"})
    with pytest.raises(ValueError, match="event_id: expected an id"):
        Event.from_fields({**whole, "event_id": "\ud800"})


def test_namespaces_have_streams_of_their_own() -> None:
    assert stream_name("ml-100k") == "kestrel:{ml-100k}:events"
    with pytest.raises(ValueError, match="namespace"):
        stream_name("a}b")
