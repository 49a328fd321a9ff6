"""supervisord: its configuration, rendered from the parts, and its control socket.

Every part is a program that is started by request (never by supervisord itself), in a process group of its own, and
started again if it ends unasked. What runs is compared with what is rendered: only parts that changed are restarted.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from xmlrpc.client import Fault, ServerProxy

from infra.local.errors import LocalError, SettingsError
from infra.local.processes import wait_until_gone
from infra.local.settings import REPOSITORY, write_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infra.local.parts import Part
    from infra.local.places import Places

_START_SECONDS = 30
_POLL_S = 0.1
_LOG_BYTES = "20MB"
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
    """Write one variable as supervisor's `environment` wants it: quoted, percent signs doubled; it has no escapes."""
    quote = "'" if '"' in value else '"'
    if quote in value or "\n" in value:
        msg = f"{name}: expected a value on one line without both kinds of quotes, received {value!r}"
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


class Supervisor:
    """The supervisord of one state folder."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def _rpc(self) -> Any:  # noqa: ANN401 - xmlrpc's proxies have no types
        from supervisor.xmlrpc import SupervisorTransport  # noqa: PLC0415 - only where there is one to talk to

        transport = SupervisorTransport(None, None, f"unix://{self.places.socket}")
        return cast("Any", ServerProxy("http://127.0.0.1", transport=transport)).supervisor

    @property
    def pid(self) -> int | None:
        """The process id of a supervisord that answers, else None."""
        try:
            return int(self._rpc().getPID())
        except (OSError, Fault, ValueError):
            return None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start supervisord with the rendered configuration and wait until it answers."""
        socket = self.places.socket
        socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if socket.parent.stat().st_uid != os.getuid():
            msg = f"{socket.parent} belongs to another user: delete it, or set KESTREL_STATE to a shorter path"
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
            rows = self._rpc().getAllProcessInfo()
        except (OSError, Fault):
            return {}
        return {
            row["name"]: ProgramState(row["name"], row["statename"], row["pid"], row["start"], row["spawnerr"])
            for row in rows
        }

    def apply_configuration(self) -> set[str]:
        """Make supervisord take the rendered configuration over; return the running programs that it had to stop."""
        rpc = self._rpc()
        running = {name for name, program in self.programs().items() if program.pid}
        ((added, changed, removed),) = rpc.reloadConfig()
        for name in (*changed, *removed):
            rpc.stopProcessGroup(name)
            rpc.removeProcessGroup(name)
        for name in (*added, *changed):
            rpc.addProcessGroup(name)
        return running & set(changed)

    def start_program(self, name: str) -> None:
        """Start a program, without waiting for it."""
        try:
            self._rpc().startProcess(name, False)  # noqa: FBT003 - XML-RPC has positional arguments only
        except Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                msg = f"{name} cannot be started: {fault.faultString}; see {self.places.log(name)}"
                raise LocalError(msg) from fault

    def stop_program(self, name: str) -> None:
        """Stop a program and wait for its end."""
        try:
            self._rpc().stopProcess(name)
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
            self._rpc().shutdown()
        except (OSError, Fault):
            return False
        return wait_until_gone(pid, timeout_s)


def write_configuration(parts: Iterable[Part], environment: Mapping[str, str], places: Places) -> None:
    """Render the configuration to its place, private."""
    write_private(places.supervisor_config, render(parts, environment, places))
