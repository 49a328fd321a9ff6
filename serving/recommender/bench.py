"""Latency of a running recommender, over HTTP, with the users of its data set."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import USER_ID, USERS
from feature_repo.contracts.ids import is_id, path_part
from feature_repo.contracts.places import PARTITION_FILE, Namespace
from serving.recommender.errors import MeasurementError, RecommenderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.recommender.settings import Settings

_WARM_UP = 20
_TIMEOUT_S = 10.0
_SEED = 7


def read_users(settings: Settings, n: int) -> list[str]:
    """Return `n` users of the data set, drawn with a fixed seed; more than once only where there are fewer.

    Users of an older lake whom no request can name are left out.

    Raises:
        RecommenderError: The data set has no users here.
    """
    path = Namespace(settings.state, settings.namespace).dataset(USERS) / PARTITION_FILE
    try:
        column = pq.read_table(path, columns=[USER_ID.name], partitioning=None).column(0)
    except (OSError, pa.ArrowException) as error:
        msg = f"users of {settings.namespace}: expected {path}, received {error}; run feature_refresh"
        raise RecommenderError(msg) from error
    users = [user for user in column.to_pylist() if is_id(user)]
    if not users:
        msg = f"users of {settings.namespace}: expected at least one in {path}, received none; run feature_refresh"
        raise RecommenderError(msg)
    return [str(user) for user in np.resize(np.random.default_rng(_SEED).permutation(users), n)]


def summarise(took_ms: Sequence[float], answers: Sequence[dict[str, object]], k: int) -> dict[str, object]:
    """Return the figures: percentiles in milliseconds, how many answers were ranked, and what was missing how often."""
    missing = Counter(str(word) for answer in answers for word in _words(answer))
    return {
        "requests": len(took_ms),
        "k": k,
        "p50_ms": round(float(np.percentile(took_ms, 50)), 2),
        "p99_ms": round(float(np.percentile(took_ms, 99)), 2),
        "max_ms": round(max(took_ms), 2),
        "ranked": sum(answer["model"] is not None for answer in answers),
        "degraded": dict(sorted(missing.items())),
    }


def _words(answer: dict[str, object]) -> list[object]:
    words = answer["degraded"]
    return words if isinstance(words, list) else []


def measure(settings: Settings, requests: int, k: int) -> dict[str, object]:
    """Ask a running recommender `requests` times, one after the other, and return `summarise`.

    Raises:
        MeasurementError: It does not answer, or answers with an error.
    """
    users = read_users(settings, _WARM_UP + requests)
    took_ms: list[float] = []
    answers: list[dict[str, object]] = []
    parts = urlsplit(settings.recommender_uri)
    # The standard library's client: httpx adds .3 ms to each request.
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)) as client:
        for user in users:
            start = time.perf_counter()
            try:
                client.request("GET", f"/recommend/{path_part(user)}?k={k}")
                answer = client.getresponse()
                content = answer.read()
            except (OSError, HTTPException) as error:
                raise _no_answer(settings, user, repr(error)) from error
            took_ms.append((time.perf_counter() - start) * 1000)
            if answer.status != HTTPStatus.OK:
                raise _no_answer(settings, user, f"HTTP {answer.status}: {content[:300]!r}")
            answers.append(orjson.loads(content))
    return summarise(took_ms[_WARM_UP:], answers[_WARM_UP:], k)


def _no_answer(settings: Settings, user: str, received: str) -> MeasurementError:
    msg = (
        f"recommender {settings.recommender_uri}: expected an answer for user {user!r}, received {received}; is it "
        "running, and ready?"
    )
    return MeasurementError(msg)
