"""The interval that is judged, and the recent past that it is compared with.

The past is cut into windows as long as the interval: what depends on the length, such as the events of a user, can only
be compared between equal lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_EVENTS = 200
"""With fewer in the interval, or in the past, nothing is judged."""


@dataclass(frozen=True, slots=True)
class Window:
    """Whole days, from `start` to before `end`."""

    start: datetime
    end: datetime

    @property
    def days(self) -> list[datetime]:
        """The midnights that begin its days."""
        return [self.start + timedelta(days=number) for number in range((self.end - self.start).days)]


@dataclass(frozen=True, slots=True)
class Windows:
    """The interval, and the windows before it that lie within the history, latest first."""

    interval: Window
    recent: tuple[Window, ...]

    @property
    def past(self) -> Window | None:
        """All recent windows as one; None without history."""
        return Window(self.recent[-1].start, self.recent[0].end) if self.recent else None


def windows(first: datetime, start: datetime, cutoff: datetime, number: int) -> Windows:
    """Cut at most `number` windows before `start`, none of which begins before the day of the `first` event."""
    length = cutoff - start
    history = datetime(first.year, first.month, first.day, tzinfo=UTC)
    recent: list[Window] = []
    end = start
    while len(recent) < number and end - length >= history:
        recent.append(Window(end - length, end))
        end -= length
    return Windows(Window(start, cutoff), tuple(recent))


@dataclass(frozen=True, slots=True)
class Corridor:
    """How many events a day may have."""

    low: float
    high: float


def corridor(events: Mapping[datetime, int], past: Window, ratio: float) -> Corridor:
    """Return the median of the past days divided and multiplied by `ratio`, widened to what these days have seen."""
    counts = [events.get(day, 0) for day in past.days]
    middle = median(counts)
    return Corridor(min(middle / ratio, *counts), max(middle * ratio, *counts))
