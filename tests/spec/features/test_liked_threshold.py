"""A liking begins at the declared value, also where float32 holds less than what was declared, on every path."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from feature_repo.contracts.checks import value_rules
from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.events import check_event
from feature_repo.contracts.schemas import MOVIELENS, Positive, ValueRange
from pipelines.checks.lake import check_lake
from pipelines.checks.outcomes import Status
from pipelines.features.activity import is_liked
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import duckdb_session
from pipelines.statistics.queries import is_positive
from pipelines.stream.fold import ItemFacts, UserState, advance
from pipelines.training.labels import explicit_labels
from tests.lake_world import unchecked_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from pipelines.io.lake import Snapshot

MOMENT = datetime(1998, 4, 20, tzinfo=UTC)
VALUES = (0.6, 0.7, 0.9, 1.0)
SCHEMA = dataclasses.replace(
    MOVIELENS, value=ValueRange(0.6, 1.0, 0.1), positive=Positive(MOVIELENS.positive.event_types, 0.7)
)
LIKED = {"0.6": False, "0.7": True, "0.9": True, "1.0": True}


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """One event of each value, named by it."""
    rows: list[dict[str, Any]] = [
        {"user_id": "u", "item_id": str(value), "event_type": "rating", "value": value, "event_time": MOMENT}
        for value in VALUES
    ]
    return unchecked_snapshot(tmp_path, EVENTS, rows, arrow_schema(EVENTS))


def test_float32_holds_less_than_the_threshold() -> None:
    assert pa.scalar(0.7, pa.float32()).as_py() < SCHEMA.positive.min_value, "or nothing below shows anything"


def test_labels_and_statistics(snapshot: Snapshot) -> None:
    labels = explicit_labels(snapshot.files, SCHEMA.counted_types, SCHEMA.positive)
    with duckdb_session("500MB") as database:
        assert dict(database.sql(labels).project("item_id, label = 1").fetchall()) == LIKED
        events = database.from_arrow(snapshot.read())
        assert dict(events.project(f"item_id, {is_positive(SCHEMA)}").fetchall()) == LIKED


def test_spark(snapshot: Snapshot, spark: SparkSession) -> None:
    rows = spark.read.parquet(*map(str, snapshot.files)).select("item_id", is_liked(SCHEMA.positive).alias("liked"))
    assert {row.item_id: row.liked for row in rows.collect()} == LIKED


def test_the_door_and_the_stream(snapshot: Snapshot) -> None:
    def facts(item: str) -> ItemFacts:
        return ItemFacts({}, {"genres": frozenset({item})})

    state = UserState()
    for number, value in enumerate(VALUES):
        raw = {
            "user_id": "u",
            "item_id": str(value),
            "event_type": "rating",
            "value": value,
            "event_time": MOMENT.replace(second=number).isoformat(),
        }
        state = advance(state, [check_event(raw, SCHEMA, lambda _: True, MOMENT.replace(minute=1))], facts, SCHEMA)
    assert {term: term in state.likes["genres"] for term in LIKED} == LIKED
    assert [done.value for done in state.last] == snapshot.read().column("value").to_pylist()[::-1]


@pytest.mark.parametrize("value", [ValueRange(0.6, 1.0, 0.1), ValueRange(0.0, 4.9, 0.1), ValueRange(0.7, 0.9, 0.1)])
def test_values_at_the_ends_of_the_range_lie_in_it(tmp_path: Path, value: ValueRange) -> None:
    rules = value_rules(dataclasses.replace(SCHEMA, value=value, positive=Positive(("rating",), value.maximum)))
    rows = [
        {"user_id": "u", "item_id": name, "event_type": "rating", "value": end, "event_time": MOMENT}
        for name, end in (("low", value.minimum), ("high", value.maximum))
    ]
    snapshots = {EVENTS.name: unchecked_snapshot(tmp_path, EVENTS, rows, arrow_schema(EVENTS))}
    with duckdb_session("500MB") as database:
        assert {outcome.status for outcome in check_lake(database, rules, snapshots)} == {Status.PASSED}
