"""Events → label rows: every event before the cutoff, numbered in canonical order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import EVENT_TIME, EVENT_TYPE, EVENTS, ITEM_ID, USER_ID, VALUE
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.schemas import Positive
from pipelines.feast_store.tables import identifier, literal, microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from feature_repo.contracts.schemas import Schema
    from pipelines.settings import Settings

EXAMPLE_ID = Column("example_id", Dtype.INT64, "Position in the canonical order of the events; the same in every file")
LABEL = Column(
    "label", Dtype.INT64, "1 where the event is a positive of at least the training set's label_min_value, else 0"
)
LABEL_COLUMNS = (EXAMPLE_ID, USER_ID, ITEM_ID, EVENT_TIME, VALUE, LABEL, REQUEST_TIME)

_SECOND_US = 1_000_000
_HOUR_US = 3_600_000_000
_REQUEST = f"{microseconds(EVENT_TIME.name)} // {_SECOND_US} AS {REQUEST_TIME.name}"
"""A label stands for a request that was made in its second, however old the features are."""


def labelled_positive(settings: Settings, schema: Schema) -> Positive:
    """Return what counts as a positive label: what the schema says, with another least value where one is set."""
    positive = schema.positive
    least = settings.label_min_value
    return positive if least is None else Positive(positive.event_types, least)


def labels_sql(files: Sequence[Path], counted_types: Sequence[str], positive: Positive) -> str:
    """Return the query for the label rows of the counted events in `files`, in their order."""
    counted, liked = (", ".join(map(literal, types)) for types in (counted_types, positive.event_types))
    kind = identifier(EVENT_TYPE.name)
    order = ", ".join(identifier(name) for name in EVENTS.sort)
    paths = ", ".join(literal(str(file)) for file in files)
    value = identifier(VALUE.name)
    return (
        f"SELECT row_number() OVER (ORDER BY {order}) - 1 AS {EXAMPLE_ID.name}, "  # noqa: S608 - names are quoted
        f"{USER_ID.name}, {ITEM_ID.name}, {EVENT_TIME.name}, {value}, "
        f"({kind} IN ({liked}) AND {value} >= {positive.min_value!r})::BIGINT AS {LABEL.name} "
        f"FROM read_parquet([{paths}], hive_partitioning = false) WHERE {kind} IN ({counted}) "
        f"ORDER BY {EXAMPLE_ID.name}"
    )


def as_of_the_moment(labels: Path) -> str:
    """Return the query for label rows that want the features as of their own time (strictly before it)."""
    return f"SELECT *, {_REQUEST}, {EVENT_TIME.name} AS event_timestamp FROM read_parquet({literal(str(labels))})"  # noqa: S608 - quoted


def as_of_the_last_refresh(labels: Path, refresh_hours: int, start_us: int) -> str:
    """Return the query for label rows from `start_us` on that want what the online store would have had.

    A store refreshed every `refresh_hours` (counted from midnight, 1970-01-01 UTC) holds, at a label's time, what was
    known strictly before the last refresh.
    """
    period, time = refresh_hours * _HOUR_US, microseconds(EVENT_TIME.name)
    refresh = f"make_timestamptz({time} - (({time} % {period}) + {period}) % {period})"
    rows = f"FROM read_parquet({literal(str(labels))}) WHERE {time} >= {start_us}"
    return f"SELECT *, {_REQUEST}, {refresh} AS event_timestamp {rows}"
