"""A namespace with events in its stream: made-up logs, sent as the API sends them, and what the users' features are."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feature_repo.contracts.datasets import items_dataset, users_dataset
from feature_repo.contracts.events import Event, key_id, stream_name
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import feast_project
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from feature_repo.feast_redis import decode_timestamp, decode_value, entity_key, feature_field, timestamp_field
from pipelines.io.arrow import arrow_schema
from pipelines.io.lake import UNDIVIDED, stored_dataset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import redis

    from feature_repo.contracts.features import FeatureGroup

BASE = datetime(1998, 4, 20, tzinfo=UTC)
GENRES = ("Action", "Comedy", "Drama", "Horror", "War")
ITEMS = [
    {
        "item_id": f"i{number}",
        "title": f"Film {number}",
        "release_year": None if number % 5 == 0 else 1950.0 + number,
        "genres": [genre for place, genre in enumerate(GENRES) if (number * 3 + place) % 4 == 0],
    }
    for number in range(20)
]
FEATURES = declared(MOVIELENS)


def microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def sent(user: str, item: str, value: float, second: float, event_type: str = "rating") -> Event:
    """Return an event `second` seconds after BASE."""
    time = microseconds(BASE + timedelta(seconds=second))
    return Event(key_id(user, item, event_type, time), user, item, event_type, value, time)


def random_events(count: int, seed: int = 1, users: int = 5, days: int = 3) -> list[Event]:
    """Return different events, many of one second, in the order in which they are sent: now and then an old one."""
    dice = random.Random(seed)
    events: dict[tuple[Any, ...], Event] = {}
    while len(events) < count:
        second = dice.randrange(days) * 86_400 + dice.randrange(40)
        event = sent(f"u{dice.randrange(users)}", f"i{dice.randrange(20)}", dice.randrange(1, 11) / 2, second)
        events[event.key] = event
    return sorted(events.values(), key=lambda event: event.event_time + dice.choice([0, 0, 0, 86_400_000_000]))


def write_items(state: Path, name: str = "streamed-set") -> Namespace:
    """Write schema and items of a namespace, as an ingestion would have, and no event."""
    place = Namespace(state, name)
    write_schema(place, MOVIELENS)
    for dataset, rows in ((items_dataset(MOVIELENS), ITEMS), (users_dataset(MOVIELENS), [])):
        with stored_dataset(place, dataset).rewriting() as writer:
            writer.add(UNDIVIDED, pa.Table.from_pylist(rows, arrow_schema(dataset)))
    return place


def send(client: redis.Redis, namespace: str, events: Iterable[Event]) -> list[str]:
    """Append events to the stream; return their entries' ids."""
    with client.pipeline(transaction=True) as pipeline:
        for event in events:
            pipeline.xadd(stream_name(namespace), event.fields())
        return [entry.decode() for entry in pipeline.execute()]


def online_row(client: redis.Redis, namespace: str, user: str, group: FeatureGroup) -> dict[str, Any] | None:
    """Return what Redis has of a user in one group, its time as `event_time`; None if nothing."""
    stored: dict[bytes, bytes] = client.hgetall(entity_key(feast_project(namespace), "user_id", user))
    time = decode_timestamp(stored.get(timestamp_field(group.view_name)))
    if time is None:
        return None
    values = {
        column.name: decode_value(stored[feature_field(group.view_name, column.name)]) for column in group.features
    }
    return {"event_time": time} | values


def online_users(client: redis.Redis, namespace: str, users: Sequence[str]) -> dict[str, Any]:
    """Return the features that the stream writes, of each user."""
    groups = (FEATURES.user_activity, FEATURES.user_sequence, FEATURES.user_liked_items, FEATURES.user_history)
    return {user: [online_row(client, namespace, user, group) for group in groups] for user in users}
