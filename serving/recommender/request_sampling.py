"""A bounded random sample of the ranking requests that this process really sends, one file for each period.

New versions are warmed up and compared with these requests. A reservoir (Vitter, Random Sampling with a Reservoir,
Algorithm R) gives every request of a period the same chance, however many there are. Nothing is serialized or written
while somebody waits for an answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import replacing
from serving.protocol.record_files import write_records
from serving.protocol.recorded import log_of
from serving.recommender.ranking import ranking_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from serving.recommender.engine import SentRequest

_log = logging.getLogger(__name__)

_PERIODS_KEPT = 24
_SUFFIX = ".tfrecord"


def process_name() -> str:
    """Return what tells this process's files from those of others that share the folder."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(slots=True)
class _Entry:
    """A request, serialized when it is first written."""

    sent: SentRequest | None
    encoded: bytes = b""

    def encode(self) -> bytes:
        if self.sent is not None:
            self.encoded = log_of(ranking_request(self.sent.plan, self.sent.inputs))
            self.sent = None
        return self.encoded


@dataclass(slots=True)
class _Reservoir:
    """What is kept of one period."""

    period: int
    entries: list[_Entry]
    offered: int = 0
    changed: bool = False


class RequestSampler:
    """Keeps `size` requests of each period of `period_s` seconds, and writes them to `folder`.

    Args:
        folder: Shared with whoever reads the samples.
        size: The most requests of a period; 0 keeps none.
        period_s: Length of a period, in seconds.
        random: Chooses.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, folder: Path, size: int, period_s: float, random: Random, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._size, self._period_s = folder, size, period_s
        self._random, self._clock = random, clock
        self._reservoirs: list[_Reservoir] = []

    def offer(self, sent: SentRequest) -> None:
        """Keep a request, perhaps in place of another."""
        if not self._size:
            return
        reservoir = self._current()
        reservoir.offered += 1
        if len(reservoir.entries) < self._size:
            reservoir.entries.append(_Entry(sent))
        else:
            place = self._random.randrange(reservoir.offered)
            if place >= self._size:
                return
            reservoir.entries[place] = _Entry(sent)
        reservoir.changed = True

    async def flush(self) -> None:
        """Write what has changed since the last time; a folder that cannot be written costs the sample, no more."""
        due = [(reservoir.period, list(reservoir.entries)) for reservoir in self._reservoirs if reservoir.changed]
        for reservoir in self._reservoirs:
            reservoir.changed = False
        self._reservoirs = self._reservoirs[-1:]
        if due:
            try:
                await asyncio.to_thread(self._write, due)
            except OSError as error:
                _log.warning("requests cannot be recorded in %s: %s; the next are tried again", self._folder, error)

    def _current(self) -> _Reservoir:
        period = int(self._clock() // self._period_s)
        if not self._reservoirs or self._reservoirs[-1].period != period:
            self._reservoirs.append(_Reservoir(period, []))
        return self._reservoirs[-1]

    def _write(self, due: list[tuple[int, list[_Entry]]]) -> None:
        for period, entries in due:
            records = [entry.encode() for entry in entries]  # before the disk can refuse: it lets the snapshot go
            with replacing(self._folder / f"{self._start(period)}-{process_name()}{_SUFFIX}") as part:
                write_records(part, records)
        oldest = self._start(max(period for period, _ in due) - _PERIODS_KEPT + 1)
        for path in self._folder.glob(f"[!.]*{_SUFFIX}"):
            if path.name < oldest:
                path.unlink(missing_ok=True)

    def _start(self, period: int) -> str:
        return f"{datetime.fromtimestamp(period * self._period_s, UTC):%Y%m%dT%H%M%SZ}"
