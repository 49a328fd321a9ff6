"""The daily statistics tables: what they say, and that only the days rewrite that have to."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.places import DATASET_MANIFEST, PARTITION_FILE, Namespace
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.statistics import DAILY_ACTIVITY, DAILY_STATISTICS, DAILY_TERMS, DAILY_TOP_ITEMS
from pipelines.io.lake import stored_dataset
from pipelines.jobs import statistics
from pipelines.settings import Settings
from pipelines.statistics import tables
from pipelines.statistics.tables import statistics_table
from tests.ascii_tables import parse_table
from tests.lake_world import event, item, user, write_events, write_lake

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset

ITEMS = [item("1", ["War", "Drama", "War"]), item("2", ["War"]), item("3")]
USERS = [user("ann", "F"), user("bob", "M"), user("cem", None)]
EVENTS_OF_THREE_DAYS = [
    event("ann", "1", 4.0, day=0),
    event("ann", "2", 3.5, day=0.5),
    event("bob", "1", 5.0, day=0.7),
    event("ann", "1", 1.0, day=2),
    event("cem", "3", 4.5, day=2.1),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
def place(settings: Settings) -> Namespace:
    place = Namespace(settings.state, "test")
    write_lake(place, EVENTS_OF_THREE_DAYS, ITEMS, USERS)
    return place


def stored(place: Namespace, dataset: Dataset) -> list[dict[str, Any]]:
    rows = statistics_table(place, dataset).snapshot().read().to_pylist()
    return [{**row, "day": row["day"].day} for row in rows]


def assert_rows(place: Namespace, dataset: Dataset, table: str, **only: str) -> None:
    """Compare stored rows with an ASCII table; columns that it leaves out do not count."""
    expected = parse_table(table)
    received = [row for row in stored(place, dataset) if all(row[name] == value for name, value in only.items())]
    shown = [
        {name: f"{row[name]:.6g}" if row[name].__class__ is float else str(row[name]) for name in expected[0]}
        for row in received
    ]
    assert shown == expected


def written(place: Namespace) -> dict[Path, int]:
    return {path.relative_to(place.statistics): path.stat().st_mtime_ns for path in place.statistics.rglob("*.parquet")}


def changed_by(settings: Settings, place: Namespace) -> set[str]:
    """Update the tables; return `<table> <day>` of each partition that was written, or is gone."""
    before = written(place)
    statistics.run(settings, place)
    after = written(place)
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {f"{path.parts[0]} {path.parts[1].removeprefix('event_date=')}" for path in paths}


def test_tables_by_hand(settings, place):
    assert statistics.run(settings, place) == {"days_computed": 2, "changed_partitions": 6}
    assert_rows(
        place,
        DAILY_ACTIVITY,
        """
        | day | events | active_users | active_items | new_users | new_items | value_mean | positive_share |
        | 1   | 3      | 2            | 2            | 2         | 2         | 4.16667    | 0.666667       |
        | 3   | 2      | 2            | 2            | 1         | 1         | 2.75       | 0.5            |
        """,
    )
    assert_rows(
        place,
        DAILY_TOP_ITEMS,
        """
        | day | place | item_id | events | active_users | value_mean | positive_share |
        | 1   | 1     | 1       | 2      | 2            | 4.5        | 1              |
        | 1   | 2     | 2       | 1      | 1            | 3.5        | 0              |
        | 3   | 1     | 1       | 1      | 1            | 1          | 0              |
        | 3   | 2     | 3       | 1      | 1            | 4.5        | 1              |
        """,
    )
    assert_rows(
        place,
        DAILY_TERMS,
        """
        | day | term  | events | active_users | active_items | value_mean |
        | 1   | Drama | 2      | 2            | 1            | 4.5        |
        | 1   | War   | 3      | 2            | 2            | 4.16667    |
        | 3   |       | 1      | 1            | 1            | 4.5        |
        | 3   | Drama | 1      | 1            | 1            | 1          |
        | 3   | War   | 1      | 1            | 1            | 1          |
        """,
        attribute="items.genres",
    )
    assert_rows(
        place,
        DAILY_TERMS,
        """
        | day | attribute         | term   | events |
        | 1   | events.event_type | rating | 3      |
        | 3   | events.event_type | rating | 2      |
        """,
        attribute="events.event_type",
    )
    assert {row["attribute"] for row in stored(place, DAILY_TERMS)} == {
        "events.event_type",
        "items.genres",
        "users.gender",
        "users.occupation",
    }


def test_the_same_lake_changes_nothing_and_computes_nothing(settings, place):
    statistics.run(settings, place)
    assert changed_by(settings, place) == set()
    assert statistics.run(settings, place) == {"days_computed": 0, "changed_partitions": 0}


def test_a_late_event_rewrites_its_own_day_only(settings, place):
    statistics.run(settings, place)
    write_events(place, [*EVENTS_OF_THREE_DAYS, event("ann", "2", 2.0, day=2.5)])
    assert changed_by(settings, place) == {f"{dataset.name} 1998-03-03" for dataset in DAILY_STATISTICS}


def test_a_late_event_takes_the_newcomer_away_from_the_later_day(settings, place):
    statistics.run(settings, place)
    write_events(place, [event("cem", "3", 4.0, day=1), *EVENTS_OF_THREE_DAYS])
    assert changed_by(settings, place) == {
        *(f"{dataset.name} 1998-03-02" for dataset in DAILY_STATISTICS),
        "daily_activity 1998-03-03",
    }
    assert [(row["day"], row["new_users"], row["new_items"]) for row in stored(place, DAILY_ACTIVITY)] == [
        (1, 2, 2),
        (2, 1, 1),
        (3, 0, 0),
    ]


def test_a_day_without_events_any_more_is_removed(settings, place):
    statistics.run(settings, place)
    write_events(place, EVENTS_OF_THREE_DAYS[:3])
    assert changed_by(settings, place) == {f"{dataset.name} 1998-03-03" for dataset in DAILY_STATISTICS}
    assert [row["day"] for row in stored(place, DAILY_ACTIVITY)] == [1]


def test_changed_items_are_noticed(settings, place):
    statistics.run(settings, place)
    write_lake(place, EVENTS_OF_THREE_DAYS, [item("1", ["War"]), *ITEMS[1:]], USERS)
    assert changed_by(settings, place) == {"daily_terms 1998-03-01", "daily_terms 1998-03-03"}


def test_a_damaged_table_is_mended(settings, place):
    statistics.run(settings, place)
    file = place.statistics / DAILY_ACTIVITY.name / "event_date=1998-03-01" / PARTITION_FILE
    file.write_bytes(file.read_bytes()[:50])
    assert changed_by(settings, place) == {"daily_activity 1998-03-01"}
    assert stored(place, DAILY_ACTIVITY)[0]["events"] == 3


def test_a_run_that_was_cut_off_between_tables_is_finished_by_the_next(settings, place, monkeypatch):
    monkeypatch.setattr(tables, "write_json", None)
    with pytest.raises(TypeError):
        statistics.run(settings, place)
    monkeypatch.undo()
    assert statistics.run(settings, place) == {"days_computed": 2, "changed_partitions": 0}
    assert statistics.run(settings, place)["days_computed"] == 0


def test_files_of_a_run_killed_before_a_rename_are_removed(settings, place):
    statistics.run(settings, place)
    before = tree_sha256(place.statistics)
    for path in (place.statistics / "_sources.json", statistics_table(place, DAILY_ACTIVITY).folder / DATASET_MANIFEST):
        left = path.with_name(f".{path.name}.a1b2c3d4.part")
        left.write_text("{", encoding="utf-8")
        os.utime(left, (0, 0))
    statistics.run(settings, place)
    assert tree_sha256(place.statistics) == before


def test_tables_agree_with_counting_by_hand_however_the_days_are_cut(settings, place, monkeypatch):
    rng = np.random.default_rng(2)
    known = [str(number) for number in range(30)]
    events = [
        event(str(rng.integers(20)), str(rng.integers(30)), float(rng.integers(1, 11)) / 2, float(rng.random() * 9))
        for _ in range(700)
    ]
    write_lake(place, events, [item(name) for name in known], [user(name) for name in known])
    monkeypatch.setattr(tables, "_EVENTS_AT_ONCE", 200)
    statistics.run(settings, place)
    first_seen = {kind: first_days(events, kind) for kind in ("user_id", "item_id")}
    for row in stored(place, DAILY_ACTIVITY):
        of_day = [each for each in events if each["event_time"].day == row["day"]]
        values = [each["value"] for each in of_day]
        assert row["events"] == len(of_day)
        assert row["active_users"] == len({each["user_id"] for each in of_day})
        assert row["new_users"] == first_seen["user_id"][row["day"]]
        assert row["new_items"] == first_seen["item_id"][row["day"]]
        assert row["value_mean"] == pytest.approx(np.mean(values), rel=1e-6)
        assert row["positive_share"] == pytest.approx(np.mean(np.array(values) >= 4), rel=1e-6)
    assert sum(row["events"] for row in stored(place, DAILY_ACTIVITY)) == stored_dataset(place, EVENTS).snapshot().rows


def first_days(events: list[dict[str, Any]], column: str) -> Counter[int]:
    first: dict[str, int] = {}
    for each in events:
        day = each["event_time"].day
        first[each[column]] = min(day, first.get(each[column], day))
    return Counter(first.values())
