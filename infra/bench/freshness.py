"""How long it takes until what a user did is in that user's online features, and how many events a second get there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import redis

from feature_repo.contracts.ids import path_part
from feature_repo.contracts.intervals import feast_project
from feature_repo.contracts.manifests import OnlineSnapshot
from feature_repo.contracts.schemas import Schema
from feature_repo.feast_redis import decode_value, entity_key, feature_field
from infra.bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_repo.contracts.places import Namespace
    from infra.local.settings import LocalSettings

_DEADLINE_S = 60.0
_BATCH = 1000
_WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Freshness:
    """What was measured."""

    answered_ms: Sequence[float]
    """POST → answer: the stream has the event."""
    visible_ms: Sequence[float]
    """POST → the item is among the user's last and seen ones in Redis."""
    filtered: int
    """How often the next recommendation left out the item just seen."""
    events_per_second: float
    """Events sent in batches, from the first POST until the last is in its user's features."""
    batched: int


class Probe:
    """Sends events of a namespace's users and watches Redis for what becomes of them."""

    def __init__(self, settings: LocalSettings, place: Namespace, items: Sequence[str], users: Sequence[str]) -> None:
        snapshot = OnlineSnapshot.read(place.online_current)
        schema = Schema.from_json(snapshot.schema)
        self._event_type, self._value = schema.positive.event_types[0], schema.value.maximum
        self._project = feast_project(place.name)
        activity, history = (snapshot.views[name] for name in ("user_activity", "user_history"))
        self._last = feature_field(activity, "user_last_items")
        self._seen = feature_field(history, "user_seen_items")
        self._items, self._users = items, users
        self._http = httpx.Client(base_url=settings.recommender_uri, timeout=_DEADLINE_S, trust_env=False)
        self._redis = redis.Redis.from_url(settings.redis_url)
        self._dice = np.random.default_rng(0)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._redis.close()

    def measure(self, events: int, batched: int) -> Freshness:
        """Send `events` one by one, each when the one before is visible, then `batched` in batches.

        Raises:
            BenchError: An event was refused, or did not become visible.
        """
        answered, visible, filtered = [], [], 0
        for number in range(_WARM_UP + events):
            user, item = self._users[number % len(self._users)], self._unseen(self._users[number % len(self._users)])
            began = time.perf_counter()
            self._post(self._event(user, item))
            answer = time.perf_counter()
            self._wait(user, item)
            now = time.perf_counter()
            if number >= _WARM_UP:
                answered.append((answer - began) * 1000)
                visible.append((now - began) * 1000)
                filtered += item not in self._recommended(user)
        return Freshness(answered, visible, filtered, self._throughput(batched), batched)

    def _throughput(self, count: int) -> float:
        """Return events per second; each user's last event comes last, so that all are in when that is."""
        chosen = self._dice.integers(0, len(self._items), count)
        base = datetime.now(UTC) - timedelta(microseconds=count)
        log = [
            self._event(
                self._users[number % len(self._users)], self._items[item], base + timedelta(microseconds=number)
            )
            for number, item in enumerate(chosen.tolist())
        ]
        began = time.perf_counter()
        for start in range(0, count, _BATCH):
            self._post(log[start : start + _BATCH])
        for event in log[-min(len(self._users), count) :]:
            self._wait(event["user_id"], event["item_id"])
        return count / (time.perf_counter() - began)

    def _event(self, user: str, item: str, time_: datetime | None = None) -> dict[str, Any]:
        moment = (time_ or datetime.now(UTC)).isoformat()
        fields = {"user_id": user, "item_id": item, "event_type": self._event_type, "value": self._value}
        return {**fields, "event_time": moment}

    def _unseen(self, user: str) -> str:
        seen = set(self._list(user, self._seen))
        for place in self._dice.permutation(len(self._items)):
            if self._items[int(place)] not in seen:
                return self._items[int(place)]
        msg = f"user {user!r} has seen all {len(self._items)} items: take a larger data set"
        raise BenchError(msg)

    def _post(self, body: object) -> None:
        response = self._http.post("/events", json=body)
        answer = response.json()
        if response.status_code != httpx.codes.ACCEPTED or answer["refused"]:
            msg = f"POST /events: expected all events to be accepted, received {response.status_code}: {answer}"
            raise BenchError(msg)

    def _recommended(self, user: str) -> set[str]:
        answer = self._http.get(f"/recommend/{path_part(user)}", params={"k": 100}).json()
        return {item["item_id"] for item in answer["items"]}

    def _list(self, user: str, field: bytes) -> list[str]:
        stored: Any = self._redis.hget(entity_key(self._project, "user_id", user), field)  # type: ignore[arg-type]  # bytes
        value = decode_value(stored)
        return [str(each) for each in value] if isinstance(value, list) else []

    def _wait(self, user: str, item: str) -> None:
        end = time.monotonic() + _DEADLINE_S
        while self._list(user, self._last)[:1] != [item] or item not in self._list(user, self._seen):
            if time.monotonic() > end:
                msg = f"user {user!r}: item {item!r} was not in the online features within {_DEADLINE_S:.0f} s"
                raise BenchError(msg)
