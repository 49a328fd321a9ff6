"""What is checked before anything starts: ports, disk, memory. Each refusal is one sentence with its setting."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from infra.local.errors import PreflightError
from infra.local.processes import port_holder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from infra.local.parts import Part
    from infra.local.settings import Address, LocalSettings

GIGABYTE = 1024**3
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


def is_free(address: Address) -> bool:
    """Tell whether somebody could listen on `address` now."""
    try:
        (family, kind, protocol, _, place), *_ = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError:
        return False
    return True


def check_ports(parts: Iterable[Part]) -> None:
    """Raise PreflightError for the first address of `parts` that is taken, or that two of them share."""
    seen: dict[tuple[str, int], Address] = {}
    for part in parts:
        for address in part.addresses:
            other = seen.setdefault((address.host, address.port), address)
            if other is not address:
                msg = f"{other.setting} and {address.setting} both say {address}: give each a port of its own"
                raise PreflightError(msg)
            if not is_free(address):
                msg = (
                    f"port {address.port}, which {part.name} needs, is in use by {port_holder(address.port)}: "
                    f"end that, or set {address.setting} to another port"
                )
                raise PreflightError(msg)


def available_memory() -> int:
    """Return the bytes that can still be had: the machine's, or what a container's limit leaves."""
    available = psutil.virtual_memory().available + psutil.swap_memory().free
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
        if limit != "max":
            available = min(available, int(limit) - int(_CGROUP_USED.read_text()))
    except (OSError, ValueError):
        pass
    return available


def check_machine(state: Path, settings: LocalSettings) -> None:
    """Raise PreflightError when disk or memory is too short."""
    free = shutil.disk_usage(state).free / GIGABYTE
    if free < settings.min_free_disk_gb:
        msg = (
            f"{state} has {free:.1f} GB of free disk, expected at least {settings.min_free_disk_gb:g}: "
            f"make room, set KESTREL_STATE to another disk, or lower KESTREL_MIN_FREE_DISK_GB"
        )
        raise PreflightError(msg)
    memory = available_memory() / GIGABYTE
    if memory < settings.min_free_memory_gb:
        msg = (
            f"{memory:.1f} GB of memory are available, expected at least {settings.min_free_memory_gb:g}: "
            f"end other programs, or lower KESTREL_MIN_FREE_MEMORY_GB (and KESTREL_SPARK_DRIVER_MEMORY)"
        )
        raise PreflightError(msg)
