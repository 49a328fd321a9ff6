"""A candidate's golden requests against a server of its own: are the served scores the evaluated ones, and how fast?"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.publishing import write_json
from serving.model_server.errors import GoldenMismatchError, ServerStartError
from serving.protocol.client import ModelClient, PredictClient
from serving.protocol.errors import CallError, TransientCallError
from serving.protocol.free_ports import free_ports
from serving.protocol.golden import OUTPUT, GoldenRequest, read_golden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODEL, VERSION = "candidate", 1
START_SECONDS = 120.0
WARM_UP_ROUNDS = 3
MIN_CALLS = 200
"""Golden requests are sent round after round until there are this many calls to take percentiles of."""
_PR_SET_PDEATHSIG = 1


def check_saved_model(saved_model: Path, golden: Path, out: Path) -> dict[str, object]:
    """Serve `saved_model` privately, send `golden` over gRPC and REST, and write the report to `out`.

    Raises:
        CorruptRecordError: `golden` is not what it should be.
        ServerStartError: The server does not come up with the SavedModel.
        GoldenMismatchError: The SavedModel has no signature that a request names.
    """
    requests = read_golden(golden)
    if not (saved_model / "saved_model.pb").is_file():
        msg = f"SavedModel {saved_model}: expected a folder with saved_model.pb, found none; export it first"
        raise ServerStartError(msg)
    with _private_server(saved_model) as (grpc_address, rest_address):
        with ModelClient(grpc_address) as models:
            signatures = models.signatures(MODEL, version=VERSION)
        arrays = [request.arrays(_signature(signatures, request)) for request in requests]
        with PredictClient(grpc_address, timeout_s=60) as predictions:

            def over_grpc(place: int) -> float:
                request = requests[place]
                outputs = predictions.predict(MODEL, arrays[place], signature_name=request.signature_name)
                return request.difference(outputs[OUTPUT])

            grpc = _measure(over_grpc, len(requests))
        bodies = [_rest_body(request) for request in requests]
        http = HTTPConnection(rest_address, timeout=60)
        with contextlib.closing(http):

            def over_rest(place: int) -> float:
                http.request("POST", f"/v1/models/{MODEL}:predict", bodies[place])
                reply = http.getresponse()
                body = reply.read()
                if reply.status != HTTPStatus.OK:
                    msg = f"golden request {place} over REST: expected 200, received {reply.status}: {body[:500]!r}"
                    raise GoldenMismatchError(msg)
                return requests[place].difference(_rest_scores(json.loads(body)))

            rest = _measure(over_rest, len(requests))
    difference = max(grpc.pop("max_abs_difference"), rest.pop("max_abs_difference"))
    report = {
        "requests": len(requests),
        "rows": sum(len(request.score) for request in requests),
        "max_abs_difference": difference,
        "grpc": grpc,
        "rest": rest,
    }
    write_json(out, report)
    return {"max_abs_difference": difference, "p50_ms": grpc["p50_ms"], "p99_ms": grpc["p99_ms"]}


def _signature(signatures: dict[str, Any], request: GoldenRequest) -> Any:  # noqa: ANN401 - a SignatureDef
    if request.signature_name not in signatures:
        msg = (
            f"golden request: expected the signature {request.signature_name!r}, the SavedModel has "
            f"{sorted(signatures)}; export it from the contract"
        )
        raise GoldenMismatchError(msg)
    return signatures[request.signature_name]


def _rest_body(request: GoldenRequest) -> bytes:
    return json.dumps({"signature_name": request.signature_name, "inputs": dict(request.inputs)}).encode()


def _rest_scores(body: Any) -> Any:  # noqa: ANN401 - JSON and numpy
    outputs = body["outputs"]
    return np.asarray(outputs[OUTPUT] if isinstance(outputs, dict) else outputs, dtype=np.float64)


def _measure(call: Callable[[int], float], requests: int) -> dict[str, float]:
    """Call every request, after a warm-up, until there are enough calls: percentiles and the largest difference."""
    for _ in range(WARM_UP_ROUNDS):
        call(0)
    difference, times = 0.0, []
    for number in range(max(requests, MIN_CALLS)):
        start = time.perf_counter()
        found = call(number % requests)
        times.append((time.perf_counter() - start) * 1e3)
        difference = max(difference, found)
    p50, p99 = np.percentile(times, [50, 99]).tolist()
    return {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "max_abs_difference": difference}


@contextlib.contextmanager
def _private_server(saved_model: Path) -> Iterator[tuple[str, str]]:
    """Run the server with this one model; it ends with the block, and with this process however that ends."""
    with tempfile.TemporaryDirectory(prefix="kestrel-check-") as folder:
        base_path = type(saved_model)(folder) / MODEL
        base_path.mkdir()
        (base_path / str(VERSION)).symlink_to(saved_model.absolute(), target_is_directory=True)
        grpc_port, rest_port = free_ports(2)
        log_path = type(saved_model)(folder) / "server.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "serving.model_server"),
                    f"--port={grpc_port}",
                    f"--rest_api_port={rest_port}",
                    f"--model_name={MODEL}",
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
            _await_model(process, address, log_path)
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


def _await_model(process: subprocess.Popen[bytes], address: str, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with ModelClient(address, timeout_s=2) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.wait_available(MODEL, VERSION, deadline_s=1)
            except TransientCallError:
                time.sleep(0.1)
                continue
            except CallError as error:
                msg = f"the private server cannot load the SavedModel: {error.details}; export it anew"
                raise ServerStartError(msg) from error
            return
    tail = log_path.read_text(encoding="utf-8", errors="replace")[-1000:]
    msg = f"the private server did not come up within {START_SECONDS:g} s; its log ends with:\n{tail}"
    raise ServerStartError(msg)
