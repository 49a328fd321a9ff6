"""A namespace with events and feature tables, small and made without Spark, for tests of what follows the features.

The features are computed here by the plainest Python, one event after another, so that they are a second opinion, too.
"""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM2VEC, ITEM_EMBEDDINGS, USER_EMBEDDINGS
from feature_repo.contracts.events import Event, key_id
from feature_repo.contracts.features import (
    HALF_LIFE_DAYS,
    LAST_ITEMS,
    SEQUENCE_ITEMS,
    SESSION_GAP_S,
    TREND_BASE_DAYS,
    TREND_DAYS,
    TREND_PSEUDO_COUNT,
    WINDOW_DAYS,
    FeatureGroup,
)
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from pipelines.embeddings.snapshots import write_item_embeddings
from pipelines.embeddings.tables import write_embedding_table
from pipelines.embeddings.vectors import unit_length, vector_array
from pipelines.features.tables import feature_table
from pipelines.io.arrow import arrow_schema
from pipelines.io.lake import UNDIVIDED, StoredTable, partition_name, stored_dataset
from pipelines.jobs import channels
from pipelines.settings import Settings
from pipelines.stream.fold import UserState, advance
from pipelines.stream.items import item_facts
from pipelines.stream.state_row import row_of
from tests.blank_values import completed
from tests.movielens import (
    ITEM_ACTIVITY,
    ITEM_PROFILE,
    ITEM_WINDOWS,
    ITEMS,
    LIKED_VALUE,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_LIKED_ITEMS,
    USER_PROFILE,
    USER_SEQUENCE,
    USER_SESSION,
    USER_STATE,
    USER_WINDOWS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset

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
    """Write lake, feature tables, embeddings, channels of `events` as of `cutoff`, as the jobs before would have."""
    place = Namespace(state, name)
    write_schema(place, MOVIELENS)
    known = sorted((row for row in events if row["event_time"] < cutoff), key=_canonical)
    items = sorted({row["item_id"] for row in events} | {"i-unseen"})
    write(stored_dataset(place, EVENTS), known)
    write(stored_dataset(place, ITEMS), [_item(item) for item in items])
    write_features(place, USER_ACTIVITY, per_event(known, "user_id", _user_activity))
    write_features(place, USER_SESSION, per_event(known, "user_id", _user_session))
    write_features(place, USER_SEQUENCE, per_event(known, "user_id", _user_sequence))
    write_features(place, USER_WINDOWS, per_day(known, "user", cutoff))
    write_features(place, ITEM_ACTIVITY, per_event(known, "item_id", _item_activity))
    write_features(place, ITEM_WINDOWS, per_day(known, "item", cutoff))
    users = sorted({row["user_id"] for row in known})
    write_features(place, USER_PROFILE, [_user_profile(user) for user in users])
    write_features(place, ITEM_PROFILE, [_item_profile(item) for item in items])
    write_features(place, USER_HISTORY, [_history(known, user, cutoff) for user in users])
    write_features(place, USER_LIKED_ITEMS, [_liked_items(known, user, cutoff) for user in users])
    write_features(place, USER_STATE, [_state(known, user, cutoff) for user in users])
    write_embeddings(place, items, users, cutoff)
    channels.run(Settings(state=state), place, cutoff)
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


def write_embeddings(place: Namespace, items: Sequence[str], users: Sequence[str], cutoff: datetime) -> None:
    """Write made-up vectors of item2vec: the snapshot, and the feature tables of items and users."""

    def vectors(dataset: Dataset, ids: Sequence[str], seed: int) -> pa.Table:
        drawn = unit_length(np.random.default_rng(seed).normal(size=(len(ids), EMBEDDING_SIZE)))
        return pa.table([pa.array(ids, pa.string()), vector_array(drawn)], schema=arrow_schema(dataset))

    rows = vectors(ITEM_EMBEDDINGS, items, 0)
    record = write_item_embeddings(place, ITEM2VEC, cutoff, rows)
    write_embedding_table(place, ITEM2VEC.item_group, cutoff, rows, record.sha256)
    of_users = vectors(USER_EMBEDDINGS, users, 1)
    write_embedding_table(place, ITEM2VEC.user_group, cutoff, of_users, record.sha256)


def per_event(events: Sequence[Row], key: str, features: Callable[[list[Row]], Row]) -> list[Row]:
    """Return a row for every (key, second) that has an event, made from all events of the key up to that second."""
    history: dict[str, list[Row]] = defaultdict(list)
    rows: dict[tuple[str, datetime], Row] = {}
    for row in events:
        history[row[key]].append(row)
        at = (row[key], row["event_time"])
        rows[at] = {key: row[key], "event_time": row["event_time"], **features(history[row[key]])}
    return list(rows.values())


def per_day(events: Sequence[Row], owner: str, cutoff: datetime) -> list[Row]:
    """Return a row for every key and day from its first event on, as of the day's end: windows by counting."""
    last = min(cutoff, CUTOFF + timedelta(days=2 * max(WINDOW_DAYS)))  # later windows are as empty, and many
    key, days = f"{owner}_id", range((last - FIRST.replace(hour=0)).days)
    ends = [FIRST.replace(hour=0) + timedelta(days=day + 1) for day in days]
    rows = []
    for name in sorted({row[key] for row in events}):
        own = [row for row in events if row[key] == name]
        first = min(row["event_time"] for row in own)
        rows += [
            {key: name, "event_time": end - timedelta(microseconds=1), **_windows(own, owner, end)}
            for end in ends
            if first < end <= cutoff
        ]
    return rows


def _windows(events: Sequence[Row], owner: str, end: datetime) -> Row:
    figures: Row = {}
    for days in WINDOW_DAYS:
        values = _of_last(events, days, end)
        figures[f"{owner}_event_count_{days}d"] = len(values)
        figures[f"{owner}_value_mean_{days}d"] = float(np.mean(values)) if values else -1.0
    if owner == "item":
        lately = len(_of_last(events, TREND_DAYS, end))
        before = len(_of_last(events, TREND_DAYS + TREND_BASE_DAYS, end)) - lately
        usual = (before + TREND_PSEUDO_COUNT * TREND_BASE_DAYS / TREND_DAYS) / TREND_BASE_DAYS
        figures["item_trend"] = float(np.log2((lately + TREND_PSEUDO_COUNT) / TREND_DAYS / usual))
    return figures


def _of_last(events: Sequence[Row], days: int, end: datetime) -> list[float]:
    return [row["value"] for row in events if end - timedelta(days=days) <= row["event_time"] < end]


def _seconds(row: Row) -> int:
    return int(row["event_time"].timestamp())


def _user_session(events: list[Row]) -> Row:
    times = [_seconds(row) for row in events]
    sessions = _sessions(times)
    start = sessions.index(sessions[-1])
    return {
        "user_first_event_time": times[0],
        "user_last_event_time": times[-1],
        "user_session_count": sessions[-1],
        "user_session_event_count": len(times) - start,
        "user_session_seconds": times[-1] - times[start],
    }


def _sessions(times: list[int]) -> list[int]:
    """Return which session each of the ascending times is in; 1 is the first."""
    pauses = (later - earlier for earlier, later in pairwise(times))
    return list(accumulate((pause > SESSION_GAP_S for pause in pauses), initial=1))


def _user_sequence(events: list[Row]) -> Row:
    rows = zip(events, _sessions([_seconds(row) for row in events]), strict=True)
    last = sorted(rows, key=lambda row: (-_seconds(row[0]), row[0]["item_id"]))[:SEQUENCE_ITEMS]
    padding = SEQUENCE_ITEMS - len(last)
    return {
        "user_sequence_items": [row["item_id"] for row, _ in last] + [""] * padding,
        "user_sequence_times": [_seconds(row) for row, _ in last] + [0] * padding,
        "user_sequence_types": [row["event_type"] for row, _ in last] + [""] * padding,
        "user_sequence_values": [row["value"] for row, _ in last] + [-1.0] * padding,
        "user_sequence_sessions": [session for _, session in last] + [0] * padding,
    }


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
    times = [_seconds(row) for row in events]
    decayed = sum(2.0 ** ((time - times[0]) / 86_400 / HALF_LIFE_DAYS) for time in times)
    return {
        "item_event_count": len(events),
        "item_value_mean": mean,
        "item_value_std": std,
        "item_first_event_time": times[0],
        "item_last_event_time": times[-1],
        "item_popular_until": times[0] / 86_400 + HALF_LIFE_DAYS * float(np.log2(decayed)),
    }


def _user_profile(user: str) -> Row:
    age = 20.0 + int(user[1:]) % 50
    return {"user_id": user, "event_time": EPOCH, "user_age": age, "user_gender": "F", "user_occupation": "writer"}


def _item_profile(item: str) -> Row:
    genres = [_genre(item), "", ""]
    return {"item_id": item, "event_time": EPOCH, "item_release_year": float(_year(item)), "item_genres": genres}


def _history(events: Sequence[Row], user: str, cutoff: datetime) -> Row:
    seen = sorted({row["item_id"] for row in events if row["user_id"] == user})
    return {"user_id": user, "event_time": cutoff - timedelta(microseconds=1), "user_seen_items": seen}


def _liked_items(events: Sequence[Row], user: str, cutoff: datetime) -> Row:
    likes: dict[str, int] = {}
    for row in events:  # in order of time
        if row["user_id"] == user and row["value"] >= LIKED_VALUE:
            likes[row["item_id"]] = _seconds(row)
    items = sorted(likes, key=lambda item: (-likes[item], item))
    stamp = cutoff - timedelta(microseconds=1)
    times = [likes[item] for item in items]
    return {"user_id": user, "event_time": stamp, "user_liked_items": items, "user_liked_times": times}


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
