"""An event as it is sent: declared once, checked in one place, carried by a stream, landed as it was.

The API's model, the fields of a stream's entry and the columns of a landing file are all made from `SENT`. What an
event is follows from its key (user, item, type, time): the same key once more is the same event, with a corrected value
if that differs. Of two that differ, the one that the stream holds at the later position is right. An id that a sender
gave names one event for a time: the recommender refuses it for another.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from feature_repo.contracts.columns import Column, Dtype, float32
from feature_repo.contracts.datasets import EVENT_TIME, EVENT_TYPE, EVENTS, ITEM_ID, USER_ID, VALUE, Dataset
from feature_repo.contracts.ids import ID_MEANING, cut, is_id, read_id
from feature_repo.contracts.intervals import check_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from feature_repo.contracts.schemas import Schema, ValueRange

EVENTS_URL_PATTERN = r"^(kafka://[^\s/,]+:\d+(,[^\s/,]+:\d+)*/?)?$"
"""What the setting KESTREL_EVENTS_URL may be; empty is the online store's Redis."""

FULL_REDIS = "if it is out of memory, raise its maxmemory; if its disk is full, free some of it; its log says which"
"""What to do about a Redis that refuses to write."""

EVENT_ID = Column("event_id", Dtype.STRING, "What the sender calls the event; by default made from its key")
POSITION_HIGH = Column(
    "position_high", Dtype.INT64, "Place in the log: a Redis id's milliseconds, or 2^62 + Kafka's partition"
)
POSITION_LOW = Column("position_low", Dtype.INT64, "Place within that: a Redis id's sequence number; Kafka's offset")

SENT = (EVENT_ID, *EVENTS.columns)
"""What an event consists of on its way."""

LANDED = Dataset(
    name="streamed",
    columns=(*SENT, POSITION_HIGH, POSITION_LOW),
    key=EVENTS.key,
    sort=EVENTS.sort,
    partitioned_by_event_date=True,
    meaning="What came by the stream, each event as its latest correction left it",
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_END_OF_TIME = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_FLOAT32_MAX = 3.4028234663852886e38
STEP_TOLERANCE = 1e-6
"""Of a step: decimal fractions have no exact binary form."""
_SHOWN = 80
_WHOLE = "event"
"""What a refusal is about that is about no single field."""
_REQUIRED = tuple(column.name for column in EVENTS.columns)


@dataclass(frozen=True, slots=True)
class Event:
    """One event that passed the checks."""

    event_id: str
    user_id: str
    item_id: str
    event_type: str
    value: float
    """As float32 holds it."""
    event_time: int
    """Microseconds since 1970 in UTC."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What the event is: user, item, type and time."""
        return self.user_id, self.item_id, self.event_type, self.event_time

    @property
    def has_own_id(self) -> bool:
        """Whether its sender gave it an id, not one that follows from the key."""
        return self.event_id != key_id(*self.key)

    def fields(self) -> dict[str, str]:
        """Return the fields of a stream's entry, as text."""
        return {column.name: str(getattr(self, column.name)) for column in SENT}

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Self:
        """Read what `fields` wrote; ValueError says which field is missing, or holds what no column can."""
        try:
            texts = {column.name: fields[column.name] for column in SENT}
            event = cls(
                **{name: cut(texts[name]) for name in (EVENT_ID.name, USER_ID.name, ITEM_ID.name, EVENT_TYPE.name)},
                value=float(texts[VALUE.name]),
                event_time=int(texts[EVENT_TIME.name]),
            )
        except KeyError as error:
            msg = f"entry of the stream: expected the fields {[column.name for column in SENT]}, {error} is missing"
            raise ValueError(msg) from error
        event._check_storable()
        return event

    def _check_storable(self) -> None:
        """Refuse what no column holds: whoever sent it did not check it, and every reader would fail of it."""
        for column in (EVENT_ID, USER_ID, ITEM_ID, EVENT_TYPE):
            text = getattr(self, column.name)
            if not is_id(text):
                msg = f"entry of the stream: {column.name}: expected {ID_MEANING}, received {shown(text)}"
                raise ValueError(msg)
        if not abs(self.value) <= _FLOAT32_MAX:  # of a NaN, no comparison is true
            msg = f"entry of the stream: {VALUE.name}: expected a number that float32 holds, received {self.value}"
            raise ValueError(msg)
        if not 0 <= self.event_time < _END_OF_TIME:
            expected = "microseconds since 1970, of a year before 10000"
            msg = f"entry of the stream: {EVENT_TIME.name}: expected {expected}, received {shown(self.event_time)}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """An entry's place in its stream; of two values for one event, the later is right."""

    high: int
    low: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event was not taken."""

    object: str
    """The field at fault, or 'event'."""
    expected: str
    received: str
    remedy: str


class RefusedError(ValueError):
    """An event is not what its contract says."""

    def __init__(self, field: str, expected: str, received: object, remedy: str) -> None:
        self.refusal = Refusal(field, expected, shown(received), remedy)
        super().__init__(f"{field}: expected {expected}, received {self.refusal.received}")


def stream_name(namespace: str) -> str:
    """Return the key of a namespace's stream; every other key of the stream path begins with it."""
    return f"kestrel:{{{check_namespace(namespace)}}}:events"


def topic_name(namespace: str) -> str:
    """Return a namespace's topic, where Kafka takes the place of the Redis stream; users are its messages' keys."""
    return f"kestrel.{check_namespace(namespace)}.events"


def kafka_servers(events_url: str) -> str:
    """Return the bootstrap servers of `kafka://host:port[,host:port]`."""
    return events_url.removeprefix("kafka://").rstrip("/")


def heartbeat_key(namespace: str) -> str:
    """Return the key that exists while a stream job of the namespace works."""
    return f"{stream_name(namespace)}:heartbeat"


def id_key(namespace: str, event_id: str) -> str:
    """Return the key that holds what an id, which a sender gave, named first."""
    return f"{stream_name(namespace)}:id:{event_id}"


def shown(received: object) -> str:
    """Return a value as a message shows it: no longer than a line."""
    try:
        text = repr(received)
    except (RecursionError, ValueError):  # lists within lists a thousand deep, a number of thousands of digits
        return f"a {type(received).__name__} that is too deep or too long to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} and {len(text) - _SHOWN} more"


def key_id(user_id: str, item_id: str, event_type: str, event_time: int) -> str:
    """Return the id of an event that its sender gave none: 32 hexadecimal digits made from its key."""
    return hashlib.sha256("\0".join((user_id, item_id, event_type, str(event_time))).encode()).hexdigest()[:32]


def check_event(raw: object, schema: Schema, is_item: Callable[[str], bool], now: datetime) -> Event:
    """Return the event that `raw`, a JSON value, describes.

    Args:
        raw: What was sent.
        schema: The data set's: its event types and the range of their values.
        is_item: Whether an item of this id can be recommended.
        now: The platform's clock.

    Raises:
        RefusedError: It is not what the contract says; the first fault found.
    """
    if not isinstance(raw, dict):
        raise RefusedError(_WHOLE, f"an object with {', '.join(_REQUIRED)}", raw, "Send a JSON object.")
    _check_names(raw)
    user_id, item_id = _identity(raw, USER_ID.name), _identity(raw, ITEM_ID.name)
    if not is_item(item_id):
        remedy = "Take an item_id from an answer of /recommend/{user}; new items come with the next refresh."
        raise RefusedError(ITEM_ID.name, "an item of the catalogue", item_id, remedy)
    event_type, value = _event_type(raw[EVENT_TYPE.name], schema), _value(raw[VALUE.name], schema)
    event_time = _event_time(raw[EVENT_TIME.name], now)
    given = _identity(raw, EVENT_ID.name) if raw.get(EVENT_ID.name) is not None else ""
    event_id = given or key_id(user_id, item_id, event_type, event_time)
    return Event(event_id, user_id, item_id, event_type, value, event_time)


def _check_names(raw: Mapping[str, object]) -> None:
    for name in _REQUIRED:
        if raw.get(name) is None:
            raise RefusedError(name, "a value", raw.get(name), f"Add {name}.")
    known = {column.name for column in SENT}
    for name in raw:
        if name not in known:
            expected = f"no field but {', '.join(column.name for column in SENT)}"
            raise RefusedError(_WHOLE, expected, name, "Correct or leave out that field.")


def _identity(raw: Mapping[str, object], name: str) -> str:
    value = raw[name]
    try:
        return read_id(value if isinstance(value, str) else "")
    except ValueError:
        remedy = f"Send {name} as the data set names it."
        raise RefusedError(name, f"a string, {ID_MEANING}", value, remedy) from None


def _event_type(value: object, schema: Schema) -> str:
    names = [event_type.name for event_type in schema.event_types]
    if not isinstance(value, str) or value not in names:
        raise RefusedError(EVENT_TYPE.name, f"one of {', '.join(names)}", value, f"Send {names[0]!r}, say.")
    return value


def _value(value: object, schema: Schema) -> float:
    allowed = schema.value
    meaning = f" ({allowed.meaning})" if allowed.meaning else ""
    expected = f"a number from {allowed.minimum:g} to {allowed.maximum:g} in steps of {allowed.step:g}{meaning}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(VALUE.name, expected, value, f"Send {_nearest(allowed.minimum, allowed):g}, say.")
    # Held to the range before it is divided, as 1e308 would become infinite. A NaN, which is no number, is the minimum.
    within = min(max(allowed.minimum, value), allowed.maximum)
    steps = within / allowed.step
    if within != value or abs(steps - round(steps)) > STEP_TOLERANCE:
        remedy = f"Send {_nearest(within, allowed):g}, which is the nearest."
        raise RefusedError(VALUE.name, expected, value, remedy)
    return float32(round(steps) * allowed.step)


def _nearest(within: float, allowed: ValueRange) -> float:
    """Return the allowed value that is nearest to one of the range."""
    fewest = math.ceil(allowed.minimum / allowed.step - STEP_TOLERANCE)
    most = math.floor(allowed.maximum / allowed.step + STEP_TOLERANCE)
    return min(max(round(within / allowed.step), fewest), most) * allowed.step


def _event_time(value: object, now: datetime) -> int:
    expected = "a time in ISO 8601 with its distance from UTC"
    try:
        # What follows a NUL, Python's reader does not see.
        moment = datetime.fromisoformat(value) if isinstance(value, str) and "\0" not in value else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        remedy = f"Send '{now.isoformat(timespec='seconds')}' for this moment."
        raise RefusedError(EVENT_TIME.name, expected, value, remedy)
    if not _EPOCH <= moment <= now:
        clock = f"{expected}, from 1970 to the platform's clock, {now.isoformat(timespec='seconds')}"
        raise RefusedError(EVENT_TIME.name, clock, value, "Send the time at which it happened.")
    return (moment - _EPOCH) // _MICROSECOND
