"""A Redis stream as a source: consumer groups, dead readers' entries claimed, trimmed to what every group has done.

Two groups read each namespace's stream: `online` updates features, `lake` lands events. Redis hands an entry to one
consumer of a group and keeps it pending until that one acknowledges it; if it does not for `claim_after_ms`, another
takes it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import redis

from feature_repo.contracts.events import Position, stream_name
from pipelines.stream.source import Received

if TYPE_CHECKING:
    from collections.abc import Sequence

ONLINE, LAKE = "online", "lake"
"""The consumer groups: what updates features, what lands events."""

_REFUSED_KEPT = 10_000
_FORGOTTEN_AFTER_MS = 3_600_000
"""A consumer that holds nothing and did not ask for so long is gone."""


class RedisSource:
    """Entries of a namespace's stream for one consumer of a group.

    Args:
        client: A connection to Redis.
        namespace: Whose stream.
        group: ONLINE or LAKE.
        consumer: This reader's name; two that run at a time have different ones.
        claim_after_ms: How long another reader may hold an entry without acknowledging it, before it counts as dead.
    """

    def __init__(self, client: redis.Redis, namespace: str, group: str, consumer: str, claim_after_ms: int) -> None:
        self._client, self._namespace = client, namespace
        self._stream = stream_name(namespace)
        self._group, self._consumer = group, consumer
        self._claim_after_ms = claim_after_ms
        self._claimed = 0.0
        ensure_groups(client, namespace)
        self._forget_the_gone()

    def read(self, count: int, wait_s: float) -> list[Received]:
        """Return up to `count` entries, those first that a dead reader left; none if none comes within `wait_s`."""
        try:
            return self._claim(count) or self._next(count, wait_s)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            ensure_groups(self._client, self._namespace)
            return []

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Say that what these entries are for is done, for good."""
        if received:
            self._client.xack(self._stream, self._group, *(cast("str", entry.token) for entry in received))

    def refuse(self, received: Received, reason: str) -> None:
        """Put aside an entry that is no event, with the reason; it is acknowledged with the others."""
        fields = {**received.fields, "reason": reason, "id": str(received.token), "group": self._group}
        self._client.xadd(f"{self._stream}:refused", cast("dict[Any, Any]", fields), maxlen=_REFUSED_KEPT)

    def trim(self) -> int:
        """Drop the entries that every group has acknowledged; return how many."""
        return trim(self._client, self._namespace)

    def close(self) -> None:
        """Leave the connection, which is the caller's, open."""

    def _next(self, count: int, wait_s: float) -> list[Received]:
        block = int(wait_s * 1000) or None
        reply = self._client.xreadgroup(self._group, self._consumer, {self._stream: ">"}, count=count, block=block)
        return _entries(cast("list[Any]", reply)[0][1]) if reply else []

    def _claim(self, count: int) -> list[Received]:
        """Take over what dead readers hold; looked for now and then only, as it is nothing nearly always."""
        now = time.monotonic()
        if self._claimed and (now - self._claimed) * 1000 < self._claim_after_ms:
            return []
        reply = self._client.xautoclaim(
            self._stream, self._group, self._consumer, min_idle_time=self._claim_after_ms, count=count
        )
        entries = _entries(cast("list[Any]", reply)[1])
        if not entries:
            self._claimed = now
        return entries

    def _forget_the_gone(self) -> None:
        for consumer in cast("list[dict[str, Any]]", self._client.xinfo_consumers(self._stream, self._group)):
            if consumer["pending"] == 0 and consumer["idle"] > _FORGOTTEN_AFTER_MS:
                self._client.xgroup_delconsumer(self._stream, self._group, consumer["name"])


def ensure_groups(client: redis.Redis, namespace: str) -> None:
    """Make the stream and its groups where they do not exist; a new group begins with the oldest entry."""
    for group in (ONLINE, LAKE):
        _create_group(client, stream_name(namespace), group)


def trim(client: redis.Redis, namespace: str) -> int:
    """Drop the entries that every group has acknowledged; return how many.

    What was read between the look at the groups and the trimming only makes the bound too low.
    """
    stream = stream_name(namespace)
    groups = {group["name"]: group for group in cast("list[dict[str, Any]]", client.xinfo_groups(stream))}
    bounds = []
    for name in (ONLINE, LAKE):
        group = groups.get(name.encode())
        if group is None:
            return 0
        high, low = _position(group["last-delivered-id"])
        oldest = cast("dict[str, bytes]", client.xpending(stream, name))["min"] if group["pending"] else None
        bounds.append(_position(oldest) if oldest else (high, low + 1))
    high, low = min(bounds)
    return int(cast("int", client.xtrim(stream, minid=f"{high}-{low}", approximate=False)))


def _create_group(client: redis.Redis, stream: str, group: str) -> None:
    try:
        client.xgroup_create(stream, group, id="0", mkstream=True)
    except redis.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def _entries(reply: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Received]:
    """Return the entries of a reply; one that was deleted while it was pending has no fields."""
    return [
        Received(
            Position(*_position(name)),
            name.decode(),
            {field.decode(errors="replace"): value.decode(errors="replace") for field, value in fields.items()},
        )
        for name, fields in reply
        if fields is not None
    ]


def _position(entry: bytes) -> tuple[int, int]:
    high, _, low = entry.decode().partition("-")
    return int(high), int(low)
