"""The model server's own share of a call, read from the page that the server writes."""

from __future__ import annotations

import httpx
import pytest

from infra.bench.errors import BenchError
from infra.bench.server_time import PAGE, read_server_time
from serving.model_server import metrics

MODEL = "bench.server_time"


def client(status: int = 200) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == PAGE
        return httpx.Response(status, text=metrics.page())

    return httpx.Client(transport=httpx.MockTransport(answer))


def record(grpc_us: int, rest_us: int, *runs_us: int) -> None:
    """One call of each way; gRPC and REST write the API in different cases."""
    metrics.REQUEST_LATENCY.add(grpc_us, (MODEL, "Predict", "GRPC"))
    metrics.REQUEST_LATENCY.add(rest_us, (MODEL, "predict", "REST"))
    metrics.REQUEST_LATENCY.add(9e6, (MODEL, "Classify", "GRPC"))
    metrics.REQUEST_LATENCY.add(9e6, (MODEL + ".other", "Predict", "GRPC"))
    for run_us in runs_us:
        metrics.RUNTIME_LATENCY.add(run_us, (MODEL, "Predict", "TF1"))


def test_means_are_of_the_calls_between_two_looks() -> None:
    record(50_000, 70_000, 40_000)
    with client() as http:
        before = read_server_time(http, "http://server", MODEL)
        record(2000, 3000, 1000, 2000)
        record(4000, 7000, 3000, 4000)
        after = read_server_time(http, "http://server", MODEL)
    assert after.request_ms("gRPC", before) == 3.0
    assert after.request_ms("REST", before) == 5.0
    assert after.run_ms(before) == 2.5


def test_a_server_without_the_page_is_told_how_to_have_one() -> None:
    with client(404) as http, pytest.raises(BenchError, match=r"HTTP 404; start the server with --monitoring_config"):
        read_server_time(http, "http://server", MODEL)


def test_a_model_that_was_not_called_is_named() -> None:
    with client() as http, pytest.raises(BenchError, match=r"runtime_latency of nobody, .* is missing"):
        read_server_time(http, "http://server", "nobody")
