"""Where a namespace's events are read from: the online store's Redis, unless KESTREL_EVENTS_URL names a Kafka."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from pipelines.stream.redis_source import LAKE, ONLINE, RedisSource

if TYPE_CHECKING:
    import redis

    from pipelines.settings import Settings
    from pipelines.stream.source import EventSource


def consumer_name() -> str:
    """Return a name that no other reader has at this time."""
    return f"{socket.gethostname()}-{os.getpid()}"


def online_source(settings: Settings, client: redis.Redis, namespace: str) -> EventSource:
    """Return what updates features: one of several readers who share the work."""
    if settings.events_url:
        from pipelines.stream.kafka_source import KafkaSource  # noqa: PLC0415 - installed where Kafka is used

        return KafkaSource(settings.events_url, namespace, ONLINE, alone=False)
    return RedisSource(client, namespace, ONLINE, consumer_name(), settings.stream_claim_ms)


def lake_source(settings: Settings, client: redis.Redis, namespace: str) -> EventSource:
    """Return what lands events, alone under the landing lock: what is pending in its group was left by a dead one."""
    if settings.events_url:
        from pipelines.stream.kafka_source import KafkaSource  # noqa: PLC0415 - as above

        return KafkaSource(settings.events_url, namespace, LAKE, alone=True)
    return RedisSource(client, namespace, LAKE, LAKE, claim_after_ms=0)
