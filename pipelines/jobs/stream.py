"""Job: users' events, from the stream into their online features at once, and into the landing zone now and then."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from feature_repo.contracts.events import heartbeat_key
from pipelines.errors import TransientError
from pipelines.stream.worker import Worker, connect, stopping_at_signals

if TYPE_CHECKING:
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings


def run(settings: Settings, place: Namespace, *, check: bool) -> dict[str, object]:
    """Work until SIGTERM; or, to `check`, only tell whether a stream job of the namespace works.

    Raises:
        TransientError: To `check`: none works.
    """
    with closing(connect(settings)) as client:
        if check:
            return _check(client.exists(heartbeat_key(place.name)), place)
        worker = Worker(settings, place, client)
        with stopping_at_signals(worker.stop):
            worker.run()
    return {"applied": worker.applied, "landed": worker.landed}


def _check(beats: object, place: Namespace) -> dict[str, object]:
    if not beats:
        msg = f"namespace {place.name}: expected a stream job at work, found none; run 'make up'"
        raise TransientError(msg)
    return {"alive": True}
