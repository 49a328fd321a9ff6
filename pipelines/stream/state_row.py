"""A user's state as the row of a feature group: what the batch job writes, the fold begins from it."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any, cast

from feature_repo.contracts.schemas import Kind
from pipelines.stream.fold import Done, Presence, Sums, UserState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.schemas import Schema
    from feature_repo.feast_redis import Stored

_PARTS = ("count", "sum", "squares")
_PRESENCE = (
    "state_first_counted_time",
    "state_last_counted_time",
    "state_session_time",
    "state_session_count",
    "state_session_event_count",
)
"""The columns of a `Presence`, in the order of its fields."""
_LAST = {
    "state_last_items": "item",
    "state_last_times": "time",
    "state_last_types": "type",
    "state_last_values": "value",
    "state_last_sessions": "session",
}
"""Column → field of `Done`, in the order of its fields."""


def state_of(row: Mapping[str, Stored | None], schema: Schema) -> UserState:
    """Return the state that a row of the group `user_state` holds."""
    values = cast("Mapping[str, Any]", row)
    names = ("value", *(attribute.name for attribute in schema.item_attributes if attribute.kind is Kind.NUMERIC))
    sums = {name: Sums(*(values[f"state_{name}_{part}"] for part in _PARTS)) for name in names}
    likes = {
        attribute.name: dict(
            zip(values[f"state_{attribute.name}_terms"], values[f"state_{attribute.name}_counts"], strict=True)
        )
        for attribute in schema.item_attributes
        if attribute.is_term
    }
    last = tuple(Done(*fields) for fields in zip(*(values[name] for name in _LAST), strict=True))
    presence = Presence(*(values[name] for name in _PRESENCE))
    liked = tuple(zip(values["state_liked_items"], values["state_liked_times"], strict=True))
    return UserState(values["state_last_time"], last, presence, sums, likes, liked)


def row_of(state: UserState, schema: Schema) -> dict[str, Stored]:
    """Return the row of the group `user_state` that holds a state; the terms are in the order of their names."""
    row: dict[str, Stored] = {
        "state_last_time": state.last_time,
        **{name: [getattr(done, part) for done in state.last] for name, part in _LAST.items()},
        **dict(zip(_PRESENCE, astuple(state.presence), strict=True)),
    }
    names = ("value", *(attribute.name for attribute in schema.item_attributes if attribute.kind is Kind.NUMERIC))
    for name in names:
        sums = state.sums.get(name, Sums())
        row |= {
            f"state_{name}_count": sums.count,
            f"state_{name}_sum": sums.total,
            f"state_{name}_squares": sums.squares,
        }
    for attribute in schema.item_attributes:
        if attribute.is_term:
            counts = {term: count for term, count in sorted(state.likes.get(attribute.name, {}).items()) if count}
            row[f"state_{attribute.name}_terms"] = list(counts)
            row[f"state_{attribute.name}_counts"] = list(counts.values())
    row["state_liked_items"] = [item for item, _ in state.liked]
    row["state_liked_times"] = [time for _, time in state.liked]
    return row
