"""A real MLflow server for tests: SQLite and local artifacts in a folder, a free port, gone when the block ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serving.protocol.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DEADLINE_S = 120.0


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Start `mlflow server` with its state in `folder`, wait until it is healthy, and yield its URI."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait(uri, server, folder / "server.log")
        yield uri
    finally:
        _end_group(server)


def _wait(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:  # noqa: S310 - our own http address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    msg = f"MLflow server {uri} was not healthy after {_DEADLINE_S:.0f} s: {log.read_text(errors='replace')[-2000:]}"
    raise TimeoutError(msg)


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End the server and the workers that it started: they share its process group."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, kind)
        except ProcessLookupError:
            break
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
        if kind is signal.SIGTERM:
            time.sleep(0.2)
    server.wait(timeout=10)
