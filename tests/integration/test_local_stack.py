"""A real supervisord with a real Redis under it, in a state folder and on ports of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest

from feature_repo.contracts.places import REPOSITORY
from infra.local.places import Places
from infra.local.processes import MARKER, stack_processes
from infra.local.settings import ensure_settings_file, read_settings, set_setting
from infra.local.supervisor import Supervisor
from serving.protocol.free_ports import free_ports
from tests.awkward_paths import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT_SETTINGS = {
    "KESTREL_MLFLOW_URI": "http://127.0.0.1:{}",
    "KESTREL_AIRFLOW_URI": "http://127.0.0.1:{}",
    "KESTREL_MODEL_SERVER_GRPC": "127.0.0.1:{}",
    "KESTREL_MODEL_SERVER_REST": "http://127.0.0.1:{}",
    "KESTREL_RECOMMENDER_URI": "http://127.0.0.1:{}",
    "KESTREL_REDIS_URL": "redis://:a-secret@127.0.0.1:{}/0",
}
DEADLINE_S = 20


def clean_environment(state: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KESTREL_")}
    return {**kept, "KESTREL_STATE": str(state)}


def local(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.local", *arguments],
        cwd=REPOSITORY,
        env=clean_environment(state),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / LOCAL
    ensure_settings_file(folder)
    for (name, form), port in zip(PORT_SETTINGS.items(), free_ports(len(PORT_SETTINGS)), strict=True):
        set_setting(folder, name, form.format(port))
    set_setting(folder, "KESTREL_MIN_FREE_MEMORY_GB", "0")
    yield folder
    local(folder, "down")
    left = stack_processes(folder)
    for process in left:
        process.kill()
    assert not left


def redis_pid(state: Path) -> int:
    return Supervisor(Places(state)).programs()["redis"].pid


def supervisor_pid(state: Path) -> int:
    return int(Places(state).supervisor_pid.read_text())


def until_none_is_left(state: Path) -> list[psutil.Process]:
    deadline = time.monotonic() + DEADLINE_S
    while stack_processes(state) and time.monotonic() < deadline:
        time.sleep(0.05)
    return stack_processes(state)


def has_ended(process: psutil.Process) -> bool:
    """A zombie has ended; when it is reaped is its new parent's affair."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def orphan(state: Path) -> psutil.Process:
    """A job whose parents are all gone, deaf to SIGTERM, in a session of its own: what a killed scheduler leaves."""
    script = (
        "import os, signal, time, sys\n"
        "if os.fork(): sys.exit()\n"
        "os.setsid()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getpid(), flush=True)\n"
        "os.close(1)\n"  # else whoever waits for the pipe waits for this process
        "time.sleep(300)\n"
    )
    environment = {**os.environ, MARKER: str(state)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    process = psutil.Process(int(done.stdout))
    assert process.ppid() != os.getpid()
    return process


def test_up_is_idempotent_and_down_leaves_nothing(state: Path) -> None:
    first = local(state, "up", "--only", "redis")
    assert first.returncode == 0, first.stderr
    assert "redis is healthy after" in first.stderr
    pid = redis_pid(state)
    assert local(state, "up", "--only", "redis").returncode == 0
    assert redis_pid(state) == pid
    status = local(state, "status")
    assert status.returncode == 0, status.stdout
    assert str(pid) in status.stdout
    down = local(state, "down")
    assert down.returncode == 0, down.stderr
    assert until_none_is_left(state) == []
    status = local(state, "status")
    assert status.returncode == 0, status.stderr
    assert "Nothing of the stack runs" in status.stderr


def test_down_twice_and_before_the_first_up_are_fine(state: Path) -> None:
    assert local(state, "down").returncode == 0
    assert local(state, "down").returncode == 0


def test_killed_part_is_started_again(state: Path) -> None:
    local(state, "up", "--only", "redis")
    pid = redis_pid(state)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while redis_pid(state) in {0, pid} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert redis_pid(state) not in {0, pid}
    assert local(state, "up", "--only", "redis").returncode == 0


def test_stopped_part_stays_stopped_until_it_is_started(state: Path) -> None:
    local(state, "up", "--only", "redis")
    assert local(state, "stop", "redis").returncode == 0
    assert redis_pid(state) == 0
    assert local(state, "start", "redis").returncode == 0
    assert redis_pid(state) != 0


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_down_ends_what_a_killed_or_hanging_supervisor_left(state: Path, blow: signal.Signals) -> None:
    local(state, "up", "--only", "redis")
    redis, job = psutil.Process(redis_pid(state)), orphan(state)
    os.kill(supervisor_pid(state), blow)
    down = local(state, "down")
    assert down.returncode == 0, down.stderr
    assert until_none_is_left(state) == []
    assert has_ended(redis)
    assert has_ended(job)


def test_up_after_a_killed_supervisor_ends_the_orphans_and_keeps_the_data(state: Path) -> None:
    import redis

    local(state, "up", "--only", "redis")
    url = read_settings(state, {}).redis_url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    before = psutil.Process(redis_pid(state))
    os.kill(supervisor_pid(state), signal.SIGKILL)
    again = local(state, "up", "--only", "redis")
    assert again.returncode == 0, again.stderr
    assert "had left behind" in again.stderr
    assert has_ended(before)
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"


def test_down_spares_the_processes_of_another_stack(state: Path, tmp_path: Path) -> None:
    other = orphan(tmp_path / "another")
    try:
        local(state, "up", "--only", "redis")
        local(state, "down")
        assert other.is_running()
    finally:
        other.kill()


def test_port_in_use_is_named_with_its_holder_and_setting_before_anything_starts(state: Path) -> None:
    address = read_settings(state, {}).addresses["redis_url"]
    with closing(socket.socket()) as squatter:
        squatter.bind((address.host, address.port))
        squatter.listen()
        up = local(state, "up", "--only", "redis")
    assert up.returncode == 1
    assert f"port {address.port}, which redis needs, is in use by" in up.stderr
    assert f"(process {os.getpid()}" in up.stderr
    assert "KESTREL_REDIS_URL" in up.stderr
    assert stack_processes(state) == []


def test_unknown_setting_is_refused_before_anything_starts(state: Path) -> None:
    set_setting(state, "KESTREL_MLFLOW_URL", "http://127.0.0.1:5000")
    up = local(state, "up", "--only", "redis")
    assert up.returncode == 1
    assert "unknown setting KESTREL_MLFLOW_URL; did you mean KESTREL_MLFLOW_URI" in up.stderr
    assert stack_processes(state) == []


def test_unknown_part_is_refused_with_the_known_ones(state: Path) -> None:
    up = local(state, "up", "--only", "redsi")
    assert up.returncode == 1
    assert "part 'redsi': expected one of redis, " in up.stderr


def test_part_that_ends_is_reported_with_its_last_lines(state: Path) -> None:
    folder = Places(state).redis
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonly.aof").write_text("this is no append-only file\n")
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("neither is this\n")
    up = local(state, "up", "--only", "redis")
    assert up.returncode == 1
    assert "redis ended while it was starting" in up.stderr
    assert f"The log is {Places(state).log('redis')}" in up.stderr
    assert "append" in up.stderr.lower()


def test_changed_setting_restarts_the_part_and_a_foreign_one_is_not_started(state: Path) -> None:
    local(state, "up", "--only", "redis")
    pid = redis_pid(state)
    (port,) = free_ports(1)
    set_setting(state, "KESTREL_REDIS_URL", f"redis://:a-secret@127.0.0.1:{port}/0")
    assert local(state, "up", "--only", "redis").returncode == 0
    assert redis_pid(state) not in {0, pid}
    set_setting(state, "KESTREL_REDIS_URL", "redis://redis.example.org:6379/0")
    up = local(state, "up", "--only", "redis")
    assert "part 'redis': expected one of airflow-api-server" in up.stderr


def test_reset_keeps_downloads_and_tools(state: Path) -> None:
    local(state, "up", "--only", "redis")
    (state / "sources" / "ml-100k").mkdir(parents=True)
    (state / "tools").mkdir(exist_ok=True)
    (state / "data" / "ml-100k").mkdir(parents=True)
    reset = local(state, "reset", "--yes", "1")
    assert reset.returncode == 0, reset.stderr
    assert sorted(entry.name for entry in state.iterdir()) == ["sources", "tools"]
    assert stack_processes(state) == []
