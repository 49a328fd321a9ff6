"""An event and its place in the stream, as a field of its user's hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from feature_repo.contracts.events import Event, Position

EVENT_PREFIX = b"_event:"


@dataclass(frozen=True, slots=True)
class Placed:
    """An event and where the stream has it."""

    event: Event
    position: Position

    @property
    def field(self) -> bytes:
        """The field that holds the event: its key, hashed, so that the same event is the same field."""
        return EVENT_PREFIX + hashlib.sha256(repr(self.event.key).encode()).digest()[:16]

    def encode(self) -> bytes:
        """Return the field's value; the user is the hash's."""
        event, position = self.event, self.position
        values = [event.event_id, event.item_id, event.event_type, event.value, event.event_time]
        return json.dumps([*values, position.high, position.low], separators=(",", ":"), ensure_ascii=False).encode()


def decode_placed(user: str, stored: bytes) -> Placed:
    """Read what `Placed.encode` wrote into the hash of `user`."""
    event_id, item_id, event_type, value, event_time, high, low = json.loads(stored.decode())
    return Placed(Event(event_id, user, item_id, event_type, value, event_time), Position(high, low))
