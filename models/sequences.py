"""A user's past events, as lists that belong together: place by place, the latest first.

Beside its item, an event has a type, an age, what its value says, and how many sessions ago it was. Ages, values and
sessions are no fields: they say nothing without the item of their place. `Fields.history` hands them out together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.on_demand import REQUEST_TIME
from models.layers.sequence_ages import SequenceAges
from models.layers.sequence_weights import SequenceWeights
from models.layers.sessions_ago import SessionsAgo

if TYPE_CHECKING:
    from models.encoded_columns import EncodedColumns


@dataclass(frozen=True, slots=True)
class Sequence:
    """The columns of one sequence, by name: raw, and under the same names encoded; empty where there is none."""

    items: str
    """Indices of items, `[batch, length]`."""
    types: str = ""
    """Indices of event types, `[batch, length]`."""
    times: str = ""
    """Raw: seconds since 1970. Encoded: indices of ages, `[batch, length]` (`SequenceAges`)."""
    values: str = ""
    """Encoded: how much each item was liked and disliked, `[batch, length, 3]` (`SequenceWeights`)."""
    sessions: str = ""
    """Raw: ordinals. Encoded: indices of sessions, `[batch, length]`, counted from the latest (`SessionsAgo`)."""


LAST = Sequence("user_last_items", values="user_last_values")
LONGEST = Sequence(
    "user_sequence_items",
    "user_sequence_types",
    "user_sequence_times",
    "user_sequence_values",
    "user_sequence_sessions",
)


def add_sequences(columns: EncodedColumns) -> tuple[Sequence, ...]:
    """Encode what goes beside items, and return the sequences that there are, with the columns that there are.

    What goes beside items that are not there is left: nothing can read it.
    """
    return tuple(_add(columns, each) for each in (LONGEST, LAST) if each.items in columns.categorical)


def _add(columns: EncodedColumns, sequence: Sequence) -> Sequence:
    # A column that has an encoding is something else of the same name.
    raw = columns.inputs.keys() - columns.outputs.keys()
    times, values, sessions = (
        name if name in raw else "" for name in (sequence.times, sequence.values, sequence.sessions)
    )
    if times:
        asked = [columns.inputs[REQUEST_TIME.name]] if REQUEST_TIME.name in columns.inputs else []
        columns.add(times, SequenceAges(name=f"{times}_age")(columns.inputs[times], *asked), columns.scope_of(times))
    if values:
        weights = SequenceWeights(columns.transforms.prior_mean, name=f"{values}_weights")(columns.inputs[values])
        columns.add(values, weights, columns.scope_of(values))
    if sessions:
        ago = SessionsAgo(name=f"{sessions}_ago")(columns.inputs[sessions])
        columns.add(sessions, ago, columns.scope_of(sessions))
    types = sequence.types if sequence.types in columns.categorical else ""
    return Sequence(sequence.items, types, times, values, sessions)
