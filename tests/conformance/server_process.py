"""The server under test, as a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

import psutil

from infra.local.processes import VANISHED, wait_until_ended
from serving.protocol.free_ports import free_ports
from tests.conformance.client import Client
from tests.conformance.setups import MONITORING_CONFIG
from tests.serving_world import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


class ServerDidNotStartError(RuntimeError):
    """The process ended, or the models were not AVAILABLE in time."""


class Launcher:
    """Starts servers (see launcher.py); a context manager. Whatever still runs in the end is killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=STOP_TIMEOUT_S)

    def start(self, arguments: Sequence[str], log: Path) -> psutil.Process:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({"arguments": list(arguments), "log": str(log)}) + "\n")
            self._process.stdin.flush()
            return psutil.Process(int(self._process.stdout.readline()))


class Server:
    """A server process; a context manager that gives the client and stops the process."""

    def __init__(self, launcher: Launcher, work: Path, config: str, flags: Sequence[str]) -> None:
        """Write configuration and prepare the command line; all files, and the log, go into ``work``."""
        work.mkdir(parents=True, exist_ok=True)
        self._launcher = launcher
        self.config_file = work / "models.config"
        self.config_file.write_text(config, encoding="utf-8")
        monitoring_file = work / "monitoring.config"
        monitoring_file.write_text(MONITORING_CONFIG, encoding="utf-8")
        self.log_file = work / "server.log"
        grpc_port, rest_port = free_ports(2)
        self._arguments = [
            f"--port={grpc_port}",
            f"--rest_api_port={rest_port}",
            f"--model_config_file={self.config_file}",
            *(flag.replace("{MONITORING_FILE}", str(monitoring_file)) for flag in flags),
        ]
        self.client = Client(f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}")

    def __enter__(self) -> Self:
        self._process = self._launcher.start(self._arguments, self.log_file)
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, gently first."""
        self.client.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(*VANISHED):
                self._process.send_signal(number)
            if not wait_until_ended([self._process], STOP_TIMEOUT_S):
                return

    def wait_ready(self, ready: Mapping[str, Sequence[int]]) -> Client:
        """Wait until the named versions are AVAILABLE over gRPC and REST answers."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.is_running():
            if all(_available(self.client, name, wanted) for name, wanted in ready.items()):
                return self.client
            time.sleep(0.1)
        tail = self.log_file.read_text(encoding="utf-8", errors="replace")[-1500:]
        msg = f"not ready: {' '.join(self._arguments)}\n{tail}"
        raise ServerDidNotStartError(msg)


def _available(client: Client, model: str, wanted: Sequence[int]) -> bool:
    found = client.versions(model).get("versions", {})
    if not all(found.get(str(version), [""])[0] == "AVAILABLE" for version in wanted):
        return False
    try:
        return bool(client.rest({"method": "GET", "path": f"/v1/models/{model}"})["status"] == 200)
    except OSError:
        return False
