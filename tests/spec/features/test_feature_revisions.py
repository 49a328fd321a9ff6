"""Whoever changes how a feature's values are computed raises its revision, so that its view gets another name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.io.arrow import content_sha256

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.spark

BASE = datetime(1998, 1, 1, tzinfo=UTC)
GENRES = ("Action", "Comedy", "Drama", "Horror", "Musical", "Sci-Fi", "War")

FOLLOWED = replace(MOVIELENS, has_relations=True)

GOLDEN: dict[str, tuple[str, str]] = {
    "user_last_items": ("4bfd3b33", "fd4d8c0c9f72a078"),
    "user_last_values": ("af4bf7b0", "63091277e606b6be"),
    "user_event_count": ("e450d523", "24e8f70fa3e7b42f"),
    "user_value_mean": ("abfe1606", "69ec8b0bb8740d3b"),
    "user_value_std": ("da97c59e", "02791f312ff94b59"),
    "user_release_year_mean": ("52cbfda9", "7cfb366e64b688fe"),
    "user_release_year_std": ("c624e107", "6cb19d43a2050f76"),
    "user_top_genres": ("40fe578a", "467de7a72ac7e268"),
    "user_first_event_time": ("0c85570e", "3012adac1c24b395"),
    "user_last_event_time": ("61395e8f", "6336db1d5d705815"),
    "user_session_count": ("8cd32952", "f7001484962acd86"),
    "user_session_event_count": ("f6b6d87d", "ec17eb766e4cdd00"),
    "user_session_seconds": ("8f8f8f34", "bc26be199a4172bd"),
    "user_age": ("4f229084", "94a48cac0f345c91"),
    "user_gender": ("1468591c", "b2d678c8d61a0eb4"),
    "user_occupation": ("a56b07ba", "8895673bbbe7d608"),
    "item_event_count": ("8c13f778", "8b3848a1733b0969"),
    "item_value_mean": ("88c7348a", "7b996f4e8dfefea2"),
    "item_value_std": ("2f176d07", "c70a812c158f9d8b"),
    "item_first_event_time": ("ec51367c", "abb2adbb1a2dc86c"),
    "item_last_event_time": ("59e2d224", "8f598b0395ce12a8"),
    "item_popular_until": ("06832712", "695821dc8a0720ae"),
    "item_release_year": ("959c9aec", "241bf475e9600cf1"),
    "item_genres": ("1a4b7209", "48202fd97213bae7"),
    "user_event_count_7d": ("caea4adf", "a70edad7ebe150f5"),
    "user_event_count_30d": ("1a736f27", "7af2ebe4bc6527b8"),
    "user_event_count_90d": ("18c9daef", "56432befeaa28335"),
    "user_value_mean_7d": ("5c00165d", "0fc03a83910c6b4d"),
    "user_value_mean_30d": ("22e8346c", "dc436a15931fb140"),
    "user_value_mean_90d": ("28b7f9ea", "fa870901f75d8d9c"),
    "item_event_count_7d": ("8b34d222", "96d0a98a28de02db"),
    "item_event_count_30d": ("aac8e337", "630ae6f0a8f8cd91"),
    "item_event_count_90d": ("3996e519", "269eaec50d304fc7"),
    "item_value_mean_7d": ("f48e3a92", "a467342b636f927c"),
    "item_value_mean_30d": ("9b1076dd", "93677b179c023722"),
    "item_value_mean_90d": ("dd020b82", "5cf77aaa1b7b9462"),
    "item_trend": ("64b2a1a7", "b236d643d48fff63"),
    "user_sequence_items": ("395a6aae", "393ba53ad0553356"),
    "user_sequence_times": ("a66cddc0", "12c5322a90cda821"),
    "user_sequence_types": ("ae55fa54", "9c44a738abe8b371"),
    "user_sequence_values": ("1adfa216", "8f4495e59124cc96"),
    "user_sequence_sessions": ("fb5175f1", "3a407c92cdae7b48"),
    "user_seen_items": ("39da0c6a", "e50646f472cd051a"),
    "user_liked_items": ("eef142bb", "c4fe18d27dcd1726"),
    "user_liked_times": ("ce76da9b", "36c5ddc398696eab"),
    "state_last_time": ("9e4e1915", "fc5b87b228e4a396"),
    "state_last_items": ("777311dc", "9c1447afc647784e"),
    "state_last_times": ("61d02fe5", "62547ddf6fee9747"),
    "state_last_types": ("9e6cb749", "34450d84254a249b"),
    "state_last_values": ("51f49e51", "382022b3b8461603"),
    "state_last_sessions": ("15f74f0f", "ff3ff697ff0dac21"),
    "state_first_counted_time": ("4170176d", "49cb6b3daf113e41"),
    "state_last_counted_time": ("f4db6a28", "75beac9213a62c59"),
    "state_session_time": ("789e69e5", "ab5b82dd16f68c95"),
    "state_session_count": ("42b1571f", "b71c579da0524020"),
    "state_session_event_count": ("2f6b0be8", "797646dad88c186f"),
    "state_value_count": ("e2e04745", "b3a20da38e41a6d2"),
    "state_value_sum": ("6db753ad", "b5002c7af5235254"),
    "state_value_squares": ("66bed6ca", "8b2f6607b9aca09d"),
    "state_release_year_count": ("c6b6edf2", "a353dcc6b0fcbf7f"),
    "state_release_year_sum": ("fc47f123", "07673b46f7f617c8"),
    "state_release_year_squares": ("9a04b167", "b7bb863cabfd35a4"),
    "state_genres_terms": ("b392cbb9", "3822ec702a78a995"),
    "state_genres_counts": ("a8f6b838", "08ff54a1603c5d97"),
    "state_liked_items": ("c3ed3e68", "92b61458d426b6c3"),
    "state_liked_times": ("5a95dbe7", "9b752e69a2a1c834"),
    "user_followed_count": ("2591e638", "d5288680420433fa"),
    "user_follower_count": ("f412f747", "a3335684734c83da"),
    "user_circle_items": ("0bc2748a", "800717acc319b34a"),
}
"""Feature → hash of its definition, and checksum of its values on `fixed_log`, to 16 digits."""


def fixed_log() -> tuple[list[dict[str, Any]], ...]:
    """Return events, items and users made by arithmetic alone, the same under every library."""
    events = {(number * 7 % 13, number * 11 % 29, number * number % 97): number * 5 % 10 + 1 for number in range(400)}
    items = [
        {
            "item_id": f"i{number}",
            "title": "t",
            "release_year": None if number % 5 == 0 else 1950 + number,
            "genres": [genre for place, genre in enumerate(GENRES) if (number * 3 + place * 5) % 7 < number % 6],
        }
        for number in range(29)
    ]
    users = [
        {
            "user_id": f"u{number}",
            "age": None if number % 4 == 0 else 20 + number,
            "gender": (None, "F", "M")[number % 3],
            "occupation": None if number % 5 == 0 else f"o{number % 2}",
        }
        for number in range(13)
    ]
    rows = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "event_type": "rating",
            "value": half_stars / 2,
            "event_time": BASE + timedelta(minutes=minute),
        }
        for (user, item, minute), half_stars in events.items()
    ]
    return rows, items, users


def fixed_relations() -> list[dict[str, Any]]:
    """Return who follows whom, made likewise; some since ever."""
    pairs = {(number * 5 % 13, number * 8 % 11): number for number in range(40)}
    return [
        {
            "user_id": f"u{user}",
            "other_user_id": f"u{other}",
            "since": BASE + timedelta(hours=number) if number % 3 else datetime(1970, 1, 1, tzinfo=UTC),
        }
        for (user, other), number in pairs.items()
        if user != other
    ]


def test_changed_values_have_a_changed_revision(compute_group: Callable[..., Any]) -> None:
    log = fixed_log()
    received = {}
    for group in declared(FOLLOWED).groups:
        table = compute_group(group, *log, schema=FOLLOWED, relations=fixed_relations())
        for column in group.features:
            values = table.select([group.entity.name, "event_time", column.name])
            received[column.name] = (group.feature_hash(column.name), content_sha256(values)[:16])
    unraised = [
        name
        for name, (definition, values) in received.items()
        if name in GOLDEN and GOLDEN[name][0] == definition and GOLDEN[name][1] != values
    ]
    assert not unraised, f"the values of {unraised} changed: raise their `revision` in contracts/features.py"
    changed = [
        f'    "{name}": ("{definition}", "{values}"),'
        for name, (definition, values) in received.items()
        if GOLDEN.get(name) != (definition, values)
    ]
    gone = sorted(GOLDEN.keys() - received.keys())
    report = "\n".join(["definitions changed; record these in GOLDEN:", *changed, f"and remove there: {gone}"])
    assert received == GOLDEN, report
