"""How much of a call the model server itself takes, by its own page for Prometheus."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.bench.errors import BenchError

if TYPE_CHECKING:
    import httpx

PAGE = "/monitoring/prometheus/metrics"
"""Where infra/docker/tensorflow-serving/monitoring.config puts it."""
_SAMPLE = re.compile(
    r'^:tensorflow:serving:(request|runtime)_latency_(sum|count)\{model_name="([^"]*)",API="predict",'
    r'(?:entrypoint|runtime)="([^"]*)"\} (\S+)$',
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ServerTime:
    """Milliseconds and calls of predict, since the server started: for each way of calling, and of the model alone."""

    requests: dict[str, tuple[float, float]]
    """`GRPC` or `REST` → sum in ms, number of calls."""
    runs: tuple[float, float]
    """Whichever way they came."""

    def request_ms(self, way: str, before: ServerTime) -> float:
        """Return the mean time of a call since `before`: in the server's own code, without gRPC's and HTTP's."""
        return _mean(self.requests[way.upper()], before.requests[way.upper()])

    def run_ms(self, before: ServerTime) -> float:
        """Return the mean time of a run of the model since `before`."""
        return _mean(self.runs, before.runs)


def _mean(later: tuple[float, float], before: tuple[float, float]) -> float:
    return (later[0] - before[0]) / (later[1] - before[1])


def read_server_time(http: httpx.Client, rest: str, model: str) -> ServerTime:
    """Read the page of the server at `rest`; both ways must have been called already.

    Raises:
        BenchError: The server has no such page, or it does not tell of both ways.
    """
    url = rest.rstrip("/") + PAGE
    response = http.get(url)
    if response.is_error:
        msg = (
            f"GET {url}: expected the page for Prometheus, received HTTP {response.status_code}; start the server with "
            "--monitoring_config_file=infra/docker/tensorflow-serving/monitoring.config"
        )
        raise BenchError(msg)
    found = {
        (kind, quantity, label): float(value)
        for kind, quantity, name, label, value in _SAMPLE.findall(response.text)
        if name == model
    }
    try:
        requests = {
            way: (found["request", "sum", way] / 1000, found["request", "count", way]) for way in ("GRPC", "REST")
        }
        label = next(label for kind, _, label in found if kind == "runtime")
        return ServerTime(requests, (found["runtime", "sum", label] / 1000, found["runtime", "count", label]))
    except (KeyError, StopIteration) as error:
        msg = f"GET {url}: expected request_latency of GRPC and REST and runtime_latency of {model}, {error} is missing"
        raise BenchError(msg) from error
