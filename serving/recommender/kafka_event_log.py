"""A Kafka topic as the log of accepted events, its messages keyed by user: readers rely on it for their order."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Producer

from feature_repo.contracts.events import Event, kafka_servers, topic_name
from serving.recommender.errors import EventLogError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import KafkaError, Message


class KafkaEventLog:
    """A topic. Of a request that fails a part may have arrived: sent again, it counts once."""

    def __init__(self, events_url: str, namespace: str, timeout_s: float) -> None:
        self._topic, self._servers = topic_name(namespace), kafka_servers(events_url)
        self._timeout_s = timeout_s
        self._producer = Producer(
            {
                "bootstrap.servers": self._servers,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.timeout.ms": int(timeout_s * 1000),
            }
        )

    async def append(self, events: Sequence[Event]) -> None:
        """Append all events; when this returns, every in-sync replica has them."""
        await asyncio.to_thread(self._send, events)

    async def close(self) -> None:
        """Wait for what is on its way, no longer than each message may take, and let go of the connection."""
        await asyncio.to_thread(self._producer.close)

    def _send(self, events: Sequence[Event]) -> None:
        undelivered = len(events)
        faults: list[str] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            nonlocal undelivered
            undelivered -= 1
            if error is not None:
                faults.append(str(error))

        try:
            for event in events:
                value = json.dumps(event.fields(), ensure_ascii=False).encode()
                self._producer.produce(self._topic, key=event.user_id.encode(), value=value, on_delivery=delivered)
            self._producer.flush(self._timeout_s + 1)
        except (KafkaException, BufferError) as error:
            faults.append(str(error))
        if faults or undelivered:
            msg = (
                f"event stream: expected Kafka at {self._servers} to take {len(events)} events within "
                f"{self._timeout_s * 1000:.0f} ms, received {faults[:1] or 'no answer'}; "
                "is it running? KESTREL_EVENTS_URL names its address"
            )
            raise EventLogError(msg)
