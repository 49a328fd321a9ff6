"""Starts the server, keeps it up until it is asked to stop, and lets requests in flight finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from serving.model_server.errors import ServerStartError, ServingError
from serving.model_server.grpc_service import build_server
from serving.model_server.manager import LoadOptions, Manager
from serving.model_server.model_config import read_config_file, single_model
from serving.model_server.rest import RestApplication, TargetKeepingProtocol
from serving.model_server.servable import session_options

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from serving.model_server.flags import Flags

log = logging.getLogger(__name__)

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter: a long JSON body must not hold up short requests."""


def serve(flags: Flags) -> dict[str, object]:
    """Run the server until SIGTERM or SIGINT and return how it ended.

    Raises:
        ServerStartError: The first configuration is wrong, or a port cannot be had.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    manager = Manager(
        LoadOptions(
            session=session_options(flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism),
            retries=flags.max_num_load_retries,
            retry_interval_s=flags.load_retry_interval_micros / 1e6,
            threads=flags.num_load_threads,
            labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
        )
    )
    configuration = ConfigurationFile(manager, Path(flags.model_config_file)) if flags.model_config_file else None
    try:
        if configuration is not None:
            configuration.start()
        elif flags.model_base_path:
            manager.start(single_model(flags.model_name, flags.model_base_path))
        else:
            msg = "model server: expected --model_config_file or --model_base_path, received neither; name one"
            raise ServerStartError(msg)
    except ServingError as error:
        msg = f"model server: the first configuration is refused: {error.message}; mend it and start again"
        raise ServerStartError(msg) from error
    executor = ThreadPoolExecutor(flags.request_threads, thread_name_prefix="request")
    grpc_server = _start_grpc(manager, executor, flags) if flags.port else None
    rest_server = _start_rest(manager, executor, flags) if flags.rest_api_port else None
    _repeat(manager.poll, flags.file_system_poll_wait_seconds, stop)
    if configuration is not None:
        _repeat(configuration.poll, flags.model_config_file_poll_wait_seconds, stop)
    log.info("gRPC on %s:%d, REST on %s:%d", flags.bind_address, flags.port, flags.bind_address, flags.rest_api_port)
    stop.wait()
    log.info("stopping; requests in flight have %g s", flags.drain_seconds)
    if rest_server is not None:
        rest_server.should_exit = True
    if grpc_server is not None:
        grpc_server.stop(flags.drain_seconds).wait()
    if rest_server is not None:
        rest_server.finished.wait(flags.drain_seconds)
    executor.shutdown(wait=True, cancel_futures=True)
    manager.close()
    return {"stopped": True}


class ConfigurationFile:
    """models.config: applied at the start and whenever its content changes; a broken one changes nothing."""

    def __init__(self, manager: Manager, path: Path) -> None:
        self._manager = manager
        self._path = path
        self._applied: bytes | None = None

    def start(self) -> None:
        """Apply the file as it is; a missing one stands for an empty one.

        Raises:
            ServingError: It is no configuration.
        """
        self._applied = self._content()
        config = read_config_file(self._path)
        if config is None:
            log.warning("no %s yet: serving no model until one is configured", self._path)
            return
        self._manager.start(config)

    def poll(self) -> None:
        """Apply the file if it has changed; what is refused is logged."""
        content = self._content()
        if content == self._applied or content is None:
            return
        self._applied = content
        try:
            config = read_config_file(self._path)
            if config is not None:
                self._manager.reload(config, wait=False)
        except ServingError as error:
            log.warning("%s is refused, the old configuration stays in force: %s", self._path, error.message)

    def _content(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None


def _repeat(work: Callable[[], None], interval_s: float, stop: threading.Event) -> None:
    if interval_s <= 0:
        return

    def loop() -> None:
        while not stop.wait(interval_s):
            try:
                work()
            except Exception:
                log.exception("a poll failed; the next one tries again")

    threading.Thread(target=loop, name="poll", daemon=True).start()


def _start_grpc(manager: Manager, executor: ThreadPoolExecutor, flags: Flags) -> grpc.Server:
    server = build_server(manager, executor, health=flags.enable_grpc_healthcheck_service)
    address = f"{flags.bind_address}:{flags.port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        msg = f"model server: cannot listen on {address} (gRPC); free the port or choose another with --port"
        raise ServerStartError(msg) from error
    server.start()
    return server


class _RestServer(uvicorn.Server):
    """uvicorn in a thread of its own; signals are the main thread's."""

    finished: threading.Event


def _start_rest(manager: Manager, executor: ThreadPoolExecutor, flags: Flags) -> _RestServer:
    family = socket.AF_INET6 if ":" in flags.bind_address else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((flags.bind_address, flags.rest_api_port))
    except OSError as error:
        msg = (
            f"model server: cannot listen on {flags.bind_address}:{flags.rest_api_port} (REST): {error.strerror}; "
            "free the port or choose another with --rest_api_port"
        )
        raise ServerStartError(msg) from error
    server = _RestServer(
        uvicorn.Config(
            RestApplication(manager, executor, max_body_bytes=flags.rest_api_max_body_bytes),
            http=TargetKeepingProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=int(flags.drain_seconds) or 1,
        )
    )
    server.finished = threading.Event()

    def run() -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        finally:
            server.finished.set()
            listener.close()

    threading.Thread(target=run, name="rest", daemon=True).start()
    return server
