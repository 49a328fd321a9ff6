"""What the ids that senders give name, remembered in Redis for a time: in it, one id is one event."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import orjson
from redis.exceptions import RedisError

from feature_repo.contracts.events import EVENT_ID, Refusal, id_key
from serving.recommender.errors import EventLogError
from serving.recommender.event_log import redis_remedy
from serving.recommender.user_features import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from feature_repo.contracts.events import Event
    from serving.recommender.settings import Settings

_REMEMBER = """
local firsts = {}
for place, key in ipairs(KEYS) do
  firsts[place] = redis.call('GET', key)
  if not firsts[place] then
    firsts[place] = ARGV[place + 1]
    redis.call('SET', key, firsts[place], 'PX', ARGV[1])
  end
end
return firsts
"""
"""What each key holds, given now unless it held something. One command for all ids of a request: SET and GET would be
two for each, and take six times as long. A namespace's keys have one hash slot."""


class EventIds:
    """One key in Redis for each id that a sender gave, with the event that it named first.

    An id is remembered before its event is appended. A recommender that dies in between loses nothing: sent again, the
    event is the one that its id names.
    """

    def __init__(self, redis: Redis, namespace: str, window_s: float, timeout_s: float) -> None:
        self._redis = redis
        self._script = redis.register_script(_REMEMBER)
        self._namespace = namespace
        self._window = timedelta(seconds=window_s)
        self._timeout_s = timeout_s

    async def remember(self, events: Mapping[int, Event]) -> dict[int, Refusal]:
        """Remember what the senders' ids name; return, by index, why those events are refused whose id names another.

        Raises:
            EventLogError: Redis is away, too slow or full; sending again is harmless.
        """
        named = {index: (event.event_id, _text(event)) for index, event in events.items() if event.has_own_id}
        firsts = await self._first_named(list(named.values())) if named else []
        return {
            index: self._refusal(event_id, first, text)
            for (index, (event_id, text)), first in zip(named.items(), firsts, strict=True)
            if first != text
        }

    async def close(self) -> None:
        """Let go of the connection."""
        await self._redis.aclose()

    async def _first_named(self, named: list[tuple[str, bytes]]) -> list[bytes]:
        """Return the event that each id named first, the one now sent or one before it."""
        keys = [id_key(self._namespace, event_id) for event_id, _ in named]
        arguments: list[bytes | int] = [self._window // timedelta(milliseconds=1), *(text for _, text in named)]
        try:
            async with asyncio.timeout(self._timeout_s):
                firsts: list[bytes] = await self._script(keys, arguments)
        except (RedisError, OSError, TimeoutError) as error:
            msg = (
                f"event ids: expected Redis to remember {len(named)} within {self._timeout_s * 1000:.0f} ms, "
                f"received {type(error).__name__}: {error}; {redis_remedy(error)}"
            )
            raise EventLogError(msg) from error
        return firsts

    def _refusal(self, event_id: str, first: bytes, text: bytes) -> Refusal:
        return Refusal(
            EVENT_ID.name,
            f"the event that {event_id!r} named first in the last {self._window.total_seconds():g} s: {_told(first)}",
            f"another: {_told(text)}",
            f"Send a new {EVENT_ID.name} for a new event, or none; a correction has all but the value of the first.",
        )


def open_event_ids(settings: Settings) -> EventIds:
    """Return the memory of ids, which is in Redis whatever takes the events."""
    timeout_s = settings.recommender_events_ms / 1000
    redis = connect(settings.redis_url.get_secret_value(), timeout_s)
    return EventIds(redis, settings.namespace, settings.recommender_event_id_seconds, timeout_s)


def _text(event: Event) -> bytes:
    """Return what Redis remembers of an event."""
    return orjson.dumps(event.key)


def _told(text: bytes) -> str:
    """Return the event of `_text` as a message tells it."""
    user_id, item_id, event_type, event_time = orjson.loads(text)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event_time)
    return f"user_id {user_id!r}, item_id {item_id!r}, event_type {event_type!r}, event_time '{moment.isoformat()}'"
