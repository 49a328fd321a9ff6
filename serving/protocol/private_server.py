"""A model server of one's own: a process that serves one SavedModel, for whoever measures it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from serving.protocol.client import ModelClient
from serving.protocol.errors import CallError, PrivateServerError, TransientCallError
from serving.protocol.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_S = 120.0
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def private_server(saved_model: Path, model: str, version: int) -> Iterator[tuple[str, str]]:
    """Run a model server with one SavedModel on free ports; give its addresses, gRPC and REST.

    It ends with the block, and with this process however that ends.

    Raises:
        PrivateServerError: There is no SavedModel, or the server does not come up with it.
    """
    if not (saved_model / "saved_model.pb").is_file():
        msg = f"SavedModel {saved_model}: expected a folder with saved_model.pb, found none; export it first"
        raise PrivateServerError(msg)
    with tempfile.TemporaryDirectory(prefix="kestrel-server-") as folder:
        base_path = Path(folder) / model
        base_path.mkdir()
        (base_path / str(version)).symlink_to(saved_model.absolute(), target_is_directory=True)
        grpc_port, rest_port = free_ports(2)
        log_path = Path(folder) / "server.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "serving.model_server"),
                    f"--port={grpc_port}",
                    f"--rest_api_port={rest_port}",
                    f"--model_name={model}",
                    f"--model_base_path={base_path}",
                    "--max_num_load_retries=0",
                    "--drain_seconds=2",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads yet, and only async-signal-safe calls
            )
        try:
            address = f"127.0.0.1:{grpc_port}"
            _await_model(process, address, log_path, (model, version))
            yield address, f"127.0.0.1:{rest_port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


_PARENT = os.getpid()


def _die_with_parent() -> None:
    """Ask Linux to kill this child when its parent ends, even by SIGKILL."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != _PARENT:
        os._exit(1)


def _await_model(process: subprocess.Popen[bytes], address: str, log_path: Path, model: tuple[str, int]) -> None:
    deadline = time.monotonic() + _START_S
    with ModelClient(address, timeout_s=2) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.wait_available(*model, deadline_s=1)
            except TransientCallError:
                time.sleep(0.1)
                continue
            except CallError as error:
                msg = f"the private server cannot load the SavedModel: {error.details}; export it anew"
                raise PrivateServerError(msg) from error
            return
    tail = log_path.read_text(encoding="utf-8", errors="replace")[-1000:]
    msg = f"the private server did not come up within {_START_S:g} s; its log ends with:\n{tail}"
    raise PrivateServerError(msg)
