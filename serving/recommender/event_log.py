"""Where accepted events go: appended to the namespace's stream, all of a request's or none, before the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import RedisError, ResponseError

from feature_repo.contracts.events import FULL_REDIS, Event, stream_name
from serving.recommender.errors import EventLogError
from serving.recommender.user_features import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from serving.recommender.settings import Settings


class EventLog(Protocol):
    """Takes events for good."""

    async def append(self, events: Sequence[Event]) -> None:
        """Append all events, or none; when this returns, the log has them.

        Raises:
            EventLogError: It is away, too slow or full; whether it has them is unknown, and sending again is harmless.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


def open_event_log(settings: Settings) -> EventLog:
    """Return the log that the settings name."""
    timeout_s = settings.recommender_events_ms / 1000
    if settings.events_url:
        from serving.recommender.kafka_event_log import KafkaEventLog  # noqa: PLC0415 - installed where Kafka is used

        return KafkaEventLog(settings.events_url, settings.namespace, timeout_s)
    return RedisEventLog(connect(settings.redis_url.get_secret_value(), timeout_s), settings.namespace, timeout_s)


def redis_remedy(error: Exception) -> str:
    """Return what to do about a Redis that took nothing."""
    if isinstance(error, ResponseError):
        return FULL_REDIS
    return "is it running? KESTREL_REDIS_URL names its address"


class RedisEventLog:
    """A Redis stream. One transaction for a request, so that no half of it is ever in the stream."""

    def __init__(self, redis: Redis, namespace: str, timeout_s: float) -> None:
        self._redis = redis
        self._stream = stream_name(namespace)
        self._timeout_s = timeout_s

    async def append(self, events: Sequence[Event]) -> None:
        """Append all events, or none."""
        try:
            async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=True) as pipeline:
                for event in events:
                    pipeline.xadd(self._stream, event.fields())  # type: ignore[arg-type]  # str is among what it takes
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            msg = (
                f"event stream: expected Redis to take {len(events)} events within {self._timeout_s * 1000:.0f} ms, "
                f"received {type(error).__name__}: {error}; {redis_remedy(error)}"
            )
            raise EventLogError(msg) from error

    async def close(self) -> None:
        """Let go of the connection."""
        await self._redis.aclose()
