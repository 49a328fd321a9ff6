"""A client of the online store, whose errors say what to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import redis

from pipelines.errors import JobError
from pipelines.feast_store.errors import OnlineStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator


def redacted(redis_url: str) -> str:
    """Return a Redis URL for people and logs: without its password."""
    url = urlsplit(redis_url)
    address = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{address}{url.path}"


@contextmanager
def online_client(redis_url: str) -> Iterator[redis.Redis]:
    """Give a client of a Redis that answers; turn its errors, Feast's included, into ones that say what to do.

    Raises:
        OnlineStoreError: Redis cannot be reached or is busy.
        JobError: Redis refuses: a wrong password, or no memory left under its limit.
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
        msg = f"Redis at {address} refuses ({error}); if it is out of memory, raise its maxmemory"
        raise JobError(msg) from error
    finally:
        client.close()
