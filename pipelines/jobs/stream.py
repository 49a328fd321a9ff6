"""Job: users' events, from the stream into their online features at once, and into the landing zone now and then."""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, cast

import redis

from feature_repo.contracts.events import heartbeat_key
from pipelines.errors import TransientError
from pipelines.io.online_client import redacted
from pipelines.stream.worker import Worker, connect, stopping_at_signals

if TYPE_CHECKING:
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings


_log = logging.getLogger(__name__)


def run(settings: Settings, place: Namespace, *, check: bool) -> dict[str, object]:
    """Work until SIGTERM; or, to `check`, only tell whether a stream job of the namespace works.

    Raises:
        TransientError: To `check`: none works.
    """
    with closing(connect(settings)) as client:
        if check:
            return _check(client.exists(heartbeat_key(place.name)), place)
        if not settings.events_url:
            warn_of_forgetting(client, settings)
        worker = Worker(settings, place, client)
        with stopping_at_signals(worker.stop):
            worker.run()
    return {"applied": worker.applied, "landed": worker.landed}


def _check(beats: object, place: Namespace) -> dict[str, object]:
    if not beats:
        msg = f"namespace {place.name}: expected a stream job at work, found none; run 'make up'"
        raise TransientError(msg)
    return {"alive": True}


def warn_of_forgetting(client: redis.Redis, settings: Settings) -> None:
    """Warn of a Redis that has nothing on its disk: what was accepted and not yet landed would die with it.

    One that is away, or does not tell, is not warned of.
    """
    with suppress(redis.RedisError):
        if not cast("dict[str, Any]", client.info("persistence")).get("aof_enabled", 1):
            _log.warning(
                "Redis at %s writes no append-only file: events that were accepted are lost if it dies; set "
                "'appendonly yes' there, or take Kafka by KESTREL_EVENTS_URL",
                redacted(settings.redis_url),
            )
