"""Finding, measuring and ending every process of a stack, or of a command, whoever its parent is by now.

Each process that a stack starts inherits KESTREL_STACK=<state folder>, which the kernel keeps readable in
`/proc/<pid>/environ` for the life of the process: a job whose supervisor, scheduler or task runner was killed is
still found. Programs that rewrite their title would overwrite that memory; SPT_NOENV (Python's setproctitle) and
Redis's `set-proc-title no` prevent it. Process groups that were recorded at the start are a second means.

A process may vanish between any two looks at it. Whatever the look then raises, the process has ended: `VANISHED`.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from feature_repo.contracts.publishing import write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

MARKER = "KESTREL_STACK"
VANISHED = (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError)
"""What a look at a process raises that has ended: psutil's own, and what the kernel says of its number or its files in
/proc, which psutil lets through here and there."""
_NOT_OURS = (*VANISHED, psutil.AccessDenied)
_ROUNDS = 20
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Group:
    """A process group that a stack started: its leader's process id and when that was created (seconds since 1970)."""

    leader: int
    created: float


def marker_environment(state: Path) -> dict[str, str]:
    """Return what makes a process and all its descendants findable."""
    return {MARKER: str(state), "SPT_NOENV": "1"}


def record_groups(path: Path, leaders: Iterable[int]) -> None:
    """Write down the groups led by `leaders`; those that have ended meanwhile are left out."""
    groups = []
    for pid in leaders:
        try:
            groups.append({"leader": pid, "created": psutil.Process(pid).create_time()})
        except _NOT_OURS:
            continue
    write_private(path, json.dumps(groups))


def recorded_groups(path: Path) -> list[Group]:
    """Read what `record_groups` wrote; an absent or broken file has none, for the marker finds them too."""
    try:
        return [Group(int(entry["leader"]), float(entry["created"])) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _family() -> set[int]:
    family = {os.getpid()}
    parent = os.getppid()
    while parent and parent not in family:
        family.add(parent)
        try:
            parent = psutil.Process(parent).ppid()
        except _NOT_OURS:
            break
    return family


def _environment(process: psutil.Process) -> Mapping[str, str]:
    try:
        return process.environ()
    except _NOT_OURS:
        return {}


def _in_recorded_group(process: psutil.Process, groups: Mapping[int, Group]) -> bool:
    try:
        group = groups.get(os.getpgid(process.pid))
        if group is None or process.create_time() < group.created:
            return False
        if psutil.pid_exists(group.leader):
            return abs(psutil.Process(group.leader).create_time() - group.created) < 1
        return not _environment(process)
    except _NOT_OURS:
        return False


def stack_processes(state: Path, groups: Iterable[Group] = ()) -> list[psutil.Process]:
    """Return the living processes of the stack whose state folder is `state`, but never the caller or its parents."""
    spared = _family()
    own_user = os.getuid()
    by_leader = {group.leader: group for group in groups}
    found: dict[int, psutil.Process] = {}
    for process in _all_processes():
        try:
            if process.pid in spared or process.uids().real != own_user or process.status() == psutil.STATUS_ZOMBIE:
                continue
        except _NOT_OURS:
            continue
        if _environment(process).get(MARKER) == str(state) or _in_recorded_group(process, by_leader):
            found[process.pid] = process
    for process in list(found.values()):
        found |= {child.pid: child for child in descendants(process.pid) if child.pid not in spared}
    return list(found.values())


def descendants(pid: int) -> list[psutil.Process]:
    """Return the living processes below one, in any depth."""
    children: dict[int, list[psutil.Process]] = {}
    for process in _all_processes():
        with suppress(*_NOT_OURS):
            children.setdefault(process.ppid(), []).append(process)
    found: list[psutil.Process] = []
    parents = [pid]
    while parents:
        below = children.pop(parents.pop(), [])
        found += below
        parents += [process.pid for process in below]
    return [process for process in found if not has_ended(process)]


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process and all below it, as far as they live."""
    try:
        return [psutil.Process(pid), *descendants(pid)]
    except VANISHED:
        return []


def _all_processes() -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        try:
            yield psutil.Process(pid)
        except _NOT_OURS:
            continue


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process has ended; a zombie has, and when it is reaped is its parent's affair."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except VANISHED:
        return True
    except psutil.AccessDenied:
        return False


def wait_until_ended(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until all of `processes` have ended, `timeout_s` seconds at most; return those that live still.

    psutil's own `wait_procs` opens each process once more, which the kernel may refuse in a way that psutil does not
    know (pidfd_open: ENOENT) of one that ends at that moment.
    """
    deadline = time.monotonic() + timeout_s
    living = list(processes)
    while living := [process for process in living if not has_ended(process)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_S)
    return living


def _signal(processes: Iterable[psutil.Process], *, kill: bool) -> None:
    for process in processes:
        try:
            process.kill() if kill else process.terminate()
        except _NOT_OURS:
            continue


def end_processes(state: Path, groups: Iterable[Group] = (), *, grace_s: float = 5.0) -> int:
    """End every process of the stack: SIGTERM, `grace_s` seconds, SIGKILL until none is found. Return how many."""
    groups = list(groups)
    return end_all(lambda: stack_processes(state, groups), grace_s=grace_s)


def end_all(find: Callable[[], list[psutil.Process]], *, grace_s: float) -> int:
    """End whatever `find` finds: SIGTERM, `grace_s` seconds, SIGKILL until it finds none. Return how many."""
    first = find()
    ended = {process.pid for process in first}
    _signal(first, kill=False)
    wait_until_ended(first, grace_s)
    for _ in range(_ROUNDS):
        rest = find()
        if not rest:
            break
        ended |= {process.pid for process in rest}
        _signal(rest, kill=True)
        wait_until_ended(rest, 1)
    return len(ended)


def memory_of(process: psutil.Process) -> int:
    """Return a process's share of memory in bytes (PSS: pages shared with others are divided among them)."""
    try:
        return int(process.memory_full_info().pss)
    except _NOT_OURS:
        return 0


def tree_memory(pid: int) -> int:
    """Return the memory of a process and its descendants, in bytes."""
    return sum(map(memory_of, family_of(pid)))


def port_holder(port: int) -> str:
    """Name who listens on a TCP port of this machine, as far as this user may see."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        connections = []
    for connection in connections:
        listens_on = getattr(connection.laddr, "port", None) if connection.status == psutil.CONN_LISTEN else None
        if listens_on == port and connection.pid:
            try:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (process {process.pid}, user {process.username()})"
            except _NOT_OURS:
                break
    return "a process of another user"


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    """Wait until `pid` has ended; tell whether it has."""
    try:
        return not wait_until_ended([psutil.Process(pid)], timeout_s)
    except VANISHED:
        return True
