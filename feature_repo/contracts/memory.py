"""What memory a process may have: the kernel ends what does not fit, and tells nobody why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.control_group import ROOT, control_group, lines

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process may have, in bytes."""

    total: int
    """Of the machine, or of the container where that has less."""
    available: int
    """Of it, what nobody uses."""
    resident: int
    """What this process has already."""


def memory(root: Path = ROOT) -> Memory | None:
    """Return what this process may have; None where the kernel does not say so as Linux does."""
    machine, process = _kilobytes(root / "proc" / "meminfo"), _kilobytes(root / "proc" / "self" / "status")
    try:
        total, available, resident = machine["MemTotal"], machine["MemAvailable"], process["VmRSS"]
    except KeyError:
        return None
    group = control_group(root)
    limit = "".join(lines(group / "memory.max")) if group else ""
    if group and limit.isdigit():  # and not "max"
        used = int("".join(lines(group / "memory.current")) or 0)
        cached = sum(int(line.split()[1]) for line in lines(group / "memory.stat") if line.startswith("file "))
        total, available = min(total, int(limit)), min(available, int(limit) - used + cached)
    return Memory(total, available, resident)


def _kilobytes(path: Path) -> dict[str, int]:
    named = (line.partition(":") for line in lines(path))
    return {name: int(value.split()[0]) * 1024 for name, _, value in named if value.endswith(" kB")}
