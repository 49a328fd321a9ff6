"""What a command takes: seconds, the greatest memory of it and all its children, and what it printed last."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from infra.bench.errors import BenchError
from infra.local.processes import VANISHED, family_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psutil

_SAMPLE_S = 0.1
_FORKED_S = 5.0
_OUTPUT_SHOWN = 3000


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took."""

    seconds: float
    """From its start to its end."""
    peak_bytes: int
    """Resident memory of the process and its children at the worst moment, sampled ten times a second."""
    result: dict[str, Any]
    """The JSON object in its last line of output."""
    log: str
    """What it said on standard error."""


def run_measured(command: Sequence[str], environment: Mapping[str, str]) -> Taken:
    """Run `python -m <command>` and measure it.

    Raises:
        BenchError: It failed.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        sampler = _Sampler(process.pid)
        sampler.start()
        output, errors = process.communicate()
        sampler.stop()
    seconds = time.perf_counter() - began
    if process.returncode:
        msg = f"{' '.join(command)}: ended with status {process.returncode}: {errors[-_OUTPUT_SHOWN:]}"
        raise BenchError(msg)
    return Taken(seconds, sampler.peak, json.loads(output.splitlines()[-1]), errors)


class _Sampler(Thread):
    """Looks at the memory of a process and its children until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = Event()
        self.peak = 0

    def run(self) -> None:
        """Sample."""
        while not self._ended.wait(_SAMPLE_S):
            self.peak = max(self.peak, _resident(self._pid))

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()


def _resident(pid: int) -> int:
    total, now = 0, time.time()
    for member in family_of(pid):
        try:
            if now - member.create_time() > _FORKED_S or not _is_forked(member):
                total += member.memory_info().rss
        except VANISHED:
            continue
    return total


def _is_forked(member: psutil.Process) -> bool:
    """Tell whether a process has its parent's memory still, which would count twice: it runs no program of its own yet.

    Java begins each of its commands so. On a busy machine that lasts; a worker that stays what it is counts after a
    few seconds.
    """
    parent = member.parent()
    return parent is not None and member.cmdline() == parent.cmdline()
