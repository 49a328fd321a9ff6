"""Processes vanish between any two looks at them: that is no fault, and every one that stays is ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from infra.local import processes
from infra.local.processes import (
    MARKER,
    descendants,
    end_processes,
    family_of,
    has_ended,
    memory_of,
    record_groups,
    recorded_groups,
    stack_processes,
    tree_memory,
    wait_until_ended,
    wait_until_gone,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VANISHED = (
    psutil.NoSuchProcess(1),
    psutil.ZombieProcess(1),
    ProcessLookupError(errno.ESRCH, "No such process"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
)
LOOKS = ("environ", "uids", "status", "ppid", "create_time", "is_running", "terminate", "kill", "memory_full_info")
SLEEP = "import time; time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
RESTLESS = """\
import os, time
for _ in range(2000):
    child = os.fork()
    if not child:
        if os.fork(): os._exit(0)
        time.sleep(0.002)
        os._exit(0)
    os.waitpid(child, 0)
time.sleep(600)
"""
"""Starts what ends at once and has no parent, all the while."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process of the stack whose state folder is `tmp_path`."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str) -> subprocess.Popen[str]:
        environment = {**os.environ, MARKER: str(tmp_path)}
        process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_all_are_ended_deaf_ones_and_those_that_restless_ones_start_meanwhile(tmp_path: Path, start: Any) -> None:
    quiet, deaf, *restless = start(SLEEP), start(DEAF), start(RESTLESS), start(RESTLESS)
    assert deaf.stdout.readline() == "deaf\n"
    assert end_processes(tmp_path, grace_s=0.5) >= 4
    assert stack_processes(tmp_path) == []
    assert quiet.wait(5) == -signal.SIGTERM
    assert deaf.wait(5) == -signal.SIGKILL
    assert all(process.wait(5) in {-signal.SIGTERM, -signal.SIGKILL} for process in restless)


def test_one_that_vanishes_while_it_is_waited_for_has_ended(
    tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernel 6.18 says ENOENT where others say ESRCH; psutil lets that through."""

    real = os.pidfd_open

    def gone(pid: int, flags: int = 0) -> int:
        if pid == os.getpid():
            return real(pid, flags)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    process = start(SLEEP)
    monkeypatch.setattr(os, "pidfd_open", gone)
    assert end_processes(tmp_path, grace_s=5) == 1
    assert process.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize("error", VANISHED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("look", LOOKS)
def test_whatever_a_look_at_one_that_vanishes_raises_the_others_are_found(
    tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch, look: str, error: Exception
) -> None:
    stays, vanishes = start(SLEEP), start(SLEEP)
    path = tmp_path / "groups.json"
    record_groups(path, [os.getpgrp()])
    real = getattr(psutil.Process, look)

    def looked_at(process: psutil.Process, *arguments: Any, **options: Any) -> Any:
        if process.pid == vanishes.pid:
            raise error
        return real(process, *arguments, **options)

    monkeypatch.setattr(psutil.Process, look, looked_at)
    found = {process.pid for process in stack_processes(tmp_path, recorded_groups(path))}
    assert stays.pid in found
    assert stays.pid in {process.pid for process in descendants(os.getpid())}
    record_groups(path, [stays.pid, vanishes.pid])
    tree_memory(vanishes.pid)
    assert tree_memory(stays.pid) > 0
    assert end_processes(tmp_path, grace_s=0.1) >= 1
    assert stays.wait(5) == -signal.SIGTERM


def test_nothing_is_left_of_one_that_has_ended(start: Any) -> None:
    process = start("pass")
    seen = psutil.Process(process.pid)
    assert wait_until_ended([seen], 5) == []  # a zombie of ours
    assert has_ended(seen)
    process.wait()
    assert wait_until_gone(process.pid, 0)
    assert family_of(process.pid) == []
    assert (tree_memory(process.pid), memory_of(seen)) == (0, 0)


def test_those_that_live_on_are_told(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = psutil.Process(start(SLEEP).pid)
    monkeypatch.setattr(processes, "_POLL_S", 0)
    assert wait_until_ended([seen], 0) == [seen]
    assert not wait_until_gone(seen.pid, 0)
