"""A candidate's golden requests against a server of its own: are the served scores the evaluated ones, and how fast?"""

from __future__ import annotations

import contextlib
import json
import os
import time
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.publishing import write_json
from serving.model_server.errors import GoldenMismatchError
from serving.protocol.client import ModelClient, PredictClient
from serving.protocol.golden import OUTPUT, GoldenRequest, read_golden
from serving.protocol.private_server import private_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL, VERSION = "candidate", 1
WARM_UP_ROUNDS = 3
MIN_CALLS = 200
"""Golden requests are sent round after round until there are this many calls to take percentiles of."""


def check_saved_model(saved_model: Path, golden: Path, out: Path) -> dict[str, object]:
    """Serve `saved_model` privately, send `golden` over gRPC and REST, and write the report to `out`.

    Raises:
        CorruptRecordError: `golden` is not what it should be.
        PrivateServerError: The server does not come up with the SavedModel.
        GoldenMismatchError: The SavedModel has no signature that a request names.
    """
    requests = read_golden(golden)
    load = load_per_core()
    with private_server(saved_model, MODEL, VERSION) as (grpc_address, rest_address):
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
        "load_per_core": load,
    }
    write_json(out, report)
    return {"max_abs_difference": difference, "p50_ms": grpc["p50_ms"], "p99_ms": grpc["p99_ms"]}


def load_per_core() -> float:
    """Return how busy this machine was in the last minute: its load average by its cores; above 1 somebody waited."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)


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
