"""A user's hash in Redis: the batch's state, the events since, and the features made of both, changed together.

Beside the fields of Feast's views (docs/feast-redis-layout.md) a user's hash holds one field for each event that the
batch's state does not contain. A change reads the hash, folds, and writes events and features in one transaction,
which Redis refuses if anybody wrote the hash in between: then it is read again. So neither a materialisation nor
another worker is ever overwritten with figures that do not know of it.

That costs time by the number of events. Of a user who has very many, an event is only written into the hash, and the
fold put off: whoever works the stream off makes it up now and then (`fold_next`), so that nobody waits for it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import redis

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.events import stream_name
from feature_repo.feast_redis import StoredValueError, decode_timestamp, entity_key, timestamp_field
from pipelines.errors import TransientError
from pipelines.stream import late_likes
from pipelines.stream.fold import (
    UserState,
    advance,
    features,
    liked_features,
    liked_last,
    likes_of,
    sequence_features,
    session_features,
)
from pipelines.stream.placed_events import EVENT_PREFIX, Placed, decode_placed
from pipelines.stream.state_row import state_of
from pipelines.stream.view_layout import ViewLayout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from feature_repo.contracts.events import Event
    from feature_repo.contracts.features import Declared
    from feature_repo.feast_redis import Stored
    from pipelines.stream.fold import Like
    from pipelines.stream.items import Knowledge

_log = logging.getLogger(__name__)

_TRIES = 50
_USERS_AT_A_TIME = 500
_MANY_FIELDS = 1_000
"""Whose hash has more, has very many events since the batch; a fold of so many takes about 10 ms."""
_NO_BATCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The stamp of a history that no batch knows."""
_DAMAGED = "what Redis holds of the features is damaged; they stay as they are, and the next materialisation mends them"
_REDEFINED = (
    "user %r, and others perhaps: Redis holds the state by another definition than this code's; the features stay as "
    "they are, and events are kept, until 'python -m pipelines materialize' has run"
)


def recent_users_key(namespace: str) -> str:
    """Return the key of the sorted set of users who have events that the batch's state does not contain."""
    return f"{stream_name(namespace)}:recent"


def late_users_key(namespace: str) -> str:
    """Return the key of the set of users whose history has items of events too late for the batch's state.

    A materialisation empties it: from then on their rows are the batch's again.
    """
    return f"{stream_name(namespace)}:late"


def put_off_users_key(namespace: str) -> str:
    """Return the key of the set of users whose hash has events that no fold has seen."""
    return f"{stream_name(namespace)}:put_off"


class OnlineUsers:
    """The hashes of a namespace's users.

    Args:
        client: A connection to Redis.
        namespace: Whose users.
        project: Feast's project, a part of every key.
        declaration: The feature groups.
        knowledge: What is known of items now.
    """

    def __init__(
        self, client: redis.Redis, namespace: str, project: str, declaration: Declared, knowledge: Knowledge
    ) -> None:
        self._client = client
        self._recent, self._late = recent_users_key(namespace), late_users_key(namespace)
        self._put_off = put_off_users_key(namespace)
        self._project = project
        self._knowledge = knowledge
        self._activity, self._session, self._sequence, self._history, self._liked, self._state = (
            ViewLayout(group)
            for group in (
                declaration.user_activity,
                declaration.user_session,
                declaration.user_sequence,
                declaration.user_history,
                declaration.user_liked_items,
                declaration.user_state,
            )
        )
        self._states = timestamp_field(f"{declaration.user_state.name}_")
        """What the stamps of states begin with, whatever their definition."""
        self._said_redefined = False
        self._blank = {
            layout.stamp: layout.encode({column.name: cast("Stored", column.blank) for column in group.features}, 0)
            for group in declaration.user_unstreamed
            for layout in (ViewLayout(group),)
        }

    def apply(self, placed: Sequence[Placed]) -> int:
        """Bring events into the features of their users; return how many users' hashes changed.

        Applied again, in whatever order and company, the same events change nothing. The features of users who have
        very many events are left to `fold_next`.
        """
        by_user: dict[str, list[Placed]] = {}
        for each in placed:
            by_user.setdefault(each.event.user_id, []).append(each)
        return self._change_soon(by_user)

    def recent(self) -> list[str]:
        """Return everybody who has events since the batch."""
        return [user.decode() for user in cast("list[bytes]", self._client.zrange(self._recent, 0, -1))]

    def fold_again(self, users: Sequence[str] | None = None) -> int:
        """Make the features anew of `users` (default: all recent ones); return how many hashes changed.

        After a materialisation: it has written what the batch knows, over what the stream had.
        """
        return self._change_all({user: [] for user in (self.recent() if users is None else users)})

    def fold_soon(self, users: Sequence[str]) -> int:
        """Do as `fold_again` does, but leave users who have very many events to `fold_next`."""
        return self._change_soon({user: [] for user in users})

    def fold_next(self) -> bool:
        """Make the features of one of those whose fold was put off; return whether there was any."""
        drawn = cast("bytes | None", self._client.srandmember(self._put_off))
        if drawn is None:
            return False
        with suppress(redis.WatchError):  # somebody has written more events; the user's turn comes again
            self._try({drawn.decode(): []})
        return True

    def folded(self, users: Iterable[str]) -> set[str]:
        """Return those of `users` who have events since the batch, and whose rows are what state and events give.

        Those whose fold was put off are among them: theirs will be.
        """
        names = list(users)
        found = self._members(self._put_off, names)
        for start in range(0, len(names), _USERS_AT_A_TIME):
            part = names[start : start + _USERS_AT_A_TIME]
            hashes = self._read(entity_key(self._project, USER_ID.name, user) for user in part)
            for user, stored in zip(part, hashes, strict=True):
                change = self._changed(user, stored, ())
                if change.last is not None and not change.fields and not change.waits:
                    found.add(user)
        return found

    def late(self, users: Iterable[str]) -> set[str]:
        """Return those of `users` whose history has items of events that came too late for the batch's state."""
        return self._members(self._late, list(users))

    def _members(self, key: str, users: Sequence[str]) -> set[str]:
        if not users:
            return set()
        marks = cast("list[int]", self._client.smismember(key, cast("list[Any]", users)))
        return {user for user, mark in zip(users, marks, strict=True) if mark}

    def _change_soon(self, by_user: Mapping[str, list[Placed]]) -> int:
        busy = self._busy(list(by_user))
        kept = sum(self._keep(user, by_user[user]) for user in busy)
        return kept + self._change_all({user: events for user, events in by_user.items() if user not in busy})

    def _busy(self, users: Sequence[str]) -> set[str]:
        """Return those of `users` who have very many events since the batch."""
        with self._client.pipeline(transaction=False) as pipeline:
            for user in users:
                pipeline.hlen(cast("str", entity_key(self._project, USER_ID.name, user)))
            return {user for user, fields in zip(users, pipeline.execute(), strict=True) if fields > _MANY_FIELDS}

    def _keep(self, user: str, arrived: Sequence[Placed]) -> bool:
        """Write events into a user's hash, and put the fold off; return whether any was new."""
        key = entity_key(self._project, USER_ID.name, user)
        names = list({each.field for each in arrived})

        def change(transaction: Any) -> bool:  # noqa: ANN401 - redis-py's pipeline
            values = transaction.hmget(key, names) if names else []
            stored = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            newer = _newer(_known(user, stored)[0], arrived)
            transaction.multi()
            if newer:
                transaction.hset(key, mapping={name: each.encode() for name, each in newer.items()})
                last = max(each.event.event_time for each in newer.values())
                transaction.zadd(self._recent, {user: last // 1_000_000}, gt=True)
            transaction.sadd(self._put_off, user)
            return bool(newer)

        changed = cast("Any", self._client).transaction(change, key, value_from_callable=True)
        return bool(changed)

    def _change_all(self, by_user: Mapping[str, list[Placed]]) -> int:
        users = list(by_user)
        parts = (users[start : start + _USERS_AT_A_TIME] for start in range(0, len(users), _USERS_AT_A_TIME))
        return sum(self._change({user: by_user[user] for user in part}) for part in parts)

    def _change(self, by_user: Mapping[str, list[Placed]]) -> int:
        """Change some users' hashes in one transaction; users who are written by others meanwhile, one by one.

        Where others write all the time, and there is nothing to add to the hash, the fold is put off: they fold, too.
        """
        for _ in range(_TRIES):
            try:
                return self._try(by_user)
            except redis.WatchError:
                if len(by_user) > 1:
                    return sum(self._change({user: events}) for user, events in by_user.items())
        ((user, arrived),) = by_user.items()
        if not arrived:
            self._client.sadd(self._put_off, user)
            return 0
        msg = f"user {user!r}: Redis has refused {_TRIES} changes, as somebody else writes all the time"
        raise TransientError(msg)

    def _try(self, by_user: Mapping[str, list[Placed]]) -> int:
        keys = {user: entity_key(self._project, USER_ID.name, user) for user in by_user}
        with self._client.pipeline(transaction=True) as transaction:
            transaction.watch(*keys.values())  # type: ignore[no-untyped-call]  # redis-py leaves this one out
            changes = {
                user: self._changed(user, stored, by_user[user])
                for user, stored in zip(by_user, self._read(keys.values()), strict=True)
            }
            transaction.multi()
            for user, change in changes.items():
                change.queue(transaction, keys[user], user, self._recent, self._late)
                transaction.srem(self._put_off, user)
            transaction.execute()
        return sum(bool(change.fields or change.dropped) for change in changes.values())

    def _read(self, keys: Iterable[bytes]) -> list[dict[bytes, bytes]]:
        """Read whole hashes, in one round trip, over another connection than the one that watches them."""
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(cast("str", key))
            return cast("list[dict[bytes, bytes]]", pipeline.execute())

    def _changed(self, user: str, stored: Mapping[bytes, bytes], arrived: Sequence[Placed]) -> _Change:
        known, unreadable = _known(user, stored)
        newer = _newer(known, arrived)
        try:
            if self._is_redefined(stored):
                self._say_redefined(user)
                change = self._kept(stored, known, newer)
            else:
                change = self._fold(stored, known, newer)
        except (StoredValueError, TypeError, ValueError):
            # One user's bytes must not hold up everybody's events.
            _log.exception("user %r: %s", user, _DAMAGED)
            change = _waiting(known, newer)
        return replace(
            change, dropped=[*change.dropped, *(field for field in unreadable if field not in change.fields)]
        )

    def _is_redefined(self, stored: Mapping[bytes, bytes]) -> bool:
        """Tell whether the batch wrote the user's state last by another definition: by other code than this.

        Nothing says what came before this user's events, while those of a new one are all there are. So are those of
        one whom the batch has forgotten, and the history's stamp with him: no state by an older definition counts.
        """
        if decode_timestamp(stored.get(self._history.stamp)) in {None, _NO_BATCH}:
            return False
        own = decode_timestamp(stored.get(self._state.stamp))
        others = (decode_timestamp(stamp) for field, stamp in stored.items() if field.startswith(self._states))
        return any(other is not None and (own is None or own < other) for other in others)

    def _say_redefined(self, user: str) -> None:
        if not self._said_redefined:
            _log.warning(_REDEFINED, user)
        self._said_redefined = True

    def _kept(
        self, stored: Mapping[bytes, bytes], known: Mapping[bytes, Placed], newer: Mapping[bytes, Placed]
    ) -> _Change:
        """Return a change that keeps the events, and adds their items to those seen, which need no state."""
        change = _waiting(known, newer)
        if seen := {each.event.item_id for each in (*known.values(), *newer.values())}:
            history = self._history_fields(stored, seen)
            change.fields.update((field, value) for field, value in history.items() if stored.get(field) != value)
        return change

    def _fold(
        self, stored: Mapping[bytes, bytes], known: Mapping[bytes, Placed], newer: Mapping[bytes, Placed]
    ) -> _Change:
        row = self._state.decode(stored)
        state = UserState() if row is None else state_of(row, self._knowledge.schema)
        latest = {**known, **newer}
        # What lies at or before the state's last event is in the state, or too late for it: the next batch has it.
        since = {field: each.event for field, each in latest.items() if each.event.event_time > state.last_time}
        too_late = [each.event for field, each in latest.items() if field not in since]
        state, late = self._with_late_likes(stored, state, too_late)
        fields = {field: each.encode() for field, each in newer.items() if field in since}
        if late:
            fields[late_likes.FIELD] = late_likes.encode(stored.get(self._state.stamp, b""), late)
        if latest or late:
            fields |= self._features(stored, state, since.values())
        if latest:
            fields |= self._history_fields(stored, {each.event.item_id for each in latest.values()})
            fields |= self._blank_fields(stored)
        kept = since.keys() | fields.keys()
        times = (*(event.event_time for event in since.values()), *(time for _, time in late))
        return _Change(
            {field: value for field, value in fields.items() if stored.get(field) != value},
            [field for field in (*known, *({late_likes.FIELD} & stored.keys())) if field not in kept],
            max(times, default=None),
            is_late=bool(too_late),
        )

    def _features(
        self, stored: Mapping[bytes, bytes], state: UserState, since: Collection[Event]
    ) -> dict[bytes, bytes]:
        """Return the fields of what is made of a state and the events since."""
        schema = self._knowledge.schema
        now = advance(state, since, self._knowledge.facts, schema)
        fields = self._as_of_the_batch(self._liked, stored, liked_features(now))
        types = schema.counted_types
        if counted := [event.event_time for event in since if event.event_type in types]:
            fields |= self._activity.encode(features(now, schema), max(counted))
            fields |= self._session.encode(session_features(now), max(counted))
            fields |= self._sequence.encode(sequence_features(now), max(counted))
        return fields

    def _with_late_likes(
        self, stored: Mapping[bytes, bytes], state: UserState, late: Sequence[Event]
    ) -> tuple[UserState, list[Like]]:
        """Return the state with what too late events say is liked, and what of it the batch's state does not have."""
        schema, batch = self._knowledge.schema, stored.get(self._state.stamp, b"")
        likes = [*late_likes.decode(stored.get(late_likes.FIELD), batch), *likes_of(late, schema)]
        if not likes:
            return state, []
        liked = liked_last(state.liked, likes, schema.liked_items)
        known = set(state.liked)
        return replace(state, liked=liked), [like for like in liked if like not in known]

    def _history_fields(self, stored: Mapping[bytes, bytes], seen: set[str]) -> dict[bytes, bytes]:
        """Return the fields of the seen items."""
        row = self._history.decode(stored)
        before = cast("list[str]", (row or {}).get("user_seen_items") or [])
        return self._as_of_the_batch(self._history, stored, {"user_seen_items": sorted({*before, *seen})})

    @staticmethod
    def _as_of_the_batch(
        layout: ViewLayout, stored: Mapping[bytes, bytes], row: Mapping[str, Stored]
    ) -> dict[bytes, bytes]:
        """Return a row's fields. Their stamp says of which cutoff the batch's part is; 1970: of none."""
        fields = layout.encode(row, 0)
        return fields | {layout.stamp: stored.get(layout.stamp, fields[layout.stamp])}

    def _blank_fields(self, stored: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return, of the views that have no row of the user, what the next batch will write of a new one."""
        missing = (fields for stamp, fields in self._blank.items() if stamp not in stored)
        return {field: value for fields in missing for field, value in fields.items()}


def _known(user: str, stored: Mapping[bytes, bytes]) -> tuple[dict[bytes, Placed], list[bytes]]:
    """Return the events that a hash holds, by field, and the fields of those that cannot be read: the lake has them."""
    known, unreadable = {}, []
    for field, value in stored.items():
        if field.startswith(EVENT_PREFIX):
            try:
                known[field] = decode_placed(user, value)
            except (TypeError, ValueError):
                _log.exception("user %r: an event that is kept in Redis is damaged; it is dropped", user)
                unreadable.append(field)
    return known, unreadable


def _newer(known: Mapping[bytes, Placed], arrived: Sequence[Placed]) -> dict[bytes, Placed]:
    """Return, of the events that arrived, those which are not known, or known from an earlier position."""
    newer: dict[bytes, Placed] = {}
    for each in arrived:
        field = each.field
        before = newer.get(field) or known.get(field)
        if before is None or before.position < each.position:
            newer[field] = each
    return newer


def _waiting(known: Mapping[bytes, Placed], newer: Mapping[bytes, Placed]) -> _Change:
    """Return a change that keeps the events until a materialisation has written a state to count them on from."""
    times = (each.event.event_time for each in (*known.values(), *newer.values()))
    fields = {field: each.encode() for field, each in newer.items()}
    return _Change(fields, [], max(times, default=None), is_late=False, waits=True)


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of one user's hash."""

    fields: dict[bytes, bytes]
    dropped: list[bytes]
    last: int | None
    """Microseconds since 1970 of the last event, or late like, that the batch does not have; None if it has all."""
    is_late: bool
    """Whether an event of the history is too late for the batch's state, which perhaps has it."""
    waits: bool = False
    """Whether events wait in the hash for a materialisation: what they are counted on from is damaged, or redefined."""

    def queue(self, transaction: Any, key: bytes, user: str, recent: str, late: str) -> None:  # noqa: ANN401 - redis-py's pipeline; where to
        if self.fields:
            transaction.hset(key, mapping=self.fields)
        if self.dropped:
            transaction.hdel(key, *self.dropped)
        if self.last is None:
            transaction.zrem(recent, user)
        else:
            transaction.zadd(recent, {user: self.last // 1_000_000})
        if self.is_late:
            transaction.sadd(late, user)
