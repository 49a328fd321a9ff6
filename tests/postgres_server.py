"""The machine's own PostgreSQL for tests: `with postgres_server() as url: ...`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from serving.protocol.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEADLINE_S = 60.0
_UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root."""


def is_installed() -> bool:
    """Tell whether this machine has a PostgreSQL server."""
    return bool(shutil.which("initdb") and shutil.which("postgres"))


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Run an empty server on a free port of this machine and give SQLAlchemy's URL of its database."""
    user = _UNPRIVILEGED if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="kestrel-postgres-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        if user:
            Path(folder).chmod(0o755)
            shutil.chown(data, user)
        subprocess.run(
            [_program("initdb"), "-D", str(data), "-U", "kestrel", "-A", "trust", "-N"],
            check=True,
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        (port,) = free_ports(1)
        command = [_program("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        with subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.DEVNULL) as process:
            try:
                _wait(port)
                yield f"postgresql+psycopg2://kestrel@127.0.0.1:{port}/postgres"
            finally:
                process.terminate()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        msg = f"{name}: expected a PostgreSQL server on PATH, found none"
        raise FileNotFoundError(msg)
    return found


def _wait(port: int) -> None:
    end = time.monotonic() + _DEADLINE_S
    while True:
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(host="127.0.0.1", port=port, user="kestrel", dbname="postgres").close()
            return
        if time.monotonic() > end:
            msg = f"postgres on port {port} did not answer within {_DEADLINE_S:.0f} s"
            raise TimeoutError(msg)
        time.sleep(0.05)
