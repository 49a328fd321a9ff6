"""A real redis-server for tests: `with redis_server() as url: ...`."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import redis

from infra.local.places import Places
from infra.local.settings import state_folder
from infra.local.toolchain import find_redis_server
from serving.protocol.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DEADLINE_S = 20.0
_ATTEMPTS = 5


def redis_executable() -> str:
    """Return the machine's redis-server, or else the one that the set-up fetches."""
    return str(find_redis_server(Places(state_folder(os.environ)), os.environ))


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the server answers (True) or has ended (False: another process was quicker to take the port)."""
    deadline = time.monotonic() + _DEADLINE_S
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            with contextlib.suppress(redis.ConnectionError):
                return bool(client.ping())
            time.sleep(0.02)
    msg = f"redis-server (process {process.pid}) did not answer within {_DEADLINE_S:.0f} s"
    raise TimeoutError(msg)


_MEMORY_ONLY = ("--save", "", "--appendonly", "no")
_DURABLE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")


def _start(folder: str, password: str, options: Sequence[str], port: int = 0) -> tuple[subprocess.Popen[bytes], str]:
    for _ in range(_ATTEMPTS):
        at = port or free_ports(1)[0]
        address = ["--port", str(at), "--bind", "127.0.0.1", "--requirepass", password, "--dir", folder]
        process = subprocess.Popen([redis_executable(), *address, *options], stdout=subprocess.DEVNULL)
        url = f"redis://:{password}@127.0.0.1:{at}/0"
        if _is_ready(process, url):
            return process, url
    msg = f"redis-server ended {_ATTEMPTS} times right after its start; run it by hand to see why: {redis_executable()}"
    raise RuntimeError(msg)


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run an empty redis-server on a free port of this machine and give its URL, password included."""
    with tempfile.TemporaryDirectory(prefix="kestrel-redis-") as folder:
        process, url = _start(folder, secrets.token_hex(8), _MEMORY_ONLY)
        try:
            yield url
        finally:
            process.kill()
            process.wait()


class DurableRedis:
    """A redis-server with the append-only file on, as the stack runs it, that can be killed and started again."""

    def __init__(self, folder: str) -> None:
        self._folder, self._password = folder, secrets.token_hex(8)
        self._process, self.url = _start(folder, self._password, _DURABLE)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        port = int(self.url.rpartition(":")[2].partition("/")[0])
        self._process, _ = _start(self._folder, self._password, _DURABLE, port)


@contextlib.contextmanager
def durable_redis() -> Iterator[DurableRedis]:
    """Run an empty redis-server that survives its own death."""
    with tempfile.TemporaryDirectory(prefix="kestrel-redis-") as folder:
        server = DurableRedis(folder)
        try:
            yield server
        finally:
            server.kill()
