"""One caller at a time: the same request in process, over gRPC and over REST, in turns."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import orjson

from feature_repo.contracts.signatures import SCORE
from infra.bench.errors import BenchError
from infra.bench.ranker import SIGNATURES
from infra.bench.server_time import read_server_time
from serving.protocol.client import PredictClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from infra.bench.ranker import Ranker
    from infra.bench.server_time import ServerTime

ROWS = (1, 100, 500)
IN_PROCESS, GRPC, REST = "in process", "gRPC", "REST"
_WARM_UP = 30
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Latency:
    """What one way of calling took, in milliseconds."""

    signature_name: str
    rows: int
    way: str
    p50_ms: float
    p99_ms: float
    added_ms: float
    """Its p50 less that of the call in process, of the same run."""
    ratio: float
    """The one over the other."""
    mean: Mean | None
    """Where its time went; None in process."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Where the mean call spent its milliseconds."""

    client_and_network: float
    """The client, gRPC or HTTP at both ends, and the way between them."""
    server: float
    """In the server's own code: reading the request, writing the answer."""
    model: float
    """In TensorFlow; the mean of both ways, which the server does not count apart."""


def measure_latencies(ranker: Ranker, grpc: str, rest: str, model: str, repeats: int) -> Iterator[list[Latency]]:
    """Measure every signature and size; the ways take turns, so that whatever else the machine does meets them all.

    In process means what a program without a server would do: `tf.saved_model.load`, then the signature called with
    the same numpy arrays that the clients send.

    Raises:
        BenchError: The ways' scores differ, or the server has no page for Prometheus.
    """
    with PredictClient(grpc, timeout_s=30) as predictions, httpx.Client(timeout=30, trust_env=False) as http:
        functions = _functions(ranker.saved_model)
        for signature_name in SIGNATURES:
            for rows in ROWS:
                inputs = ranker.inputs(signature_name, rows)
                ways = {
                    IN_PROCESS: _in_process(functions[signature_name], inputs),
                    GRPC: _over_grpc(predictions, model, signature_name, inputs),
                    REST: _over_rest(http, f"{rest.rstrip('/')}/v1/models/{model}:predict", signature_name, inputs),
                }
                _check_agreement(ways, signature_name, rows)
                server_time = partial(read_server_time, http, rest, model)
                yield _in_turns(ways, signature_name, rows, repeats, server_time)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send standard error nowhere: TensorFlow tells at its import, past every level of its log, that it has no GPU."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _functions(saved_model: Path) -> Mapping[str, Any]:
    with _quiet():
        import tensorflow as tf  # noqa: PLC0415 - takes seconds

    loaded = tf.saved_model.load(str(saved_model))
    # A signature's function goes with the object that it was loaded with.
    return {name: (loaded, loaded.signatures[name]) for name in SIGNATURES}


def _in_process(held: tuple[object, Any], inputs: Mapping[str, NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    import tensorflow as tf  # noqa: PLC0415 - as above

    _, function = held

    def call() -> NDArray[Any]:
        tensors = {name: tf.constant(values) for name, values in inputs.items()}
        scores: NDArray[Any] = function(**tensors)[SCORE.name].numpy()
        return scores

    return call


def _over_grpc(
    client: PredictClient, model: str, signature_name: str, inputs: Mapping[str, NDArray[Any]]
) -> Callable[[], NDArray[Any]]:
    return lambda: client.predict(model, inputs, signature_name=signature_name)[SCORE.name]


def _over_rest(
    client: httpx.Client, url: str, signature_name: str, inputs: Mapping[str, NDArray[Any]]
) -> Callable[[], NDArray[Any]]:
    def call() -> NDArray[Any]:
        columns = {name: values.tolist() for name, values in inputs.items()}
        body = orjson.dumps({"signature_name": signature_name, "inputs": columns})
        response = client.post(url, content=body, headers={"content-type": "application/json"})
        if response.is_error:
            msg = f"POST {url}: HTTP {response.status_code}: {response.text[:300]}"
            raise BenchError(msg)
        return np.array(orjson.loads(response.content)["outputs"], dtype=np.float32)

    return call


def _check_agreement(ways: Mapping[str, Callable[[], NDArray[Any]]], signature_name: str, rows: int) -> None:
    expected = ways[IN_PROCESS]()
    for way, call in ways.items():
        scores = call()
        if scores.shape != expected.shape or np.abs(scores - expected).max(initial=0.0) > _TOLERANCE:
            msg = f"{signature_name}, {rows} rows: {way} does not answer with the scores of the call in process"
            raise BenchError(msg)


def _in_turns(
    ways: Mapping[str, Callable[[], NDArray[Any]]],
    signature_name: str,
    rows: int,
    repeats: int,
    server_time: Callable[[], ServerTime],
) -> list[Latency]:
    _times(ways, _WARM_UP)
    before = server_time()
    taken = _times(ways, repeats)
    after = server_time()
    in_process = float(np.percentile(taken[IN_PROCESS], 50))
    latencies: list[Latency] = []
    for way, times in taken.items():
        p50, p99 = map(float, np.percentile(times, (50, 99)))
        mean = None if way == IN_PROCESS else _mean(float(np.mean(times)), way, before, after)
        latencies.append(Latency(signature_name, rows, way, p50, p99, p50 - in_process, p50 / in_process, mean))
    return latencies


def _times(ways: Mapping[str, Callable[[], NDArray[Any]]], repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds that each call of each way took."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, call in ways.items():
            began = time.perf_counter()
            call()
            taken[way].append((time.perf_counter() - began) * 1000)
    return taken


def _mean(total_ms: float, way: str, before: ServerTime, after: ServerTime) -> Mean:
    request_ms, run_ms = after.request_ms(way, before), after.run_ms(before)
    return Mean(total_ms - request_ms, request_ms - run_ms, run_ms)
