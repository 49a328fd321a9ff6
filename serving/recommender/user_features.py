"""One user's features and history: one HMGET, because every view of a user lies in one hash."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import EVENTS, USER_ID
from feature_repo.contracts.intervals import parse_cutoff
from feature_repo.feast_redis import (
    Stored,
    StoredValueError,
    decode_row,
    entity_key,
    feature_field,
    timestamp_field,
)
from serving.recommender.errors import UserFeaturesError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from feature_repo.contracts.features import Declared, FeatureGroup
    from feature_repo.contracts.manifests import OnlineSnapshot

_LAST_ITEMS = "user_last_items"
_LAST_VALUES = "user_last_values"
_SEEN_ITEMS = "user_seen_items"
_LIKED_ITEMS, _LIKED_TIMES = "user_liked_items", "user_liked_times"
_CIRCLE_ITEMS = "user_circle_items"
_TOP_TERMS = "user_top_"

_CONNECTIONS = 256
"""At most so many wait for Redis at a time; when it stalls, the others get their popular list at once."""

_NUMPY = {Dtype.INT64: np.int64, Dtype.FLOAT32: np.float32}


class Commands(Protocol):
    """What is needed of a Redis client."""

    async def execute_command(self, *args: object) -> Any:  # noqa: ANN401 - whatever the command returns
        """Send one command and return the reply."""
        ...


@dataclass(frozen=True, slots=True)
class UserLayout:
    """Where a snapshot's user views lie in Redis: worked out once per snapshot."""

    project: str
    groups: tuple[FeatureGroup, ...]
    stored: Mapping[str, tuple[bytes, ...]]
    """Group → its fields: the event time, then the features in their declared order."""
    recall: frozenset[str]
    """Those of `groups` that recall and its filter read, whatever a model does."""
    refreshed: datetime
    """The snapshot's cutoff: a row older than it may be is wrong if the refresh is, too; else its user was quiet."""
    spare: frozenset[str] = frozenset()
    """Those of `groups` that no answer is made from: what cannot be decoded there is missing, and spoils none."""

    @property
    def fields(self) -> tuple[bytes, ...]:
        """The fields of `groups`, in their order."""
        return tuple(chain.from_iterable(self.stored[group.name] for group in self.groups))

    def key(self, user_id: str) -> bytes:
        """Return the key of a user's hash."""
        return entity_key(self.project, USER_ID.name, user_id)

    def for_models(self, read: Collection[str], canary: Collection[str] = ()) -> UserLayout:
        """Return what is fetched where the model reads the groups `read`, and a canary those of `canary`.

        What else is made of events alone is left out. It would say of nobody that he is known: whoever has an event is
        so by his history, which recall reads.
        """
        needed = self.recall.union(read)
        wanted = needed.union(canary)
        groups = tuple(group for group in self.groups if group.name in wanted or group.source != EVENTS.name)
        return replace(self, groups=groups, spare=frozenset(group.name for group in groups) - needed)


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """What is known of a user."""

    values: Mapping[str, Stored | None]
    """Feature → value, of groups that are there and not too old; a null is None."""
    seen: tuple[str, ...]
    """Ids of every item the user has an event with, however old."""
    known: bool
    """Whether any group has the user at all."""
    missing: tuple[str, ...]
    """Names of groups that do not have the user, or whose values, as their refresh, are older than they may be."""

    def liked(self, at_least: float) -> tuple[str, ...]:
        """Return the items rated last of a value of `at_least`, latest first."""
        items, values = self.values.get(_LAST_ITEMS), self.values.get(_LAST_VALUES)
        if not isinstance(items, list) or not isinstance(values, list):
            return ()
        return tuple(
            str(item)
            for item, value in zip(items, values, strict=False)
            if item and isinstance(value, float) and value >= at_least
        )

    def likes(self) -> tuple[Sequence[str], Sequence[int]]:
        """Return every item that the user likes, the one liked last first, and when: seconds since 1970."""
        items, times = self.values.get(_LIKED_ITEMS), self.values.get(_LIKED_TIMES)
        if not isinstance(items, list) or not isinstance(times, list) or len(items) != len(times):
            return (), ()
        return cast("list[str]", items), cast("list[int]", times)

    def circle(self) -> tuple[str, ...]:
        """Return what others whom the user follows liked, latest first; nothing where nobody says who follows whom."""
        items = self.values.get(_CIRCLE_ITEMS)
        return tuple(str(item) for item in items if item) if isinstance(items, list) else ()

    def taste(self) -> tuple[tuple[str, str], ...]:
        """Return (attribute, term), the terms that the user likes most often, most first within each attribute."""
        return tuple(
            (name.removeprefix(_TOP_TERMS), str(term))
            for name, terms in self.values.items()
            if name.startswith(_TOP_TERMS) and isinstance(terms, list)
            for term in terms
            if term
        )


def user_layout(snapshot: OnlineSnapshot, declaration: Declared) -> UserLayout:
    """Work out the fields of a snapshot's user views."""
    stored = {}
    for group in declaration.users:
        view = snapshot.views[group.name]
        features = (feature_field(view, column.name) for column in group.features)
        stored[group.name] = (timestamp_field(view), *features)
    recall = frozenset(group.name for group in (declaration.user_activity, *declaration.user_latest))
    return UserLayout(snapshot.feast_project, declaration.users, stored, recall, parse_cutoff(snapshot.cutoff))


def connect(url: str, timeout_s: float) -> Redis:
    """Return a client whose dead connections are replaced at once, and whose slow ones are given up."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        max_connections=_CONNECTIONS,
        # One more try at once: the first finds the connection that died while nobody used it.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


async def read_user(redis: Commands, layout: UserLayout, user_id: str, now: datetime, timeout_s: float) -> UserFeatures:
    """Return what Redis has of a user, within `timeout_s` seconds.

    Raises:
        UserFeaturesError: Redis is away or too slow.
        StoredValueError: What it holds cannot be decoded.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reply = await redis.execute_command("HMGET", layout.key(user_id), *layout.fields)
    except (RedisError, OSError, TimeoutError) as error:
        msg = (
            f"Redis: expected the features of a user within {timeout_s * 1000:.0f} ms, "
            f"received {type(error).__name__}: {error}; is it running? KESTREL_REDIS_URL names its address"
        )
        raise UserFeaturesError(msg) from error
    return decode_user(layout.groups, reply, now, layout.refreshed, layout.spare)


def decode_user(
    groups: Sequence[FeatureGroup],
    reply: Sequence[bytes | None],
    now: datetime,
    refreshed: datetime,
    spare: Collection[str] = (),
) -> UserFeatures:
    """Turn the values of `UserLayout.fields` into features; those older than their group's `ttl_days` are left out.

    Such a row lacks nothing where the refresh is younger: it would have brought another, had the user done anything,
    and what is left out reads as `missing`, which is what it says (decision 0092).

    Args:
        groups: Whose fields they are.
        reply: What Redis holds of them.
        now: The platform's clock.
        refreshed: The snapshot's cutoff.
        spare: Names of groups that are missing where a value of theirs cannot be decoded.

    Raises:
        StoredValueError: A value of another group cannot be decoded.
    """
    values: dict[str, Stored | None] = {}
    seen: dict[str, None] = {}
    missing: list[str] = []
    known = False
    start = 0
    for group in groups:
        stamp, *stored = reply[start : start + 1 + len(group.features)]
        start += 1 + len(group.features)
        try:
            row = decode_row(group, stamp, stored)
        except StoredValueError:
            if group.name not in spare:
                raise
            row = None
        if row is None:
            missing.append(group.name)
            continue
        known = True
        for name in (_SEEN_ITEMS, _LAST_ITEMS):
            seen.update(dict.fromkeys(_texts(name, row.values.get(name))))
        if not row.is_too_old(now):
            values |= row.values
        elif group.is_too_old(refreshed, now):
            missing.append(group.name)
    return UserFeatures(values, tuple(item for item in seen if item), known, tuple(missing))


def _texts(name: str, value: Stored | None) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        msg = f"Redis: feature {name}: expected a list of strings, received {str(value)[:80]}; materialize again"
        raise StoredValueError(msg)
    return [str(item) for item in value]


def user_input(column: Column, value: Stored | None) -> NDArray[Any]:
    """Return a user's feature as the model takes it: `[1]`, or `[1, length]` padded with `missing`.

    Raises:
        StoredValueError: The value is of another type than the column declares.
    """
    if column.length == 0:
        row: list[Any] = [column.missing if value is None else value]
    else:
        given = value if isinstance(value, list) else [] if value is None else [value]
        row = [*given[: column.length], *[column.missing] * (column.length - len(given))]
    try:
        if column.dtype is Dtype.STRING:
            array: NDArray[Any] = np.array([str.encode(entry) for entry in row], dtype=object)
        else:
            array = np.array(row, dtype=_NUMPY[column.dtype])
        return array.reshape((1, column.length) if column.length else (1,))
    except (TypeError, ValueError) as error:
        msg = f"Redis: feature {column.name}: expected {column.dtype}, received {str(value)[:80]}; materialize again"
        raise StoredValueError(msg) from error
