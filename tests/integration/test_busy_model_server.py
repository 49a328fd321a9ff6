"""A model server that has as many gRPC calls as it may have: what the next one gets, and what callers make of that."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from infra.bench.load import under_load
from serving.protocol.client import ModelClient, PredictClient, predict_request
from serving.protocol.errors import BusyServerError, TransientCallError
from serving.rollout.models_config import read_models_config, set_model, write_models_config
from tests.serving_world import ModelServer, states, wait_until
from tests.tiny_models import export_tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "tiny"
CALLERS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("busy")
    export_tiny(folder / MODEL / "1")
    config = read_models_config(folder / "models.config")
    set_model(config, MODEL, folder / MODEL, [1], {"stable": 1})
    write_models_config(folder / "models.config", config)
    flags = ["--grpc_max_threads=1", "--enable_grpc_healthcheck_service"]
    with ModelServer(folder, folder / "models.config", flags) as running:
        wait_until(lambda: states(running, MODEL) == {1: "AVAILABLE"}, "the model to be loaded")
        yield running


def slow_request() -> Any:
    return predict_request(MODEL, {"x": np.ones(1, np.float32)}, signature_name="slow")


@contextmanager
def occupied(server: ModelServer) -> Iterator[None]:
    """Give the server's one thread a call that takes a while; it may outlast the block."""
    with ThreadPoolExecutor(1) as pool, PredictClient(server.address, timeout_s=120, busy_s=120) as client:
        calling = pool.submit(client.send, slow_request())
        yield
        calling.result(120)


def refusal(client: PredictClient) -> BusyServerError:
    """Call until the call is refused."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            client.send(predict_request(MODEL, {"x": np.ones(1, np.float32)}), busy_s=0)
        except BusyServerError as error:
            return error
    msg = "waited 30 s for a refusal"
    raise TimeoutError(msg)


def test_calls_beyond_the_threads_are_refused_and_the_others_answered(server: ModelServer) -> None:
    start = threading.Barrier(CALLERS)

    def one(_: int) -> str:
        with PredictClient(server.address, timeout_s=60) as client:
            start.wait()
            try:
                client.send(slow_request(), busy_s=0)
            except BusyServerError as error:
                return f"{error.code.name}: {error.details}"
            return "OK"

    with ThreadPoolExecutor(CALLERS) as pool:
        found = list(pool.map(one, range(CALLERS)))
    assert set(found) == {"OK", "RESOURCE_EXHAUSTED: Server Threadpool Exhausted"}
    with PredictClient(server.address, timeout_s=60) as client:
        for shape in (2, 3):
            assert client.send(predict_request(MODEL, {"x": np.ones(shape, np.float32)}))["y"].shape == (shape,)


def test_a_refusal_is_transient_and_says_so_and_health_is_answered_all_the_same(server: ModelServer) -> None:
    with (
        occupied(server),
        PredictClient(server.address) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        error = refusal(client)
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert isinstance(error, TransientCallError)
    assert "it is busy: try again, or start it with a higher --grpc_max_threads" in str(error)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_a_job_goes_on_asking_for_a_while(server: ModelServer) -> None:
    patient = ModelClient(server.address, timeout_s=120, busy_s=120)
    with occupied(server), PredictClient(server.address) as impatient, patient as client:
        refusal(impatient)
        assert [status.state for status in client.model_status(MODEL)] == ["AVAILABLE"]


def test_a_benchmark_goes_on_and_counts_refusals_by_themselves(server: ModelServer, tmp_path: Path) -> None:
    inputs = {"x": np.ones(100_000, np.float32)}
    with (
        PredictClient(server.address, timeout_s=120, busy_s=120) as client,
        under_load(server.address, MODEL, "serving_default", inputs, clients=CALLERS, work=tmp_path) as calls,
    ):
        with occupied(server):
            refusal(client)
        for _ in range(20):  # among so many of ours, some of theirs are answered
            client.send(predict_request(MODEL, inputs))
    assert calls.refused > 0
    assert len(calls.began) == len(calls.seconds) == len(calls.failed) > 0
    assert not calls.failed.any()
    assert "RESOURCE_EXHAUSTED" in calls.first_error
