"""What a materialisation and the stream job must know of each other."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import redis

from feature_repo.contracts.events import stream_name
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import feast_project
from pipelines.stream.items import Knowledge, read_knowledge
from pipelines.stream.online_users import OnlineUsers, late_users_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from feature_repo.contracts.places import Namespace

_LAPSE_S = 30.0
"""So long after a materialisation that was killed, the stream job mends what it may have left for the last time."""


def materializing_key(namespace: str) -> str:
    """Return the key that exists while a materialisation writes users."""
    return f"{stream_name(namespace)}:materializing"


@contextmanager
def materializing(client: redis.Redis, place: Namespace, cutoff: datetime) -> Iterator[None]:
    """Tell the stream job that the batch writes over users' features, and fold them again when it has.

    While the key is there, the stream job folds everybody with recent events again and again: nobody's features lack
    what they did a moment ago for longer than that takes. One that fails leaves the key to lapse.
    """
    with _renewed(client, materializing_key(place.name)):
        client.delete(late_users_key(place.name))
        yield
        open_users(client, place, read_knowledge(place, cutoff)).fold_again()
    client.delete(materializing_key(place.name))


@contextmanager
def _renewed(client: redis.Redis, key: str) -> Iterator[None]:
    """Keep a key there while the block lasts, however long, and no longer than `_LAPSE_S` after."""
    ended = threading.Event()

    def renew() -> None:
        client.set(key, "at work", px=round(1000 * _LAPSE_S))

    def renew_until_ended() -> None:
        while not ended.wait(_LAPSE_S / 3):
            with suppress(redis.RedisError):  # whoever writes the features meets it, too, and says so
                renew()

    renew()
    renewer = threading.Thread(target=renew_until_ended, name="renewer")
    renewer.start()
    try:
        yield
    finally:
        ended.set()
        renewer.join()


def open_users(client: redis.Redis, place: Namespace, knowledge: Knowledge) -> OnlineUsers:
    """Return the users of a namespace."""
    return OnlineUsers(client, place.name, feast_project(place.name), declared(knowledge.schema), knowledge)
