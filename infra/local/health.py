"""Whether a part is healthy, asked of the part itself over the network. Each answer is None, or what is wrong."""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from feature_repo.contracts.events import heartbeat_key

if TYPE_CHECKING:
    from infra.local.settings import Address

_TIMEOUT_S = 5.0


def _get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=_TIMEOUT_S, trust_env=False)


def http_answers(url: str) -> str | None:
    """Ask for a page that answers 200 when its server is well."""
    try:
        status = _get(url).status_code
    except httpx.HTTPError as error:
        return f"{url}: {error}"
    return None if status == HTTPStatus.OK else f"{url}: HTTP status {status}"


def redis_answers(url: str) -> str | None:
    """Log in and ping."""
    import redis  # noqa: PLC0415 - 0.1 s that only this question is worth

    try:
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S) as client:
            client.ping()
    except redis.RedisError as error:
        return str(error)
    return None


def stream_job_works(url: str, namespace: str) -> str | None:
    """Look for the sign of life that a stream job leaves in Redis."""
    import redis  # noqa: PLC0415 - as above

    try:
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S) as client:
            return None if client.exists(heartbeat_key(namespace)) else "no sign of life in Redis"
    except redis.RedisError as error:
        return str(error)


def airflow_component(uri: str, component: str) -> str | None:
    """Ask Airflow's own monitor about one of its components."""
    url = f"{uri}/api/v2/monitor/health"
    try:
        response = _get(url)
        record = response.json()
    except (httpx.HTTPError, ValueError) as error:
        return f"{url}: {error}"
    status = (record.get(component) or {}).get("status")
    return None if status == "healthy" else f"{component} is {status}"


def model_server_answers(grpc: Address, rest: str) -> str | None:
    """Connect to the gRPC port, and get any answer in HTTP from the other: without models, 404 is a healthy one."""
    try:
        with socket.create_connection((grpc.host, grpc.port), timeout=_TIMEOUT_S):
            pass
    except OSError as error:
        return f"{grpc}: {error}"
    try:
        _get(f"{rest}/v1/models/none")
    except httpx.HTTPError as error:
        return f"{rest}: {error}"
    return None
