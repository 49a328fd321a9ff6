"""Nothing of what `run` runs is left, whoever is ended, and how: a real pytest, with a real stack and a Redis in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from feature_repo.contracts.places import REPOSITORY
from infra.local.processes import descendants, has_ended, wait_until_ended
from tests.integration.test_local_stack import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 100
RUN = (sys.executable, "-m", "infra.local", "run", "--toolchain-only", "--")
DAEMON = """\
import os, signal, sys, time
if os.fork(): sys.exit()
os.setsid()
if os.fork(): sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.close(1), os.close(2)  # else whoever waits for these pipes waits for this process
open(sys.argv[1] + '.part', 'w').write(str(os.getpid()))
os.rename(sys.argv[1] + '.part', sys.argv[1])
time.sleep(600)
"""
"""In a session of its own, without parents, and deaf to SIGTERM."""
CONFTEST = """\
from tests.interrupts import end_by_sigterm_as_by_ctrl_c

end_by_sigterm_as_by_ctrl_c()
"""
TINY_TEST = """\
import subprocess, sys, time
from pathlib import Path

from tests.integration.test_local_stack import local, state
from tests.redis_server import redis_server

HERE = Path(__file__).parent


def test_that_takes_long(state):
    assert local(state, "up", "--only", "redis").returncode == 0
    with redis_server():
        subprocess.run([sys.executable, HERE / "daemon.py", HERE / "pid"], env={}, check=True)
        time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "daemon.py").write_text(DAEMON)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_tiny.py").write_text(TINY_TEST)
    return tmp_path


@pytest.fixture
def started(folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """What a test starts; it is killed with all below it if the test fails to end it."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        for each in (*descendants(process.pid), process):
            each.kill()
        process.communicate()


def start(folder: Path, started: list[subprocess.Popen[str]], *command: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=clean_environment(folder / "state"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # as a terminal's foreground group is one
    )
    started.append(process)
    return process


def all_below(process: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    """Everything that a command has started, when the last of it has."""
    deadline = time.monotonic() + DEADLINE_S
    while not (folder / "pid").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the last process was not started"
        time.sleep(0.05)
    return descendants(process.pid)


def pytest_process(processes: list[psutil.Process]) -> psutil.Process:
    return next(process for process in processes if "pytest" in process.cmdline())


def test_a_daemon_ends_with_the_command_that_left_it(folder: Path, started: list[subprocess.Popen[str]]) -> None:
    pid = folder / "pid"
    script = f"{sys.executable} {folder}/daemon.py {pid}; while ! [ -e {pid} ]; do sleep 0.05; done; exit 3"
    process = start(folder, started, *RUN, "env", "-i", "sh", "-c", script)
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3, said
    assert "Ended 1 processes left behind by env" in said
    assert not psutil.pid_exists(int(pid.read_text()))


@pytest.mark.parametrize(
    ("whom", "blow"),
    [
        ("make", signal.SIGTERM),
        ("make and its group", signal.SIGINT),  # as Ctrl-C does
        ("run", signal.SIGTERM),
        ("run", signal.SIGINT),
        ("pytest", signal.SIGTERM),
        ("pytest", signal.SIGKILL),
    ],
)
def test_whatever_ends_tests_ends_all_that_they_started(
    folder: Path, started: list[subprocess.Popen[str]], whom: str, blow: signal.Signals
) -> None:
    if whom.startswith("make"):
        process = start(folder, started, "make", "test", f"ARGS={folder / 'test_tiny.py'} --rootdir {folder}")
    else:
        process = start(folder, started, *RUN, sys.executable, "-m", "pytest", str(folder / "test_tiny.py"))
    below = all_below(process, folder)
    names = [process.name() for process in below]
    assert names.count("redis-server") == 2, names
    assert any("supervisor.supervisord" in process.cmdline() for process in below)
    assert int((folder / "pid").read_text()) in {process.pid for process in below}

    match whom:
        case "make and its group":
            os.killpg(process.pid, blow)
        case "pytest":
            pytest_process(below).send_signal(blow)
        case _:
            process.send_signal(blow)

    said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode, said
    assert wait_until_ended(below, 0) == [], said


def test_if_run_itself_is_killed_pytest_puts_away_what_its_fixtures_started(
    folder: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = start(folder, started, *RUN, sys.executable, "-m", "pytest", str(folder / "test_tiny.py"))
    below = all_below(process, folder)
    daemon = psutil.Process(int((folder / "pid").read_text()))
    process.kill()
    try:
        assert wait_until_ended((each for each in below if each != daemon), DEADLINE_S) == []
        assert not has_ended(daemon), "no fixture knows of it"
    finally:
        daemon.kill()


def test_a_program_that_is_none_is_named(folder: Path, started: list[subprocess.Popen[str]]) -> None:
    for command, status, words in (("no-such-program", 127, "no such program"), (str(folder), 126, "may not be run")):
        process = start(folder, started, *RUN, command)
        said, _ = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, words in said) == (status, True), said
