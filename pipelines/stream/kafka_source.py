"""A Kafka topic as a source. Its messages are keyed by user, so that one user's events are in one partition, in order.

Of two values for one event that with the higher offset is right: the broker's order, which no sender's clock can bend.
Readers who share the work subscribe as a group; one that reads alone takes every partition from the group's committed
offset to the end that the topic had when it was opened. Kafka's own retention decides how long the topic keeps events.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from feature_repo.contracts.events import Position, kafka_servers, topic_name
from pipelines.errors import TransientError
from pipelines.stream.source import Received

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ANSWER_S = 10.0
_END_S = 60.0
"""How long reading alone may take from one message to the next."""
_AFTER_REDIS = 2**62
"""Above the milliseconds of any Redis id: what Kafka brings is later than what came before it took Redis' place."""


class KafkaSource:
    """Messages of a namespace's topic for one reader of a group.

    Args:
        events_url: `kafka://host:port[,host:port]`.
        namespace: Whose topic.
        group: Which of its groups.
        alone: Whether nobody else reads for this group meanwhile, which the caller sees to.
    """

    def __init__(self, events_url: str, namespace: str, group: str, *, alone: bool) -> None:
        self._topic = topic_name(namespace)
        self._servers = kafka_servers(events_url)
        self._consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"kestrel.{namespace}.{group}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        self._ends: dict[int, int] | None = None
        if alone:
            self._ends = self._asked(self._take_everything)
        else:
            self._consumer.subscribe([self._topic])

    def read(self, count: int, wait_s: float) -> list[Received]:
        """Return up to `count` entries, those first that a dead reader left; none if none comes within `wait_s`."""
        deadline = time.monotonic() + (wait_s if self._ends is None else _END_S)
        while self._ends is None or self._is_before_the_end():
            messages = self._consume(count, min(max(deadline - time.monotonic(), 0), 1.0))
            received = [_received(message) for message in messages if self._is_whole(message)]
            if received or time.monotonic() >= deadline:
                return received
        return []

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Say that what these entries are for is done, for good."""
        nexts: dict[int, int] = {}
        for entry in received:
            partition, offset = cast("tuple[int, int]", entry.token)
            nexts[partition] = max(nexts.get(partition, 0), offset + 1)
        if nexts:
            offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in nexts.items()]
            self._asked(lambda: self._consumer.commit(offsets=offsets, asynchronous=False))

    def refuse(self, received: Received, reason: str) -> None:
        """Put aside an entry that is no event, with the reason; it is acknowledged with the others."""
        producer = Producer({"bootstrap.servers": self._servers, "acks": "all"})
        producer.produce(f"{self._topic}.refused", value=json.dumps({**received.fields, "reason": reason}).encode())
        if producer.flush(_ANSWER_S):
            msg = f"topic {self._topic}.refused: expected Kafka at {self._servers} to take an entry, it did not"
            raise TransientError(msg)

    def trim(self) -> int:
        """Leave that to Kafka's retention."""
        return 0

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _consume(self, count: int, wait_s: float) -> list[Message]:
        return cast("list[Message]", self._asked(lambda: self._consumer.consume(count, timeout=wait_s)))

    def _take_everything(self) -> dict[int, int]:
        """Take every partition from its committed offset, and return where each ends now."""
        metadata = self._consumer.list_topics(self._topic, timeout=_ANSWER_S).topics[self._topic]
        partitions = [TopicPartition(self._topic, partition) for partition in metadata.partitions]
        committed = self._consumer.committed(partitions, timeout=_ANSWER_S) if partitions else []
        ends: dict[int, int] = {}
        for each in committed:
            low, ends[each.partition] = self._consumer.get_watermark_offsets(each, timeout=_ANSWER_S)
            each.offset = max(each.offset, low)
        self._consumer.assign(committed)
        self._at = {each.partition: each.offset for each in committed}
        return ends

    def _is_before_the_end(self) -> bool:
        return any(self._at[partition] < end for partition, end in (self._ends or {}).items())

    def _is_whole(self, message: Message) -> bool:
        """Note how far reading has got; TransientError where Kafka delivers an error in a message's place."""
        if error := message.error():
            raise TransientError(self._problem(error))
        if self._ends is not None:
            self._at[_number(message.partition())] = _number(message.offset()) + 1
        return True

    def _asked(self, question: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever Kafka answers
        try:
            return question()
        except KafkaException as error:
            raise TransientError(self._problem(error)) from error

    def _problem(self, error: object) -> str:
        return (
            f"topic {self._topic}: expected Kafka at {self._servers} to answer, received {error}; "
            "is it running? KESTREL_EVENTS_URL names its address"
        )


def _received(message: Message) -> Received:
    """Return a message as an entry; its position is its partition, which is its user's, and its offset there."""
    partition, offset = _number(message.partition()), _number(message.offset())
    try:
        fields = json.loads(message.value() or b"")
    except (ValueError, RecursionError):
        fields = None
    texts = {str(name): str(value) for name, value in fields.items()} if isinstance(fields, dict) else {}
    return Received(Position(_AFTER_REDIS + partition, offset), (partition, offset), texts)


def _number(number: int | None) -> int:
    return -1 if number is None else number
