"""A client of the online store, whose errors say what to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import redis

from feature_repo.contracts.events import FULL_REDIS
from pipelines.errors import JobError
from pipelines.feast_store.errors import OnlineStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator


def redacted(redis_url: str) -> str:
    """Return a Redis URL for people and logs: without its password."""
    url = urlsplit(redis_url)
    address = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{address}{url.path}"


_PASSING = ("MISCONF", "READONLY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "BUSY ")
"""How refusals begin that end when the server's disk, its replicas, or whoever keeps it busy, let them."""


def may_pass(error: redis.RedisError) -> bool:
    """Tell whether what Redis refused now it may take later: it is away, or its disk or its memory is full."""
    passing = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.TryAgainError, redis.ReadOnlyError)
    return isinstance(error, (*passing, redis.OutOfMemoryError)) or str(error).startswith(_PASSING)


@contextmanager
def online_client(redis_url: str) -> Iterator[redis.Redis]:
    """Give a client of a Redis that answers; turn its errors, Feast's included, into ones that say what to do.

    Raises:
        OnlineStoreError: Redis cannot be reached, is busy, or has no memory or no disk left.
        JobError: Redis refuses for good: a wrong password, a command that it does not know.
    """
    address = redacted(redis_url)
    client = redis.Redis.from_url(redis_url, socket_connect_timeout=5, socket_timeout=60)
    try:
        client.ping()
        yield client
    except redis.AuthenticationError as error:
        msg = f"Redis at {address} refuses the password ({error}); correct KESTREL_REDIS_URL"
        raise JobError(msg) from error
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.TryAgainError) as error:
        msg = f"Redis at {address} does not answer ({error}); start it with 'make up', or correct KESTREL_REDIS_URL"
        raise OnlineStoreError(msg) from error
    except redis.ResponseError as error:
        msg = f"Redis at {address} refuses ({error}); {FULL_REDIS}"
        raise (OnlineStoreError if may_pass(error) else JobError)(msg) from error
    finally:
        client.close()
