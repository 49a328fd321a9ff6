"""A user's features from the batch's state and the events since: the same figures as Spark's, to the last bit.

`advance` takes a state and events to the state after them; `features` and its likes read a state off. Counts and sums
are whole numbers, so the order of the events changes nothing but the list of the last ones, which has a total order:
time, then item, then type. Their sessions are counted from the user's first on: a new event changes none of them. Of
the liked items the last ones are enough: whatever so many others are ahead of stays behind them until it is liked
again, and then its older time is of no account. The specifications in tests/spec/features hold for this and for Spark
alike.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from feature_repo.contracts.features import LAST_ITEMS, MISSING, SEQUENCE_ITEMS, SESSION_GAP_S, TOP_TERMS
from feature_repo.contracts.schemas import Kind, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from feature_repo.contracts.events import Event
    from feature_repo.feast_redis import Stored

Padded = TypeVar("Padded", str, int, float)
Like = tuple[str, int]
"""An item, and when the user liked it, in microseconds since 1970."""

NEVER = -1
"""The time of the last event of a user who has none."""
_SECOND_US = 1_000_000
VALUE = "value"
"""The name under which the events' own values are summed, beside the numeric attributes of their items."""


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What the fold must know of an item: a data set's numeric attributes, and its terms that are counted."""

    numbers: Mapping[str, float]
    """Attribute → value, where known."""
    terms: Mapping[str, frozenset[str]]
    """Attribute → those of its terms that are counted."""


UNKNOWN_ITEM = ItemFacts({}, {})
"""An item that the items dataset does not have."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Count, sum and sum of squares of whole steps."""

    count: int = 0
    total: int = 0
    squares: int = 0

    def plus(self, steps: int) -> Sums:
        """Return the sums with one more value."""
        return Sums(self.count + 1, self.total + steps, self.squares + steps * steps)


@dataclass(frozen=True, slots=True)
class Presence:
    """When the user was here, by the counted events; times in microseconds since 1970."""

    first: int = NEVER
    last: int = NEVER
    session: int = NEVER
    """The first event of the last session."""
    sessions: int = 0
    session_events: int = 0
    """Of the last session."""

    def plus(self, time: int) -> Presence:
        """Return what is known after one more event, at or after the last one."""
        if self.first == NEVER:
            return Presence(time, time, time, 1, 1)
        if time - self.last > SESSION_GAP_S * _SECOND_US:
            return Presence(self.first, time, time, self.sessions + 1, 1)
        return replace(self, last=time, session_events=self.session_events + 1)


@dataclass(frozen=True, slots=True)
class Done:
    """One of the last counted events, as sequences have it."""

    item: str
    time: int
    """Seconds since 1970."""
    type: str
    value: float
    session: int
    """Which of the user's sessions it was in; 1 is the first."""


@dataclass(frozen=True, slots=True)
class UserState:
    """Everything that a user's features are made of."""

    last_time: int = NEVER
    """Microseconds since 1970 of the last event, counted or not: whatever lies at or before it is in the state."""
    last: tuple[Done, ...] = ()
    """The last counted events, latest first."""
    presence: Presence = Presence()
    sums: Mapping[str, Sums] = field(default_factory=dict)
    """VALUE, or a numeric attribute of items → its sums over the counted events."""
    likes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Attribute of items that has terms → term → liked events whose item has it."""
    liked: tuple[Like, ...] = ()
    """The items liked last, each once, with its latest time; latest first, ties by id."""


def advance(state: UserState, events: Iterable[Event], facts: Callable[[str], ItemFacts], schema: Schema) -> UserState:
    """Return the state after `events`, each of which is later than `state.last_time` and comes once."""
    ordered = sorted(events, key=lambda event: (-event.event_time, event.item_id, event.event_type))
    if not ordered:
        return state
    types = frozenset(schema.counted_types)
    counted = [event for event in ordered if event.event_type in types]
    last = deque(state.last, maxlen=SEQUENCE_ITEMS)
    sums = dict(state.sums)
    likes = {attribute: Counter(counts) for attribute, counts in state.likes.items()}
    presence = state.presence
    for event in reversed(counted):
        presence = presence.plus(event.event_time)
        last.appendleft(
            Done(event.item_id, event.event_time // _SECOND_US, event.event_type, event.value, presence.sessions)
        )
        _count(event, facts(event.item_id), schema, sums, likes)
    liked = liked_last(state.liked, likes_of(counted, schema), schema.liked_items)
    return UserState(ordered[0].event_time, tuple(last), presence, sums, likes, liked)


def likes_of(events: Iterable[Event], schema: Schema) -> list[Like]:
    """Return what each event that says so says is liked, in the order of the events."""
    return [(event.item_id, event.event_time) for event in events if _is_like(event, schema)]


def liked_last(liked: tuple[Like, ...], more: Sequence[Like], most: int) -> tuple[Like, ...]:
    """Return the `most` items liked last of both, each once, with its latest time; latest first, ties by id.

    Args:
        liked: What this has returned before, of as many items.
        more: Likes in any order, known ones among them perhaps.
        most: So many items.
    """
    if not more:
        return liked
    times = dict(liked)
    for item, time in more:
        times[item] = max(time, times.get(item, NEVER))
    return tuple(sorted(times.items(), key=lambda like: (-like[1], like[0]))[:most])


def _is_like(event: Event, schema: Schema) -> bool:
    positive = schema.positive
    return event.event_type in positive.event_types and event.value >= positive.threshold


def _count(
    event: Event, item: ItemFacts, schema: Schema, sums: dict[str, Sums], likes: dict[str, Counter[str]]
) -> None:
    steps = {VALUE: whole_steps(event.value, schema.value.step)}
    for attribute in schema.item_attributes:
        if attribute.kind is Kind.NUMERIC and attribute.name in item.numbers:
            steps[attribute.name] = whole_steps(item.numbers[attribute.name], attribute.step)
    for name, number in steps.items():
        sums[name] = sums.get(name, Sums()).plus(number)
    if _is_like(event, schema):
        for attribute_name, terms in item.terms.items():
            likes.setdefault(attribute_name, Counter()).update(terms)


def features(state: UserState, schema: Schema) -> dict[str, Stored]:
    """Return the features of the group `user_activity`; none for a user without a counted event."""
    if not state.last:
        return {}
    values = state.sums[VALUE]
    row: dict[str, Stored] = {
        "user_last_items": _padded([done.item for done in state.last], LAST_ITEMS, ""),
        "user_last_values": _padded([done.value for done in state.last], LAST_ITEMS, MISSING),
        "user_event_count": values.count,
        "user_value_mean": mean(values, schema.value.step),
        "user_value_std": population_std(values, schema.value.step),
    }
    for attribute in schema.item_attributes:
        if attribute.kind is Kind.NUMERIC:
            sums = state.sums.get(attribute.name, Sums())
            row[f"user_{attribute.name}_mean"] = mean(sums, attribute.step)
            row[f"user_{attribute.name}_std"] = population_std(sums, attribute.step)
        elif attribute.is_term:
            row[f"user_top_{attribute.name}"] = _padded(_top(state.likes.get(attribute.name, {})), TOP_TERMS, "")
    return row


def session_features(state: UserState) -> dict[str, Stored]:
    """Return the features of the group `user_session`; none for a user without a counted event."""
    here = state.presence
    if here.first == NEVER:
        return {}
    return {
        "user_first_event_time": here.first // _SECOND_US,
        "user_last_event_time": here.last // _SECOND_US,
        "user_session_count": here.sessions,
        "user_session_event_count": here.session_events,
        "user_session_seconds": (here.last - here.session) // _SECOND_US,
    }


def sequence_features(state: UserState) -> dict[str, Stored]:
    """Return the features of the group `user_sequence`; none for a user without a counted event."""
    if not state.last:
        return {}
    return {
        "user_sequence_items": _padded([done.item for done in state.last], SEQUENCE_ITEMS, ""),
        "user_sequence_times": _padded([done.time for done in state.last], SEQUENCE_ITEMS, 0),
        "user_sequence_types": _padded([done.type for done in state.last], SEQUENCE_ITEMS, ""),
        "user_sequence_values": _padded([done.value for done in state.last], SEQUENCE_ITEMS, MISSING),
        "user_sequence_sessions": _padded([done.session for done in state.last], SEQUENCE_ITEMS, 0),
    }


def liked_features(state: UserState) -> dict[str, Stored]:
    """Return the features of the group `user_liked_items`: empty lists for a user who likes nothing."""
    return {
        "user_liked_items": [item for item, _ in state.liked],
        "user_liked_times": [time // _SECOND_US for _, time in state.liked],
    }


def whole_steps(value: float, step: float) -> int:
    """Return a number as a count of steps; halves go away from zero, as in Spark."""
    steps = value / step
    whole = math.floor(abs(steps))
    whole += abs(steps) - whole >= 0.5  # noqa: PLR2004 - a half
    return whole if steps >= 0 else -whole


def mean(sums: Sums, step: float) -> float:
    """Return sum x step / count as float32; MISSING where the count is zero."""
    return _float32(float(sums.total) * step / sums.count) if sums.count else MISSING


def population_std(sums: Sums, step: float) -> float:
    """Return sqrt(count x squares - sum²) x step / count as float32; MISSING where the count is zero."""
    if not sums.count:
        return MISSING
    count, total, squares = float(sums.count), float(sums.total), float(sums.squares)
    return _float32(math.sqrt(max(count * squares - total * total, 0.0)) * step / count)


def _float32(number: float) -> float:
    stored: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return stored


def _top(counts: Mapping[str, int]) -> list[str]:
    return sorted((term for term, count in counts.items() if count), key=lambda term: (-counts[term], term))[:TOP_TERMS]


def _padded(values: list[Padded], length: int, missing: Padded) -> list[Padded]:
    return values[:length] + [missing] * (length - len(values))
