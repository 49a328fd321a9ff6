"""One specification, two paths: what Spark computes from the lake, the stream's fold computes from the events alone.

The tables of test_feature_specifications hold for the fold, too (that of what was seen, which no fold makes, in
test_online_read); and on random logs, full of ties, of several event
types, both give the same after every event, to the last bit of a float32, wherever the batch's state is cut.
"""

from __future__ import annotations

import random
import struct
from collections import ChainMap
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.contracts.datasets import EVENTS, items_dataset, users_dataset
from feature_repo.contracts.events import Event, key_id
from feature_repo.contracts.features import Freshness, declared
from feature_repo.contracts.schemas import Attribute, EventType, Kind, Positive, Schema, ValueRange
from pipelines.features.tables import feature_dataset
from pipelines.io.arrow import arrow_schema, conform
from pipelines.stream.fold import UserState, advance, features, liked_features, sequence_features, session_features
from pipelines.stream.items import Knowledge, item_facts
from pipelines.stream.state_row import row_of, state_of
from tests.spec.features import test_feature_specifications as drawn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import SparkSession

    from feature_repo.contracts.features import FeatureGroup

pytestmark = pytest.mark.spark

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
BASE = datetime(2010, 12, 1, tzinfo=UTC)
CUTOFF = BASE + timedelta(days=3)
Rows = list[dict[str, Any]]

SHOP = Schema(
    event_types=(EventType("purchase"), EventType("return"), EventType("view", counted=False)),
    value=ValueRange(0, 10_000, 0.01),
    positive=Positive(("purchase",), 2.0),
    item_attributes=(
        Attribute("price", Kind.NUMERIC, step=0.01),
        Attribute("weight", Kind.NUMERIC, step=1.0),
        Attribute("colour", Kind.CATEGORICAL),
        Attribute("tags", Kind.MULTI_VALUED),
    ),
    liked_items=4,
)
"""Many a user of `random_shop` likes more items than are kept, and some have more events than a sequence holds."""
STREAMED_FROM_EVENTS = {"user_activity", "user_session", "user_sequence", "user_liked_items", "user_state"}


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def as_event(row: dict[str, Any]) -> Event:
    time = microseconds(row["event_time"])
    key = (row["user_id"], row["item_id"], row["event_type"], time)
    return Event(key_id(*key), *key[:3], struct.unpack("<f", struct.pack("<f", row["value"]))[0], time)


def knowledge(schema: Schema, items: Rows) -> Knowledge:
    table = pa.Table.from_pylist(items, schema=arrow_schema(items_dataset(schema)))
    return Knowledge(schema, item_facts(table, schema))


def folded(known: Iterable[Event], about: Knowledge, start: UserState | None = None) -> UserState:
    return advance(start or UserState(), known, about.facts, about.schema)


@pytest.mark.parametrize(
    "spec",
    [spec for spec in drawn.SPECIFICATIONS if spec.group.name in STREAMED_FROM_EVENTS],
    ids=lambda spec: spec.title,
)
def test_the_drawn_specifications_hold_for_the_fold(spec: drawn.Specification) -> None:
    event_rows, item_rows, _ = drawn.inputs(spec)
    about = knowledge(spec.schema, item_rows)
    log = [as_event(row) for row in event_rows]
    for wanted in spec.expected:
        until = microseconds(wanted["time"])
        known = [event for event in log if event.user_id == wanted["user_id"] and event.event_time <= until]
        state = folded(known, about)
        made = (
            features(state, spec.schema),
            session_features(state),
            sequence_features(state),
            liked_features(state),
        )
        row = ChainMap(*made, row_of(state, spec.schema))
        for name, expected in wanted.items():
            if name not in {"user_id", "time"}:
                assert row[name] == drawn.about(expected)


def random_shop(seed: int, users: int = 40) -> tuple[Rows, Rows]:
    """Return a log in which users do several things in one second, with one item in several ways; and items."""
    dice = random.Random(seed)
    items = [
        {
            "item_id": f"i{number}",
            "title": "t",
            "price": dice.choice([None, 0.29, 1.1, 2.55, 19.99]),
            "weight": dice.choice([None, 0.5, 1.5, 2.5, 7.0]),
            "colour": dice.choice([None, "red", "blue"]),
            "tags": dice.sample("abcdef", dice.randrange(4)),
        }
        for number in range(12)
    ]
    rows = {}
    for user in range(users):
        for _ in range(dice.choice([dice.randrange(1, 40), 90])):
            item, kind = dice.randrange(14), dice.choice(["purchase", "purchase", "return", "view"])
            second = dice.choice([*range(6), 1_804, 90_000, 90_001, 200_000])
            rows[user, item, kind, second] = {
                "user_id": f"u{user}",
                "item_id": f"i{item}",
                "event_type": kind,
                "value": float(struct.unpack("<f", struct.pack("<f", dice.randrange(1000) / 100))[0]),
                "event_time": BASE + timedelta(seconds=second, microseconds=dice.choice([0, 0, 1])),
            }
    log = list(rows.values())
    dice.shuffle(log)
    return log, items


def batch(spark: SparkSession, group: FeatureGroup, events: Rows, items: Rows, cutoff: datetime) -> Rows:
    from pipelines.features.groups import Inputs, compute
    from pipelines.io.spark import spark_schema

    frames = (
        spark.createDataFrame(
            [tuple(row[name] for name in dataset.column_names) for row in rows], spark_schema(dataset)
        )
        for dataset, rows in ((EVENTS, events), (items_dataset(SHOP), items), (users_dataset(SHOP), []))
    )
    table = conform(compute(group, Inputs(SHOP, *frames, cutoff)).toArrow(), feature_dataset(group))
    rows: Rows = table.to_pylist()
    return rows


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), cut_s=st.sampled_from([0, 3, 90_001, 250_000]))
def test_a_replay_through_the_stream_gives_what_the_batch_gives(spark: SparkSession, seed: int, cut_s: int) -> None:
    log, items = random_shop(seed)
    about, declaration = knowledge(SHOP, items), declared(SHOP)
    events = [as_event(row) for row in log]
    of_user = {row["user_id"]: [event for event in events if event.user_id == row["user_id"]] for row in log}
    cut = BASE + timedelta(seconds=cut_s)
    states = {row["user_id"]: state_of(row, SHOP) for row in batch(spark, declaration.user_state, log, items, cut)}
    histories = {
        row["user_id"]: row["user_seen_items"] for row in batch(spark, declaration.user_history, log, items, cut)
    }
    assert declaration.user_state.freshness is Freshness.LATEST
    compared = 0
    for group, read in (
        (declaration.user_activity, lambda state: features(state, SHOP)),
        (declaration.user_session, session_features),
        (declaration.user_sequence, sequence_features),
    ):
        for row in batch(spark, group, log, items, CUTOFF):
            until = microseconds(row["event_time"])
            known = [event for event in of_user[row["user_id"]] if event.event_time <= until]
            expected = {name: value for name, value in row.items() if name not in {"user_id", "event_time"}}
            assert read(folded(known, about)) == expected, "from the events alone"
            state = states.get(row["user_id"], UserState())
            if until > state.last_time:
                since = [event for event in known if event.event_time > state.last_time]
                assert read(folded(since, about, state)) == expected, "from the batch's state on"
                compared += 1
    for user, state in states.items():
        known = [event for event in of_user[user] if event.event_time < microseconds(cut)]
        assert row_of(state, SHOP) == row_of(folded(known, about), SHOP)
        assert histories[user] == sorted({event.item_id for event in known})
    for row in batch(spark, declaration.user_liked_items, log, items, CUTOFF):
        state = states.get(row["user_id"], UserState())
        since = [event for event in of_user[row["user_id"]] if event.event_time > state.last_time]
        assert liked_features(folded(since, about, state)).items() <= row.items(), "from the batch's capped list on"
    assert compared or cut_s == 250_000
