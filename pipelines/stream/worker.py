"""The stream job: one reader updates features at once, another lands events now and then; both until told to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import redis

from feature_repo.contracts.events import FULL_REDIS, heartbeat_key
from feature_repo.contracts.places import DATASET_MANIFEST
from pipelines.errors import JobError, LockedError, TransientError
from pipelines.feast_store.online_cutoff import materialized_path, online_cutoff
from pipelines.io.online_client import may_pass
from pipelines.stream.batch import materializing_key, open_users
from pipelines.stream.items import read_knowledge
from pipelines.stream.landing import decode, drain, landing_lock
from pipelines.stream.placed_events import Placed
from pipelines.stream.sources import lake_source, online_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings
    from pipelines.stream.online_users import OnlineUsers
    from pipelines.stream.source import EventSource

_log = logging.getLogger(__name__)

_BATCH = 500
_WAIT_S = 0.5
"""How long a read waits for the next event; an event that comes ends it at once."""
_FOLDED_AT_A_TIME = 100
"""Users who are folded again between two looks at the stream: the next event must not wait for all of them."""
_BUSY_SHARE = 0.1
"""At most so much of the time goes into the folds of users who have very many events: the others must not wait."""
_HEARTBEAT_S = 10
_WORST_PAUSE_S = 2.0


def connect(settings: Settings) -> redis.Redis:
    """Return a client for a process that outlives many a Redis."""
    return redis.Redis.from_url(settings.redis_url, socket_connect_timeout=5, socket_timeout=60, socket_keepalive=True)


@dataclass(slots=True)
class Worker:
    """What one process does for one namespace."""

    settings: Settings
    place: Namespace
    client: redis.Redis
    stop: threading.Event = field(default_factory=threading.Event)
    applied: int = 0
    """Events brought into features, repeated ones included."""
    landed: int = 0
    """Events landed, repeated ones included."""
    _failure: Exception | None = None
    """What ended the landing for good."""
    _users: OnlineUsers | None = None
    _knows: object = None
    _to_fold: list[str] = field(default_factory=list)
    """Users whose features are to be made anew."""
    _busy_rest_until: float = 0.0
    """When the next user who has very many events may be folded."""
    _kept_house: float = 0.0
    _was_materializing: bool = False
    _said: str = ""

    def run(self) -> None:
        """Work until `stop` is set; a Redis that is away, or full, is waited for.

        Raises:
            Exception: What neither reader can go on after. Whoever supervises the process starts it again.
        """
        lander = threading.Thread(target=self._land_for_ever, name="lander")
        lander.start()
        try:
            self._until_stopped(self._follow)
        finally:
            self.stop.set()
            lander.join()
            with suppress(redis.RedisError):
                self.client.delete(heartbeat_key(self.place.name))
        if self._failure is not None:
            raise self._failure

    def _until_stopped(self, work: Callable[[], None]) -> None:
        """Call `work` again whenever it fails for a reason that may pass, with growing pauses."""
        pause = 0.05
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                work()
            except (redis.RedisError, TransientError, OSError) as error:
                if isinstance(error, redis.RedisError) and not may_pass(error):
                    raise
                pause = 0.05 if time.monotonic() - began > _WORST_PAUSE_S else min(2 * pause, _WORST_PAUSE_S)
                remedy = f"; {FULL_REDIS}" if isinstance(error, redis.ResponseError) else ""
                _log.warning("%s: %s%s; the next try follows in %.1f s", type(error).__name__, error, remedy, pause)
                self.stop.wait(pause)

    def _follow(self) -> None:
        with closing(online_source(self.settings, self.client, self.place.name)) as source:
            while not self.stop.is_set():
                self._keep_house()
                users = self._current_users()
                if users is None:
                    self.stop.wait(_WAIT_S)
                else:
                    self._fold_some(users)
                    self._fold_busy(users)
                    self.applied += apply_next(source, users, 0 if self._to_fold else _WAIT_S)

    def _fold_some(self, users: OnlineUsers) -> None:
        users.fold_soon(self._to_fold[-_FOLDED_AT_A_TIME:])
        del self._to_fold[-_FOLDED_AT_A_TIME:]

    def _fold_busy(self, users: OnlineUsers) -> None:
        """Fold one of those who were put off, and rest from them the longer, the longer that took."""
        began = time.monotonic()
        if began >= self._busy_rest_until and users.fold_next():
            ended = time.monotonic()
            self._busy_rest_until = ended + (ended - began) * (1 / _BUSY_SHARE - 1)

    def _current_users(self) -> OnlineUsers | None:
        """Return the users with what the lake knows now, or knew last; None as long as nothing was ingested."""
        seen = _marks(self.place)
        if seen != self._knows or self._users is None:
            try:
                knowledge = read_knowledge(self.place, online_cutoff(self.place))
            except JobError as error:
                # Nothing was ingested yet, or the items are being written: events wait, or meet what was known before.
                self._say_once(str(error))
                return self._users
            self._users, self._knows = open_users(self.client, self.place, knowledge), seen
            # What was folded while a new batch was being written knew its items as of the one before; and a
            # materialisation that was killed while no stream job ran has written over what nobody has folded again.
            self._to_fold = self._users.recent()
        return self._users

    def _keep_house(self) -> None:
        """Show that the job lives, and see to it that what a materialisation writes over is folded again."""
        if time.monotonic() - self._kept_house < _WAIT_S:
            return
        name = self.place.name
        self.client.set(heartbeat_key(name), "alive", ex=_HEARTBEAT_S)
        materializing = bool(self.client.exists(materializing_key(name)))
        ended = self._was_materializing and not materializing
        if self._users is not None and (ended or (materializing and not self._to_fold)):
            self._to_fold = self._users.recent()
        self._was_materializing, self._kept_house = materializing, time.monotonic()

    def _say_once(self, what: str) -> None:
        if what != self._said:
            _log.warning("%s", what)
        self._said = what

    def _land_for_ever(self) -> None:
        try:
            self._until_stopped(self._land_now_and_then)
        except Exception as error:  # noqa: BLE001 - a reader that is gone must not go unnoticed: the process ends with it
            self._failure = error
            self.stop.set()

    def _land_now_and_then(self) -> None:
        while not self.stop.wait(self.settings.stream_land_seconds):
            try:
                self.landed += land(self.settings, self.client, self.place, wait_s=0)
            except LockedError:
                _log.info("namespace %s: another process lands its events", self.place.name)


def apply_next(source: EventSource, users: OnlineUsers, wait_s: float = _WAIT_S) -> int:
    """Read the next entries, bring them into features, and only then acknowledge them; return how many."""
    received = source.read(_BATCH, wait_s)
    placed = [(entry, event) for entry in received if (event := decode(source, entry)) is not None]
    users.apply([Placed(event, entry.position) for entry, event in placed])
    source.acknowledge(received)
    return len(placed)


def land(settings: Settings, client: redis.Redis, place: Namespace, wait_s: float) -> int:
    """Land everything that the stream holds, and trim what both readers are done with; return how many events.

    Raises:
        LockedError: Another process lands for longer than `wait_s`.
    """
    with landing_lock(place, wait_s), closing(lake_source(settings, client, place.name)) as source:
        landed = drain(source, place)
        source.trim()
    return landed


def _marks(place: Namespace) -> tuple[object, ...]:
    """Return what changes when the schema, the items or the refresh do: all are replaced by a rename."""
    marks: list[tuple[int, int] | None] = []
    tables = (place.dataset(name) / DATASET_MANIFEST for name in ("items", "item_versions"))
    for path in (place.schema, *tables, materialized_path(place)):
        try:
            status = path.stat()
            marks.append((status.st_mtime_ns, status.st_ino))
        except FileNotFoundError:
            marks.append(None)
    return tuple(marks)


@contextmanager
def stopping_at_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set `stop` while the block lasts."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
