from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.feast_redis import (
    StoredValueError,
    decode_timestamp,
    decode_value,
    entity_key,
    feature_field,
    timestamp_field,
)
from serving.recommender.user_features import UserFeatures, decode_user, user_input
from tests.movielens import USER_ACTIVITY, USER_HISTORY, USER_PROFILE

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(1998, 4, 23, tzinfo=UTC)
STAMP = b"\x08\xd1\xf2\xf5\xa9\x03"  # 1998-04-22T05:00:01Z
GROUPS = (USER_ACTIVITY, USER_PROFILE, USER_HISTORY)
COLUMNS = {column.name: column for column in USER_ACTIVITY.features}


def strings(*values: str) -> bytes:
    content = b"".join(b"\n" + bytes([len(value)]) + value.encode() for value in values)
    return b"b" + bytes([len(content)]) + content


def test_the_key_is_the_one_that_was_seen_in_a_real_server() -> None:
    expected = (
        b"\x01\x00\x00\x00\x02\x00\x00\x00\x07\x00\x00\x00user_id\x02\x00\x00\x00\x03\x00\x00\x00\xc3\xa91ml_100k"
    )
    assert entity_key("ml_100k", "user_id", "é1") == expected
    assert timestamp_field("view_1a2b3c4d") == b"_ts:view_1a2b3c4d"
    assert len(feature_field("view_1a2b3c4d", "feature")) == 4


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (None, None),
        (b"", None),
        (b"\x12\x01M", "M"),
        (b"\x12\x00", ""),
        (b" \x02", 2),
        (b" \x00", 0),
        (b" " + b"\xff" * 9 + b"\x01", -1),
        (b"5\x00\x00`@", 3.5),
        (b"b\x0f\n\x05Drama\n\x00\n\x00\n\x00\n\x00", ["Drama", "", "", "", ""]),
        (b"b\x00", []),
        (b"\x82\x01\x00", []),
        (b"\x82\x01\n\n\x08\x00\x00\x80?\x00\x00\x00@", [1.0, 2.0]),
    ],
)
def test_values_as_they_were_seen_in_a_real_server(stored: bytes | None, value: object) -> None:
    assert decode_value(stored) == value


@pytest.mark.parametrize("stored", [b"\xff\xff", b"\x12\x05M", b"8\x01", b"junk"])
def test_other_bytes_are_refused_with_what_was_received(stored: bytes) -> None:
    with pytest.raises(StoredValueError, match="received"):
        decode_value(stored)


@given(st.binary(max_size=40))
def test_no_bytes_bring_the_decoder_down(stored: bytes) -> None:
    try:
        decode_value(stored)
        decode_timestamp(stored)
    except StoredValueError:
        pass


def test_timestamps() -> None:
    assert decode_timestamp(None) is None
    assert decode_timestamp(b"") == datetime(1970, 1, 1, tzinfo=UTC)
    assert decode_timestamp(STAMP) == datetime(1998, 4, 22, 5, 0, 1, tzinfo=UTC)


def decode(reply: Sequence[bytes | None], now: datetime) -> UserFeatures:
    return decode_user(GROUPS, reply, now, NOW)


def test_a_user_that_no_view_knows_is_unknown() -> None:
    user = decode([None] * sum(1 + len(group.features) for group in GROUPS), NOW)
    assert not user.known
    assert user.seen == ()
    assert user.missing == ("user_activity", "user_profile", "user_history")


def reply(*, activity: bool = True, history: bool = True) -> list[bytes | None]:
    values = b"\x82\x01\x0e\n\x0c" + np.array([5, 4, 3], dtype="<f4").tobytes()
    stored: dict[str, bytes | None] = {"user_profile": b"", "user_age": b"", "user_gender": b"\x12\x01F"}
    stored["user_occupation"] = b"\x12\x00"
    if activity:
        stored |= {"user_activity": STAMP, "user_last_items": strings("7", "", "9"), "user_last_values": values}
    if history:
        stored |= {"user_history": STAMP, "user_seen_items": strings("1", "7")}
    fields = (name for group in GROUPS for name in (group.name, *(f.name for f in group.features)))
    return [stored.get(name) for name in fields]


def test_what_was_seen_is_the_history_and_the_last_items_without_padding() -> None:
    user = decode(reply(), NOW)
    assert set(user.seen) == {"1", "7", "9"}
    assert user.values["user_gender"] == "F"
    assert user.values["user_age"] is None
    assert user.missing == ()
    assert set(decode(reply(history=False), NOW).seen) == {"7", "9"}


def test_liked_are_the_last_items_with_enough_stars() -> None:
    assert decode(reply(), NOW).liked(4.0) == ("7",)
    assert decode(reply(), NOW).liked(3.0) == ("7", "9")
    assert decode(reply(activity=False), NOW).liked(0.5) == ()


def test_a_group_without_the_user_is_named() -> None:
    user = decode(reply(activity=False), NOW)
    assert user.known
    assert user.missing == ("user_activity",)
    assert "user_event_count" not in user.values


def test_damage_where_no_answer_is_made_from_spoils_none() -> None:
    damaged = reply()
    damaged[2] = b"\xff"
    with pytest.raises(StoredValueError, match="materialize again"):
        decode(damaged, NOW)
    user = decode_user(GROUPS, damaged, NOW, NOW, {"user_activity"})
    assert user.missing == ("user_activity",)
    assert user.seen == ("1", "7")
    assert user.values["user_gender"] == "F"


@pytest.mark.parametrize(("ttl_days", "missing"), [(0, ()), (1, ()), (400, ())])
def test_features_within_their_lifetime_count(ttl_days: int, missing: tuple[str, ...]) -> None:
    groups = (replace(USER_ACTIVITY, ttl_days=ttl_days), *GROUPS[1:])
    assert decode_user(groups, reply(), NOW, NOW).missing == missing


def test_features_older_than_their_lifetime_count_as_missing_but_what_was_seen_stays_seen() -> None:
    groups = (replace(USER_ACTIVITY, ttl_days=1), *GROUPS[1:])
    now = datetime(1998, 4, 24, tzinfo=UTC)
    user = decode_user(groups, reply(history=False), now, datetime(1998, 4, 22, 6, tzinfo=UTC))
    assert user.missing == ("user_activity", "user_history")
    assert user.liked(0.5) == ()
    assert set(user.seen) == {"7", "9"}
    quiet = decode_user(groups, reply(history=False), now, NOW)
    assert quiet.missing == ("user_history",), "the refresh of a day ago would have brought a newer row"
    assert quiet.values == user.values


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("user_event_count", 7, [7]),
        ("user_event_count", None, [0]),
        ("user_value_mean", None, [-1.0]),
        ("user_top_genres", ["Drama"], [[b"Drama", b"", b"", b"", b""]]),
        ("user_top_genres", None, [[b""] * 5]),
        ("user_top_genres", list("abcdefg"), [[b"a", b"b", b"c", b"d", b"e"]]),
        ("user_last_values", [4.0], [[4.0, *[-1.0] * 9]]),
    ],
)
def test_model_inputs_are_padded_with_missing(name: str, value: object, expected: list[object]) -> None:
    array = user_input(COLUMNS[name], value)  # type: ignore[arg-type] # whatever was stored
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("user_event_count", "many"), ("user_top_genres", [1.5]), ("user_value_mean", ["x"]), ("user_value_mean", [])],
)
def test_a_value_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(StoredValueError, match=name):
        user_input(COLUMNS[name], value)  # type: ignore[arg-type] # on purpose


def test_history_that_is_no_list_of_ids_is_refused() -> None:
    bad = reply()
    bad[-1] = b" \x02"
    with pytest.raises(StoredValueError, match="user_seen_items"):
        decode(bad, NOW)
