"""A namespace with events and feature tables, small and made without Spark, for tests of what follows the features.

The features are computed here by the plainest Python, one event after another, so that they are a second opinion, too.
"""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_repo.contracts.datasets import EMBEDDING_SIZE, EVENTS, ITEM2VEC
from feature_repo.contracts.events import Event, key_id
from feature_repo.contracts.features import LAST_ITEMS, FeatureGroup
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from pipelines.embeddings.snapshots import write_item_embeddings
from pipelines.features.tables import feature_table
from pipelines.io.arrow import arrow_schema
from pipelines.io.lake import UNDIVIDED, StoredTable, partition_name, stored_dataset
from pipelines.stream.fold import UserState, advance
from pipelines.stream.items import item_facts
from pipelines.stream.state_row import row_of
from tests.blank_values import completed
from tests.movielens import ITEM_ACTIVITY, ITEM_PROFILE, ITEMS, USER_ACTIVITY, USER_HISTORY, USER_PROFILE, USER_STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = datetime(1998, 4, 1, 20, tzinfo=UTC)
CUTOFF = datetime(1998, 4, 11, tzinfo=UTC)
GENRES = ("Action", "Comedy", "Drama", "War")


def make_events(users: int = 30, items: int = 25, events: int = 900, seed: int = 3) -> list[Row]:
    """Draw ratings in bursts over ten days: three quarters of a user's ratings share their second with another."""
    rng = random.Random(seed)
    taken: set[tuple[int, int]] = set()
    now: dict[int, datetime] = {user: FIRST + timedelta(hours=rng.randrange(24 * 9)) for user in range(users)}
    rows: list[Row] = []
    while len(rows) < events and len(taken) < users * items:
        user, item = rng.randrange(users), rng.randrange(items)
        if (user, item) in taken:
            continue
        taken.add((user, item))
        if rng.random() < 0.3:
            now[user] = min(now[user] + timedelta(seconds=rng.randrange(1, 40)), CUTOFF - timedelta(seconds=1))
        value = float(min(5, max(1, round(rng.gauss(3.4 + (item % 5) / 4, 1.0)))))
        rows.append(event(f"u{user}", f"i{item}", now[user], value))
    return rows


def event(user: str, item: str, time: datetime, value: float) -> Row:
    return {"user_id": user, "item_id": item, "event_type": "rating", "value": value, "event_time": time}


def write_world(state: Path, events: Sequence[Row], name: str = "test-set", cutoff: datetime = CUTOFF) -> Namespace:
    """Write lake, feature tables and embeddings of `events` as of `cutoff`, as the jobs before would have."""
    place = Namespace(state, name)
    write_schema(place, MOVIELENS)
    known = sorted((row for row in events if row["event_time"] < cutoff), key=_canonical)
    items = sorted({row["item_id"] for row in events} | {"i-unseen"})
    write(stored_dataset(place, EVENTS), known)
    write(stored_dataset(place, ITEMS), [_item(item) for item in items])
    write_features(place, USER_ACTIVITY, per_event(known, "user_id", _user_activity))
    write_features(place, ITEM_ACTIVITY, per_event(known, "item_id", _item_activity))
    users = sorted({row["user_id"] for row in known})
    write_features(place, USER_PROFILE, [_user_profile(user) for user in users])
    write_features(place, ITEM_PROFILE, [_item_profile(item) for item in items])
    write_features(place, USER_HISTORY, [_history(known, user, cutoff) for user in users])
    write_features(place, USER_STATE, [_state(known, user, cutoff) for user in users])
    write_embeddings(place, items, cutoff)
    return place


def write_features(place: Namespace, group: FeatureGroup, rows: Iterable[Row]) -> None:
    write(feature_table(place, group), [completed(row, group.features) for row in rows])


def write(table: StoredTable, rows: Iterable[Row]) -> None:
    """Replace a table's rows, as its job would."""
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        divided = table.dataset.partitioned_by_event_date
        parts[partition_name(row["event_time"].date()) if divided else UNDIVIDED].append(row)
    with table.rewriting() as writer:
        for name in sorted(parts):
            writer.add(name, pa.Table.from_pylist(parts[name], arrow_schema(table.dataset)))


def read(table: StoredTable) -> list[Row]:
    """Return all rows of a table."""
    rows: list[Row] = table.snapshot().read().to_pylist()
    return rows


def write_embeddings(place: Namespace, items: Sequence[str], cutoff: datetime) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(items), EMBEDDING_SIZE)).astype(np.float32).tolist()
    rows = pa.table({"item_id": list(items), "embedding": vectors}, schema=arrow_schema(ITEM2VEC))
    write_item_embeddings(place, cutoff, rows)


def per_event(events: Sequence[Row], key: str, features: Callable[[list[Row]], Row]) -> list[Row]:
    """Return a row for every (key, second) that has an event, made from all events of the key up to that second."""
    history: dict[str, list[Row]] = defaultdict(list)
    rows: dict[tuple[str, datetime], Row] = {}
    for row in events:
        history[row[key]].append(row)
        at = (row[key], row["event_time"])
        rows[at] = {key: row[key], "event_time": row["event_time"], **features(history[row[key]])}
    return list(rows.values())


def _canonical(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in EVENTS.sort)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


def _item_number(item: str) -> int:
    return int(item[1:]) if item[1:].isdigit() else 0


def _year(item: str) -> int:
    return 1970 + _item_number(item)


def _item(item: str) -> Row:
    return {"item_id": item, "title": f"Film {item}", "release_year": _year(item), "genres": [_genre(item)]}


def _genre(item: str) -> str:
    return GENRES[_item_number(item) % len(GENRES)]


def _user_activity(events: list[Row]) -> Row:
    last = sorted(events, key=lambda row: (-row["event_time"].timestamp(), row["item_id"]))[:LAST_ITEMS]
    padding = LAST_ITEMS - len(last)
    mean, std = _moments([row["value"] for row in events])
    year_mean, year_std = _moments([_year(row["item_id"]) for row in events])
    liked = [_genre(row["item_id"]) for row in events if row["value"] >= 4]
    genres = sorted(set(liked), key=lambda genre: (-liked.count(genre), genre))[:5]
    return {
        "user_last_items": [row["item_id"] for row in last] + [""] * padding,
        "user_last_values": [row["value"] for row in last] + [-1.0] * padding,
        "user_event_count": len(events),
        "user_value_mean": mean,
        "user_value_std": std,
        "user_release_year_mean": year_mean,
        "user_release_year_std": year_std,
        "user_top_genres": genres + [""] * (5 - len(genres)),
    }


def _item_activity(events: list[Row]) -> Row:
    mean, std = _moments([row["value"] for row in events])
    return {"item_event_count": len(events), "item_value_mean": mean, "item_value_std": std}


def _user_profile(user: str) -> Row:
    age = 20.0 + int(user[1:]) % 50
    return {"user_id": user, "event_time": EPOCH, "user_age": age, "user_gender": "F", "user_occupation": "writer"}


def _item_profile(item: str) -> Row:
    genres = [_genre(item), "", ""]
    return {"item_id": item, "event_time": EPOCH, "item_release_year": float(_year(item)), "item_genres": genres}


def _history(events: Sequence[Row], user: str, cutoff: datetime) -> Row:
    seen = sorted({row["item_id"] for row in events if row["user_id"] == user})
    return {"user_id": user, "event_time": cutoff - timedelta(microseconds=1), "user_seen_items": seen}


def _state(events: Sequence[Row], user: str, cutoff: datetime) -> Row:
    about = item_facts(pa.Table.from_pylist([_item(row["item_id"]) for row in events], arrow_schema(ITEMS)), MOVIELENS)
    own = [sent_event(row) for row in events if row["user_id"] == user]
    state = advance(UserState(), own, about.__getitem__, MOVIELENS)
    return {"user_id": user, "event_time": cutoff - timedelta(microseconds=1), **row_of(state, MOVIELENS)}


def sent_event(row: Row) -> Event:
    """Return a row as an event on its way."""
    time = (row["event_time"] - EPOCH) // timedelta(microseconds=1)
    key = (row["user_id"], row["item_id"], row["event_type"], time)
    return Event(key_id(*key), *key[:3], row["value"], time)
