"""Starts the server, keeps it up until it is asked to stop, and lets requests in flight finish."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import resource
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from serving.model_server.batch_queue import BatchScheduler
from serving.model_server.batching import Batching
from serving.model_server.batching_parameters import BatchingParameters
from serving.model_server.errors import ServerStartError, ServingError
from serving.model_server.flags import channel_arguments
from serving.model_server.grpc_service import build_server
from serving.model_server.manager import LoadOptions, Manager
from serving.model_server.model_config import read_config_file, single_model
from serving.model_server.rest import RestApplication, RestProtocol
from serving.model_server.servable import Loading, session_options
from serving.model_server.text_protos import MonitoringConfig, read_text_proto
from serving.model_server.thread_limit import ThreadLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from serving.model_server.flags import Flags

log = logging.getLogger(__name__)

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"
_SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter: a long JSON body must not hold up short requests."""
_REFUSING_THREADS = 4
"""Threads beside those of `--grpc_max_threads`: they refuse what is too much, and answer health checks."""
_COLLECT_AFTER = 50_000
"""Containers made between two looks for rings: a long JSON body makes thousands of lists, and no ring."""


def serve(flags: Flags) -> dict[str, object]:
    """Run the server until SIGTERM or SIGINT and return how it ended.

    Raises:
        ServerStartError: The first configuration is wrong, or a port cannot be had.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.freeze()  # what the imports made stays: looking through it again and again would hold all requests up
    gc.set_threshold(_COLLECT_AFTER)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _allow_many_connections()
    batching = _batching(flags)
    manager = Manager(
        LoadOptions(
            loading=_loading(flags, batching),
            retries=flags.max_num_load_retries,
            retry_interval_s=flags.load_retry_interval_micros / 1e6,
            threads=flags.num_load_threads,
            labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
            warmup_iterations=max(1, flags.num_request_iterations_for_warmup) if flags.enable_model_warmup else 0,
        )
    )
    configuration = _configured(manager, flags)
    grpc_threads = ThreadPoolExecutor(flags.grpc_max_threads + _REFUSING_THREADS, thread_name_prefix="grpc")
    rest_threads = ThreadPoolExecutor(flags.rest_api_num_threads, thread_name_prefix="rest")
    grpc_server = _start_grpc(manager, grpc_threads, flags) if flags.port or flags.grpc_socket_path else None
    rest_server = _start_rest(manager, rest_threads, flags) if flags.rest_api_port else None
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
    for executor in (grpc_threads, rest_threads):
        executor.shutdown(wait=True, cancel_futures=True)
    manager.close()
    if batching is not None:
        batching.scheduler.close()
    return {"stopped": True}


def _configured(manager: Manager, flags: Flags) -> ConfigurationFile | None:
    """Give the manager its first configuration; return the file that it is in, if it is in one.

    Raises:
        ServerStartError: There is none, or it is wrong.
    """
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
    return configuration


def _allow_many_connections() -> None:
    """Raise the soft limit on open files to the hard one: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _batching(flags: Flags) -> Batching | None:
    if not flags.enable_batching:
        return None
    file = flags.batching_parameters_file
    try:
        parameters = BatchingParameters.read(file) if file else BatchingParameters()
    except ServingError as error:
        msg = f"model server: --batching_parameters_file={file}: {error.message}; mend the file"
        raise ServerStartError(msg) from error
    scheduler = BatchScheduler(parameters.num_batch_threads, parameters.thread_pool_name)
    return Batching(scheduler, parameters, per_model=flags.enable_per_model_batching_parameters)


def _loading(flags: Flags, batching: Batching | None) -> Loading:
    options = session_options(
        flags.tensorflow_intra_op_parallelism or flags.tensorflow_session_parallelism,
        flags.tensorflow_inter_op_parallelism or flags.tensorflow_session_parallelism,
        flags.tensorflow_session_config_file,
        flags.per_process_gpu_memory_fraction,
    )
    return Loading(options, tuple(flags.saved_model_tags.split(",")), batching)


def _metrics_path(flags: Flags) -> str | None:
    """Return where the page for Prometheus is; None if there is none."""
    if not flags.monitoring_config_file:
        return None
    config = read_text_proto(flags.monitoring_config_file, MonitoringConfig).prometheus_config
    return (config.path or DEFAULT_METRICS_PATH) if config.enable else None


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
    server = build_server(
        manager,
        executor,
        ThreadLimit(flags.grpc_max_threads),
        health=flags.enable_grpc_healthcheck_service,
        options=channel_arguments(flags.grpc_channel_arguments),
    )
    addresses = [f"{flags.bind_address}:{flags.port}"] if flags.port else []
    if flags.grpc_socket_path:
        addresses.append(f"unix:{flags.grpc_socket_path}")
    for address in addresses:
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
    receive_timeout_s = flags.rest_api_timeout_in_ms / 1e3
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
            RestApplication(
                manager,
                executor,
                max_body_bytes=flags.rest_api_max_body_bytes,
                receive_timeout_s=receive_timeout_s,
                metrics_path=_metrics_path(flags),
            ),
            http=functools.partial(RestProtocol, receive_timeout_s=receive_timeout_s),  # type: ignore[arg-type] # called as a class is
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
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
