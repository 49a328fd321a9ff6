"""supervisord: its configuration, rendered from the parts, and its control socket.

Every part is a program that is started by request (never by supervisord itself), in a process group of its own, and
started again if it ends unasked. What runs is compared with what is rendered: only parts that changed are restarted.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, cast
from xmlrpc.client import Fault, ServerProxy, Transport

from feature_repo.contracts.places import REPOSITORY
from feature_repo.contracts.publishing import write_private
from infra.local.errors import LocalError, SettingsError
from infra.local.processes import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from infra.local.parts import Part
    from infra.local.places import Places

_START_SECONDS = 30
_POLL_S = 0.1
_PING_S = 5.0
_ANSWER_S = 60.0
"""Longer than the slowest part takes to stop."""
_LOG_BYTES = "20MB"
_COMMENT = re.compile(r"\s[;#]")
"""Where supervisord takes the rest of a line for a comment, within quotes, too."""
NOT_RUNNING = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})


@dataclass(frozen=True, slots=True)
class ProgramState:
    """What supervisord says of one program."""

    name: str
    state: str
    pid: int
    started: int
    """Seconds since 1970; 0 if never."""
    spawn_error: str


def _quoted(name: str, value: str) -> str:
    """Write one variable as supervisor's `environment` wants it: in quotes, of which it has no escapes."""
    quote = "'" if '"' in value else '"'
    if quote in value or value != value.strip("'\"") or not value.isprintable() or _COMMENT.search(value):
        msg = (
            f"{name}: expected one printable line, without quotes at its ends or both kinds inside, and without a "
            f"semicolon or number sign after a space, received {value!r}; write it in another way"
        )
        raise SettingsError(msg)
    return f"{name}={quote}{value.replace('%', '%%')}{quote}"


def _program(part: Part, environment: Mapping[str, str], places: Places) -> str:
    variables = ",".join(_quoted(name, value) for name, value in sorted({**environment, **part.environment}.items()))
    return f"""
[program:{part.name}]
command={shlex.join(part.command).replace("%", "%%")}
directory={REPOSITORY}
environment={variables}
autostart=false
autorestart=true
startsecs=2
startretries=3
stopwaitsecs={part.stop_s}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={places.log(part.name)}
stdout_logfile_maxbytes={_LOG_BYTES}
stdout_logfile_backups=2
"""


def render(parts: Iterable[Part], environment: Mapping[str, str], places: Places) -> str:
    """Return supervisord's configuration; it holds passwords, so whoever writes it makes it private."""
    head = f"""\
[unix_http_server]
file={places.socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisord]
logfile={places.log("supervisord")}
logfile_maxbytes={_LOG_BYTES}
logfile_backups=2
pidfile={places.supervisor_pid}
childlogdir={places.logs}
directory={REPOSITORY}
umask=077
"""
    return head + "".join(_program(part, environment, places) for part in parts)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("127.0.0.1", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixTransport(Transport):
    """XML-RPC over a socket file, with a deadline: a supervisord that hangs must not hang whoever wants to end it."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_s = timeout_s

    def make_connection(self, host: object) -> HTTPConnection:  # noqa: ARG002 - the base class's signature
        connection = _UnixConnection(self._path, self._timeout_s)
        self._connection = ("127.0.0.1", connection)
        return connection


class Supervisor:
    """The supervisord of one state folder."""

    def __init__(self, places: Places) -> None:
        self.places = places

    @contextmanager
    def _rpc(self, timeout_s: float = _ANSWER_S) -> Iterator[Any]:
        transport = _UnixTransport(self.places.socket, timeout_s)
        try:
            yield cast("Any", ServerProxy("http://127.0.0.1", transport=transport)).supervisor
        finally:
            transport.close()

    @property
    def pid(self) -> int | None:
        """The process id of a supervisord that answers, else None."""
        try:
            with self._rpc(_PING_S) as rpc:
                return int(rpc.getPID())
        except (OSError, Fault, HTTPException):
            return None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start supervisord with the rendered configuration and wait until it answers."""
        folder = self.places.socket.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid():
            msg = f"{folder} belongs to another user: delete it, or set KESTREL_STATE to a shorter path"
            raise LocalError(msg)
        self.places.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.places.supervisor_config)]
        log = self.places.log("supervisord-start")
        with log.open("wb") as stream:
            status = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                check=False,
            ).returncode
        deadline = time.monotonic() + _START_SECONDS
        while status == 0 and time.monotonic() < deadline:
            if self.pid is not None:
                return
            time.sleep(_POLL_S)
        msg = (
            f"supervisord did not start (status {status}): {log.read_text(errors='replace').strip()[-500:]}; see {log}"
        )
        raise LocalError(msg)

    def programs(self) -> dict[str, ProgramState]:
        """Return what supervisord says of each program; nothing where there is no supervisord."""
        try:
            with self._rpc(_PING_S) as rpc:
                rows = rpc.getAllProcessInfo()
        except (OSError, Fault, HTTPException):
            return {}
        return {
            row["name"]: ProgramState(row["name"], row["statename"], row["pid"], row["start"], row["spawnerr"])
            for row in rows
        }

    def apply_configuration(self) -> set[str]:
        """Make supervisord take the rendered configuration over; return the running programs that it had to stop."""
        running = {name for name, program in self.programs().items() if program.pid}
        with self._rpc() as rpc:
            ((added, changed, removed),) = rpc.reloadConfig()
            for name in (*changed, *removed):
                rpc.stopProcessGroup(name)
                rpc.removeProcessGroup(name)
            for name in (*added, *changed):
                rpc.addProcessGroup(name)
        return running & set(changed)

    def start_program(self, name: str) -> None:
        """Start a program, without waiting for it; one that ends at once is found out by who waits for it."""
        try:
            with self._rpc() as rpc:
                rpc.startProcess(name, False)  # noqa: FBT003 - XML-RPC has positional arguments only
        except Fault as fault:
            if not any(known in fault.faultString for known in ("ALREADY_STARTED", "SPAWN_ERROR")):
                msg = f"{name} cannot be started: {fault.faultString}; see {self.places.log(name)}"
                raise LocalError(msg) from fault

    def stop_program(self, name: str) -> None:
        """Stop a program and wait for its end."""
        try:
            with self._rpc() as rpc:
                rpc.stopProcess(name)
        except Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                msg = f"{name} cannot be stopped: {fault.faultString}"
                raise LocalError(msg) from fault

    def shut_down(self, timeout_s: float) -> bool:
        """Ask supervisord to stop everything and itself; tell whether it was gone within `timeout_s` seconds."""
        pid = self.pid
        if pid is None:
            return True
        try:
            with self._rpc(_PING_S) as rpc:
                rpc.shutdown()
        except (OSError, Fault, HTTPException):
            return False
        return wait_until_gone(pid, timeout_s)


def write_configuration(parts: Iterable[Part], environment: Mapping[str, str], places: Places) -> None:
    """Render the configuration to its place, private."""
    write_private(places.supervisor_config, render(parts, environment, places))
