"""Whether a job was killed for want of memory, as far as the kernel's counters tell."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def oom_kills(root: Path = _ROOT) -> int:
    """Return how many processes the kernel has killed for want of memory, in this control group and on this machine.

    Only a rise says something. Outside Linux, and where the counters cannot be read, it is always 0.
    """
    counted = _counters(root / "proc" / "vmstat")
    for line in _lines(root / "proc" / "self" / "cgroup"):
        hierarchy, _, group = line.split(":", 2)
        if hierarchy == "0":  # version 2
            counted += _counters(root / "sys" / "fs" / "cgroup" / group.lstrip("/") / "memory.events")
    return counted


def _counters(path: Path) -> int:
    return sum(int(count) for name, _, count in (line.partition(" ") for line in _lines(path)) if name == "oom_kill")


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").splitlines()
    return []
