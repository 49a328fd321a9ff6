"""Whether a job was killed for want of memory, as far as the kernel's counters tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.control_group import ROOT, control_group, lines

if TYPE_CHECKING:
    from pathlib import Path


def oom_kills(root: Path = ROOT) -> int:
    """Return how many processes the kernel has killed for want of memory, in this control group and on this machine.

    Only a rise says something. Outside Linux, and where the counters cannot be read, it is always 0.
    """
    counted = _counters(root / "proc" / "vmstat")
    group = control_group(root)
    return counted + (_counters(group / "memory.events") if group else 0)


def _counters(path: Path) -> int:
    return sum(int(count) for name, _, count in (line.partition(" ") for line in lines(path)) if name == "oom_kill")
