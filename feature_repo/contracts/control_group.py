"""The control group of this process, whose limits and counters Linux tells of in files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ROOT = Path("/")


def control_group(root: Path = ROOT) -> Path | None:
    """Return the folder of this process's control group, of version 2; None where there is none."""
    for line in lines(root / "proc" / "self" / "cgroup"):
        hierarchy, _, group = line.split(":", 2)
        if hierarchy == "0":  # version 2
            return root / "sys" / "fs" / "cgroup" / group.lstrip("/")
    return None


def lines(path: Path) -> list[str]:
    """Return the lines of a file; none of one that cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8").splitlines()
    return []
