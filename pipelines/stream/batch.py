"""What a materialisation and the stream job must know of each other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo.contracts.events import stream_name
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import feast_project
from pipelines.stream.items import Knowledge, read_knowledge
from pipelines.stream.online_users import OnlineUsers, late_users_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import redis

    from feature_repo.contracts.places import Namespace

_LONGEST_S = 600
"""So long after a materialisation that was killed, the stream job stops to mend what it may have left."""


def materializing_key(namespace: str) -> str:
    """Return the key that exists while a materialisation writes users."""
    return f"{stream_name(namespace)}:materializing"


@contextmanager
def materializing(client: redis.Redis, place: Namespace, cutoff: datetime) -> Iterator[None]:
    """Tell the stream job that the batch writes over users' features, and fold them again when it has.

    While the key is there, the stream job folds everybody with recent events again and again: nobody's features lack
    what they did a moment ago for longer than that takes.
    """
    client.set(materializing_key(place.name), "at work", ex=_LONGEST_S)
    client.delete(late_users_key(place.name))
    yield
    open_users(client, place, read_knowledge(place, cutoff)).fold_again()
    client.delete(materializing_key(place.name))


def open_users(client: redis.Redis, place: Namespace, knowledge: Knowledge) -> OnlineUsers:
    """Return the users of a namespace."""
    return OnlineUsers(client, place.name, feast_project(place.name), declared(knowledge.schema), knowledge)
