"""Small lakes for tests: events, items and users as rows, written as the jobs write them, or broken on purpose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import EVENTS, QUARANTINE, items_dataset, users_dataset
from feature_repo.contracts.schemas import MOVIELENS, Schema, write_schema
from pipelines.io.arrow import arrow_schema
from pipelines.io.lake import UNDIVIDED, Partition, Snapshot, partition_file, partition_name, stored_dataset

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset
    from feature_repo.contracts.places import Namespace

DAY_ONE = datetime(1998, 3, 1, tzinfo=UTC)
Row = dict[str, Any]


def event(user: str, item: str, value: float = 3.0, day: float = 0) -> Row:
    """Return a rating, `day` days after DAY_ONE."""
    time = DAY_ONE + timedelta(days=day)
    return {"user_id": user, "item_id": item, "event_type": "rating", "value": value, "event_time": time}


def item(item_id: str, genres: Iterable[str] = (), year: int | None = 1990) -> Row:
    """Return an item of the schema of MovieLens."""
    return {"item_id": item_id, "title": f"Film {item_id}", "release_year": year, "genres": list(genres)}


def user(user_id: str, gender: str | None = "F", age: int | None = 30, occupation: str | None = "writer") -> Row:
    """Return a user of the schema of MovieLens."""
    return {"user_id": user_id, "age": age, "gender": gender, "occupation": occupation}


def write_lake(
    place: Namespace, events: list[Row], items: list[Row], users: list[Row], schema: Schema = MOVIELENS
) -> None:
    """Make a lake of these rows, as an ingestion would."""
    write_schema(place, schema)
    write_events(place, events)
    for dataset, rows in ((items_dataset(schema), items), (users_dataset(schema), users), (QUARANTINE, [])):
        with stored_dataset(place, dataset).rewriting() as writer:
            writer.add(UNDIVIDED, pa.Table.from_pylist(rows, schema=arrow_schema(dataset)))


def write_events(place: Namespace, events: list[Row]) -> None:
    """Make these the events of a lake, as an ingestion of the whole source would."""
    with stored_dataset(place, EVENTS).rewriting() as writer:
        for name, rows in sorted(_by_day(events).items()):
            writer.add(name, pa.Table.from_pylist(rows, schema=arrow_schema(EVENTS)))


def unchecked_snapshot(folder: Path, dataset: Dataset, rows: list[Row], schema: pa.Schema | None = None) -> Snapshot:
    """Write rows that no writer of this project would let pass, and return them as a snapshot.

    `schema` defaults to the dataset's, with nulls allowed everywhere.
    """
    declared = arrow_schema(dataset)
    wanted = schema or pa.schema([field.with_nullable(True) for field in declared])  # noqa: FBT003 - Arrow's own
    parts = _by_day(rows) if dataset.partitioned_by_event_date else {UNDIVIDED: rows}
    for name, part in parts.items():
        file = partition_file(folder / dataset.name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part, schema=wanted), file)
    partitions = {name: Partition(len(part), "", "") for name, part in sorted(parts.items())}
    return Snapshot(dataset, folder / dataset.name, partitions)


def _by_day(events: list[Row]) -> dict[str, list[Row]]:
    days: dict[str, list[Row]] = {}
    for row in events:
        days.setdefault(partition_name(row["event_time"].date()), []).append(row)
    return days
