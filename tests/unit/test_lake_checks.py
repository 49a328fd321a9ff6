"""The declared row checks on what lies in the lake: every kind of fault is found, counted and shown, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from feature_repo.contracts.checks import Range, Reference, Severity, Step, row_checks, value_rules
from feature_repo.contracts.datasets import EVENTS, ITEMS, USERS, items_dataset, users_dataset
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.checks import lake
from pipelines.checks.lake import check_lake
from pipelines.checks.outcomes import Status
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import duckdb_session
from tests.lake_world import event, item, unchecked_snapshot, user

if TYPE_CHECKING:
    from pathlib import Path

GOOD_EVENTS = [event("ann", "1", 4.0), event("ann", "2", 0.5), event("bob", "1", 5.0, day=1)]
GOOD_ITEMS, GOOD_USERS = [item("1", ["War"]), item("2")], [user("ann"), user("bob")]


def judge(
    folder: Path,
    events: list[dict[str, Any]] = GOOD_EVENTS,
    items: list[dict[str, Any]] = GOOD_ITEMS,
    users: list[dict[str, Any]] = GOOD_USERS,
    schema: pa.Schema | None = None,
):
    """Return check name → outcome."""
    snapshots = {
        EVENTS.name: unchecked_snapshot(folder, EVENTS, events, schema),
        ITEMS: unchecked_snapshot(folder, items_dataset(MOVIELENS), items),
        USERS: unchecked_snapshot(folder, users_dataset(MOVIELENS), users),
    }
    with duckdb_session("500MB") as database:
        return {outcome.check.name: outcome for outcome in check_lake(database, row_checks(MOVIELENS), snapshots)}


def failed(outcomes):
    return {name: outcome for name, outcome in outcomes.items() if outcome.status is Status.FAILED}


def test_a_right_lake_passes_every_check(tmp_path):
    outcomes = judge(tmp_path)
    assert {outcome.status for outcome in outcomes.values()} == {Status.PASSED}
    assert outcomes["events.value.range"].received == "holds for 3 rows"
    assert {"events.unique", "items.unique", "users.unique", "events.user_id.reference"} <= outcomes.keys()


@pytest.mark.parametrize(
    ("name", "rows", "received", "example"),
    [
        ("value.range", [event("ann", "1", 5.5, day=2), event("bob", "2", 0.0)], "2 of 5 rows", "value 5.5"),
        ("value.step", [event("ann", "1", 3.3, day=2)], "1 of 4 rows", "value 3.29"),
        ("event_type.oneof", [{**event("ann", "1", day=2), "event_type": "click"}], "1 of 4 rows", "event_type click"),
        ("item_id.reference", [event("ann", "99", day=2)], "1 of 4 rows", "item_id 99"),
        ("user_id.reference", [event("eve", "1", day=2)], "1 of 4 rows", "user_id eve"),
        ("value.present", [{**event("ann", "2", day=2), "value": None}], "1 of 4 rows", "value None"),
        ("unique", [GOOD_EVENTS[0], GOOD_EVENTS[0]], "2 of 5 rows", "user_id ann, item_id 1"),
    ],
)
def test_a_fault_in_the_events_fails_its_own_check_and_no_other(tmp_path, name, rows, received, example):
    faults = failed(judge(tmp_path, [*GOOD_EVENTS, *rows]))
    assert set(faults) == {f"events.{name}"}
    outcome = faults[f"events.{name}"]
    assert outcome.received == received
    assert example in outcome.examples[0]
    assert outcome.stops


def test_not_a_number_is_no_value_and_lies_in_no_range(tmp_path):
    faults = failed(judge(tmp_path, [*GOOD_EVENTS, event("ann", "2", float("nan"), day=2)]))
    assert {name: fault.received for name, fault in faults.items()} == {
        "events.value.present": "1 of 4 rows",
        "events.value.range": "1 of 4 rows",
    }


def test_faults_in_items_and_users_are_found(tmp_path):
    items = [*GOOD_ITEMS, item("2"), {**item("3"), "title": None}]
    faults = failed(judge(tmp_path, items=items, users=[*GOOD_USERS, {**user("cem"), "user_id": None}]))
    assert set(faults) == {"items.unique", "items.title.present", "users.user_id.present"}


def test_a_column_of_another_type_and_a_missing_one_are_named_and_the_rest_is_still_judged(tmp_path):
    other = pa.schema(
        [
            field.with_type(pa.string()) if field.name == "value" else field
            for field in arrow_schema(EVENTS)
            if field.name != "event_type"
        ]
    )
    rows = [{**row, "value": str(row["value"])} for row in [*GOOD_EVENTS, event("eve", "1")]]
    outcomes = judge(tmp_path, rows, schema=other)
    assert outcomes["events.value.type"].received == "string"
    assert outcomes["events.event_type.type"].received.startswith("no such column among user_id, item_id")
    assert outcomes["events.event_type.oneof"].status is Status.NOT_JUDGED
    assert outcomes["events.value.range"].status is Status.NOT_JUDGED
    assert outcomes["events.user_id.reference"].status is Status.FAILED


def test_chunks_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(lake, "_ROWS_AT_ONCE", 2)
    rows = [event("ann", "1", 9.0 if day % 2 else 3.0, day) for day in range(7)]
    outcomes = judge(tmp_path, rows)
    assert outcomes["events.value.range"].received == "3 of 7 rows"
    assert len(outcomes["events.value.range"].examples) == 3


def test_partitions_with_other_columns_do_not_hide_each_other(tmp_path):
    """A contract that changed since leaves old partitions with the old columns."""
    declared = arrow_schema(EVENTS)
    unchecked_snapshot(tmp_path, EVENTS, [event("ann", "1", day=5)], declared.remove(3))
    assert failed(judge(tmp_path)) == {}
    snapshots = {
        EVENTS.name: unchecked_snapshot(tmp_path, EVENTS, GOOD_EVENTS),
        ITEMS: unchecked_snapshot(tmp_path, items_dataset(MOVIELENS), GOOD_ITEMS),
        USERS: unchecked_snapshot(tmp_path, users_dataset(MOVIELENS), GOOD_USERS),
    }
    old = unchecked_snapshot(tmp_path, EVENTS, [event("ann", "1", day=5)], declared.remove(3))
    snapshots[EVENTS.name].partitions.update(old.partitions)
    with duckdb_session("500MB") as database:
        outcomes = {each.check.name: each for each in check_lake(database, row_checks(MOVIELENS), snapshots)}
    assert set(failed(outcomes)) == {"events.value.type"}
    assert outcomes["events.value.range"].status is Status.NOT_JUDGED


def test_checks_follow_from_the_schema():
    names = {check.name for check in row_checks(MOVIELENS)}
    assert {"items.genres.type", "users.age.type", "events.value.step"} <= names
    assert "users.age.present" not in names, "the attribute may be missing"
    assert all(check.severity is Severity.ERROR for check in row_checks(MOVIELENS))
    values, step, types = value_rules(MOVIELENS)
    assert (values.expected, step.expected, types.expected) == ("0.5 to 5", "steps of 0.5", "one of rating")
    assert Reference(dataset="events", column="item_id", to="items") in row_checks(MOVIELENS)


def test_a_check_that_makes_no_sense_fails_when_declared():
    with pytest.raises(ValueError, match=r"events\.value\.range: expected minimum <= maximum"):
        Range(dataset="events", column="value", minimum=2, maximum=1)
    with pytest.raises(ValueError, match="received neither"):
        Range(dataset="events", column="value")
    with pytest.raises(ValueError, match="expected a step above 0"):
        Step(dataset="events", column="value", step=0)
