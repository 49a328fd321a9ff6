"""What the stream job reads events from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_repo.contracts.events import Position


@dataclass(frozen=True, slots=True)
class Received:
    """An entry of a stream."""

    position: Position
    token: object
    """What the source acknowledges it by."""
    fields: Mapping[str, str]


class EventSource(Protocol):
    """Gives every entry to one reader of a group, and again to another if the first dies before it acknowledges."""

    def read(self, count: int, wait_s: float) -> list[Received]:
        """Return up to `count` entries, those first that a dead reader left; none if none comes within `wait_s`."""
        ...

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Say that what these entries are for is done, for good."""
        ...

    def refuse(self, received: Received, reason: str) -> None:
        """Put aside an entry that is no event, with the reason; it is acknowledged with the others."""
        ...

    def trim(self) -> int:
        """Drop what every group has acknowledged, where that is the readers' to do; return how many entries."""
        ...

    def close(self) -> None:
        """Let go of what was opened for reading."""
        ...
