"""Starting, watching and stopping the stack of one state folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import deque
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from feature_repo.contracts.orchestration import POOL_COMMAND
from feature_repo.contracts.places import REPOSITORY
from feature_repo.contracts.publishing import write_private
from infra.local.errors import LocalError, PartFailedError, SettingsError
from infra.local.parts import airflow_environment, common_environment, local_parts
from infra.local.places import Places
from infra.local.preflight import check_machine, check_ports
from infra.local.processes import (
    end_processes,
    marker_environment,
    memory_of,
    record_groups,
    recorded_groups,
    stack_processes,
    tree_memory,
)
from infra.local.settings import LocalSettings, read_settings, stated_settings
from infra.local.supervisor import NOT_RUNNING, Supervisor, write_configuration
from infra.local.toolchain import find_toolchain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from infra.local.parts import Part

_POLL_S = 0.25
_LOG_TAIL = 15
_STOP_SECONDS = 45
_POOL_STAMP = "pool.json"


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that is known about one stack before it is touched."""

    places: Places
    settings: LocalSettings
    parts: Mapping[str, Part]
    environment: Mapping[str, str]
    """What every process of the stack gets."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One row of `make status`."""

    name: str
    state: str
    """'healthy', what is wrong, or why it does not run."""
    is_healthy: bool
    is_wanted: bool
    pid: int
    started: int
    memory: int
    url: str


@contextmanager
def one_at_a_time(places: Places, say: Callable[[str], None]) -> Iterator[None]:
    """Let one command at a time start or stop the stack; the kernel frees the lock of a killed one."""
    places.run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another command is starting or stopping this stack: waiting for it ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def describe_stack(state: Path, environ: Mapping[str, str]) -> Stack:
    """Read the settings and say what the stack consists of; nothing is started."""
    places = Places(state)
    settings = read_settings(state, environ)
    toolchain = find_toolchain(places, environ)
    for folder in (places.run, places.logs, places.redis, places.mlflow, places.airflow, places.sources):
        folder.mkdir(parents=True, exist_ok=True)
    environment = common_environment(places, stated_settings(state, environ), toolchain, environ)
    return Stack(places, settings, local_parts(places, settings, toolchain), environment)


def chosen_parts(stack: Stack, only: Sequence[str]) -> list[str]:
    """Return the names of the parts to start, in order; SettingsError for one that is not here."""
    for name in only:
        if name not in stack.parts:
            msg = f"part {name!r}: expected one of {', '.join(stack.parts)} (foreign addresses are not started here)"
            raise SettingsError(msg)
    return [name for name in stack.parts if not only or name in only]


def last_lines(path: Path, count: int = _LOG_TAIL) -> str:
    """Return the last lines of a log, or nothing."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return "".join(deque(stream, maxlen=count)).rstrip()
    except OSError:
        return ""


def migrate_airflow(stack: Stack, say: Callable[[str], None]) -> None:
    """Bring Airflow's database to the installed version.

    The work is done on a copy that takes the database's name at the end: a migration that was killed leaves no half.
    """
    home = stack.places.airflow
    stamp = home / "migrated.json"
    wanted = json.dumps({"airflow": version("apache-airflow")})
    database = home / "airflow.db"
    if database.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    say("Migrating Airflow's database ...")
    part = home / "airflow.db.part"
    for leftover in home.glob("airflow.db.part*"):
        leftover.unlink()
    if database.exists():
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
    on_copy = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{part}"}
    migration = ("-m", "airflow", "db", "migrate")
    _run_airflow(stack, migration, "airflow-migrate", "database could not be migrated", on_copy)
    with closing(sqlite3.connect(part)) as connection:
        # Readers do not wait for the writer then; three processes share this file.
        connection.execute("PRAGMA journal_mode=WAL")
    for leftover in home.glob("airflow.db-*"):
        leftover.unlink()
    (home / _POOL_STAMP).unlink(missing_ok=True)
    part.replace(database)
    write_private(stamp, wanted)


def make_airflow_pool(stack: Stack) -> None:
    """Make the pool of the DAGs' heavy tasks, unless this database has it; a running Airflow takes no notice."""
    stamp = stack.places.airflow / _POOL_STAMP
    wanted = json.dumps(POOL_COMMAND)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    _run_airflow(stack, POOL_COMMAND, "airflow-pool", "pool could not be made", {})
    write_private(stamp, wanted)


def _run_airflow(stack: Stack, arguments: Sequence[str], log_name: str, fault: str, changed: Mapping[str, str]) -> None:
    environment = {**os.environ, **stack.environment, **airflow_environment(stack.places, stack.settings), **changed}
    log = stack.places.log(log_name)
    with log.open("wb") as stream:
        command = [sys.executable, *arguments]
        status = subprocess.run(
            command, cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream, check=False
        ).returncode
    if status:
        msg = f"Airflow's {fault} (status {status}):\n{last_lines(log)}\nThe log is {log}"
        raise PartFailedError(msg)


def _fail(stack: Stack, name: str, reason: str) -> PartFailedError:
    log = stack.places.log(name)
    return PartFailedError(f"{name} {reason}. Its last lines:\n{last_lines(log)}\nThe log is {log}")


def wait_until_healthy(stack: Stack, names: Sequence[str], say: Callable[[str], None]) -> None:
    """Wait for every part in `names`; PartFailedError for one that ends, or is not healthy in time."""
    supervisor = Supervisor(stack.places)
    began = time.monotonic()
    waiting = list(names)
    pids: dict[str, int] = {}
    ailments: dict[str, str] = {}
    while waiting:
        programs = supervisor.programs()
        for name in list(waiting):
            program = programs.get(name)
            pid = pids.setdefault(name, program.pid) if program and program.pid else pids.get(name, 0)
            if program is None or program.state in NOT_RUNNING | {"BACKOFF"} or (pid and program.pid != pid):
                reason = program.spawn_error if program else "unknown to the supervisor"
                with suppress(LocalError):
                    supervisor.stop_program(name)
                raise _fail(stack, name, f"ended while it was starting ({reason or 'its own doing'})")
            ailment = stack.parts[name].ailment()
            if ailment is None:
                waiting.remove(name)
                say(f"  {name} is healthy after {time.monotonic() - began:.1f} s")
            else:
                ailments[name] = ailment
        if waiting and time.monotonic() - began > stack.settings.start_timeout_s:
            name = waiting[0]
            limit = f"{stack.settings.start_timeout_s:g} s (KESTREL_START_TIMEOUT_S)"
            raise _fail(stack, name, f"was not healthy within {limit}: {ailments[name]}")
        if waiting:
            time.sleep(_POLL_S)


def _wanted(places: Places) -> set[str]:
    try:
        return set(json.loads(places.wanted.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def start_stack(
    state: Path, environ: Mapping[str, str], *, only: Sequence[str] = (), say: Callable[[str], None]
) -> Stack:
    """Start what does not run yet, restart what was configured anew, and wait until all of it is healthy."""
    places = Places(state)
    with one_at_a_time(places, say):
        stack = describe_stack(state, environ)
        names = chosen_parts(stack, only)
        supervisor = Supervisor(places)
        if supervisor.pid is None:
            ended = end_processes(state, recorded_groups(places.groups))
            if ended:
                say(f"Ended {ended} processes that a killed supervisor had left behind")
        running = {name for name, program in supervisor.programs().items() if program.pid}
        missing = [name for name in names if name not in running]
        if missing:
            check_machine(state, stack.settings)
            check_ports([stack.parts[name] for name in missing])
        write_configuration(stack.parts.values(), stack.environment, places)
        if supervisor.pid is None:
            supervisor.start({**environ, **marker_environment(state)})
        restarted = supervisor.apply_configuration()
        names = [name for name in stack.parts if name in names or name in restarted]
        write_private(places.wanted, json.dumps(sorted(_wanted(places) | set(names))))
        airflow = [name for name in names if name.startswith("airflow-")]
        others = [name for name in names if name not in airflow]
        running = {name for name, program in supervisor.programs().items() if program.pid}
        if missing or restarted:
            say(f"Starting {', '.join(name for name in names if name not in running)} ...")
        for name in others:
            supervisor.start_program(name)
        if airflow:
            migrate_airflow(stack, say)
            make_airflow_pool(stack)
        for name in airflow:
            supervisor.start_program(name)
        record_groups(places.groups, [program.pid for program in supervisor.programs().values() if program.pid])
        wait_until_healthy(stack, names, say)
        record_groups(places.groups, [program.pid for program in supervisor.programs().values() if program.pid])
    return stack


def stop_stack(state: Path, *, say: Callable[[str], None]) -> int:
    """Stop everything of this state folder, gracefully if it lets itself; return how many processes were left over."""
    places = Places(state)
    if not places.run.exists():
        return end_processes(state)
    with one_at_a_time(places, say):
        groups = recorded_groups(places.groups)
        supervisor = Supervisor(places)
        if supervisor.pid is not None:
            say("Stopping the stack ...")
            if not supervisor.shut_down(_STOP_SECONDS):
                say("The supervisor does not end: ending it and all its processes")
        left = end_processes(state, groups)
        if left:
            say(f"Ended {left} processes that had outlived their supervisor")
        rest = stack_processes(state, groups)
        if rest:
            names = ", ".join(f"{process.name()} ({process.pid})" for process in rest)
            msg = f"these processes do not end, not even by SIGKILL: {names}; they wait for a device or a debugger"
            raise LocalError(msg)
        for path in (places.wanted, places.groups, places.supervisor_pid, places.socket):
            path.unlink(missing_ok=True)
    return left


def stop_part(state: Path, environ: Mapping[str, str], name: str) -> None:
    """Stop one part and leave the others alone; it stays stopped until it is started again."""
    stack = describe_stack(state, environ)
    chosen_parts(stack, [name])
    Supervisor(stack.places).stop_program(name)
    write_private(stack.places.wanted, json.dumps(sorted(_wanted(stack.places) - {name})))


def stack_status(state: Path, environ: Mapping[str, str]) -> list[PartStatus]:
    """Say of every part of this machine whether it runs and is healthy."""
    stack = describe_stack(state, environ)
    programs = Supervisor(stack.places).programs()
    wanted = _wanted(stack.places)
    rows = []
    for name, part in stack.parts.items():
        program = programs.get(name)
        pid = program.pid if program else 0
        ailment = part.ailment() if pid else (program.state.lower() if program else "not started")
        rows.append(
            PartStatus(
                name=name,
                state=ailment or "healthy",
                is_healthy=ailment is None,
                is_wanted=name in wanted,
                pid=pid,
                started=program.started if program and pid else 0,
                memory=tree_memory(pid) if pid else 0,
                url=part.url,
            )
        )
    return rows


def leftovers(state: Path) -> int:
    """Return how many processes of the stack have no supervisor any more."""
    places = Places(state)
    return 0 if Supervisor(places).pid is not None else len(stack_processes(state, recorded_groups(places.groups)))


def stack_memory(state: Path) -> int:
    """Return the memory of all processes of the stack, jobs included, in bytes."""
    return sum(memory_of(process) for process in stack_processes(state))


def reset_state(state: Path, *, everything: bool, say: Callable[[str], None]) -> list[str]:
    """Stop the stack and delete its state, but not downloads and tools unless `everything`; return what is kept."""
    stop_stack(state, say=say)
    kept = set() if everything else {Places(state).sources.name, Places(state).tools.name}
    for entry in sorted(state.iterdir()) if state.exists() else ():
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if everything and state.exists():
        state.rmdir()
    return sorted(name for name in kept if (state / name).exists())


def command_environment(state: Path, environ: Mapping[str, str], *, toolchain_only: bool) -> dict[str, str]:
    """Return the environment for a command of a person: as the stack's own, but without the marker of its processes."""
    places = Places(state)
    if toolchain_only:
        uv = places.tools / "uv" / "bin"
        variables = find_toolchain(places, environ).environment(environ)
        return {**environ, **variables, "PATH": f"{variables['PATH']}{os.pathsep}{uv}"}
    stack = describe_stack(state, environ)
    marker = marker_environment(state)
    variables = {**stack.environment, **airflow_environment(places, stack.settings)}
    return {**environ, **{name: value for name, value in variables.items() if name not in marker}}
