"""Likes that came too late for the batch's state, kept in a user's hash until the next batch has them.

An event that is older than the user's last one in the batch may be in the state or not. What was liked can be said all
the same: to like an item twice is to like it once, and the later time counts. So a late like is in the list at once. It
is not among the events since, from which the list is made anew with every event, and so has a field of its own.

The field names the batch that the likes were too late for. With another one they are forgotten: that one has them, but
for those that came between the landing and the materialisation, as with the items that were seen.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.stream.fold import Like

FIELD = b"_late_likes"

_log = logging.getLogger(__name__)


def encode(batch: bytes, likes: Sequence[Like]) -> bytes:
    """Return the field's value; `batch` is the stamp of the state that the likes were too late for."""
    return json.dumps([batch.hex(), likes], separators=(",", ":"), ensure_ascii=False).encode()


def decode(stored: bytes | None, batch: bytes) -> list[Like]:
    """Return the likes that a field holds; none where they are of another batch, or damaged: the lake has them."""
    if stored is None:
        return []
    try:
        stamp, likes = json.loads(stored.decode())
        return [(str(item), int(time)) for item, time in likes] if stamp == batch.hex() else []
    except (TypeError, ValueError):
        _log.exception("late likes that are kept in Redis are damaged; they wait for the next materialisation")
        return []
