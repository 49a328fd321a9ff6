"""Sequences are gathered from sorted events: however these are cut into files, batches and blocks, to the same rows."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import JobError
from pipelines.features import sequences
from pipelines.features.sequences import SortedEvents, days
from tests.movielens import USER_SEQUENCE

BASE = datetime(2020, 2, 28, tzinfo=UTC)
NAMES = ("items", "times", "types", "values", "sessions")
BLANK = ("", 0, "", -1.0, 0)
SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "event_time": pa.timestamp("us", tz="UTC"),
        "item_id": pa.string(),
        "event_type": pa.string(),
        "value": pa.float32(),
        "session": pa.int64(),
        "number": pa.int32(),
        "ends_moment": pa.bool_(),
    }
)
Rows = list[dict[str, Any]]


def sorted_events(seed: int, users: int = 12) -> Rows:
    """Return what Spark gives of a random log: some users have more events than a sequence holds, many in a second."""
    dice = random.Random(seed)
    rows: Rows = []
    for user in range(users):
        seconds = [0, 1, 2, 3_000, 90_000, *range(200_000, 200_009)]
        times = sorted(dice.choice(seconds) for _ in range(dice.choice([1, 7, 130])))
        pauses = [later - earlier > 1800 for earlier, later in pairwise(times)]
        for number, second in enumerate(times):
            rows.append(
                {
                    "user_id": f"u{user}",
                    "event_time": BASE + timedelta(seconds=second),
                    "item_id": f"i{dice.randrange(30)}",
                    "event_type": dice.choice(["view", "purchase"]),
                    "value": dice.randrange(9) / 2,
                    "session": 1 + sum(pauses[:number]),
                    "number": number + 1,
                    "ends_moment": times[number + 1 : number + 2] != [second],
                }
            )
    return rows


def plainly(events: Rows) -> dict[tuple[str, datetime], list[tuple[Any, ...]]]:
    """Return (user, time) → the last fifty events, latest first, from the definition alone."""
    found = {}
    for user, rows in groupby(events, lambda row: row["user_id"]):
        own = list(rows)
        for row in own:
            known = [each for each in own if each["event_time"] <= row["event_time"]][::-1][:50]
            names = ("item_id", "event_time", "event_type", "value", "session")
            last = [tuple(_seconds(each[name]) for name in names) for each in known]
            found[user, row["event_time"]] = last + [BLANK] * (50 - len(last))
    return found


def _seconds(value: object) -> object:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def told(table: pa.Table) -> dict[tuple[str, datetime], list[tuple[Any, ...]]]:
    rows = table.to_pylist()
    found = {
        (row["user_id"], row["event_time"]): list(zip(*(row[f"user_sequence_{name}"] for name in NAMES), strict=True))
        for row in rows
    }
    assert len(found) == len(rows)
    return found


def write(folder: Path, files: list[Rows]) -> Path:
    folder.mkdir()
    for number, rows in enumerate(files):
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / f"part-{number}.parquet")
    return folder


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_days_have_the_rows_of_every_file(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "_BLOCK_ROWS", block)
    first, second = sorted_events(1), [{**row, "user_id": f"other {row['user_id']}"} for row in sorted_events(2)]
    stored = dict(days(USER_SEQUENCE, None, write(tmp_path / "staged", [first, [], second])))
    assert list(stored) == sorted({row["event_time"].date() for row in [*first, *second]})
    assert all(time.date() == day for day, table in stored.items() for time in table["event_time"].to_pylist())
    assert told(pa.concat_tables(stored.values())) == plainly(first) | plainly(second)


def test_days_from_a_start_on_know_what_was_before_it(tmp_path: Path) -> None:
    events, start = sorted_events(3), BASE + timedelta(days=1)
    stored = dict(days(USER_SEQUENCE, start, write(tmp_path / "staged", [events])))
    expected = {key: row for key, row in plainly(events).items() if key[1] >= start}
    assert told(pa.concat_tables(stored.values())) == expected
    assert any(row[-1] != BLANK for row in expected.values())
    assert list(days(USER_SEQUENCE, None, write(tmp_path / "empty", [[]]))) == []


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_many_files_do_not_stay_open(tmp_path: Path) -> None:
    files = [[{**row, "user_id": f"{number} {row['user_id']}"} for row in sorted_events(5, 1)] for number in range(40)]
    before = open_files()
    found = days(USER_SEQUENCE, None, write(tmp_path / "staged", files))
    tables = [next(found)[1]]
    assert open_files() < before + len(files)
    tables += [table for _, table in found]
    assert told(pa.concat_tables(tables)) == plainly([row for rows in files for row in rows])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), size=st.integers(1, 60))
def test_batches_may_end_anywhere(seed: int, size: int) -> None:
    events = sorted_events(seed, users=4)
    batches = pa.Table.from_pylist(events, SCHEMA).to_batches(max_chunksize=size)
    found = pa.Table.from_batches(sequences._rows(USER_SEQUENCE, batches))
    assert told(found) == plainly(events)


def test_a_user_whose_events_are_parted_is_refused(tmp_path: Path) -> None:
    log = sorted_events(4)
    longest = max(log, key=lambda row: row["number"])["user_id"]
    own = [row for row in log if row["user_id"] == longest]
    with pytest.raises(JobError, match="maxRecordsPerFile"):
        list(days(USER_SEQUENCE, None, write(tmp_path / "parted", [own[:70], own[70:]])))
    with pytest.raises(JobError, match="in order of time"):
        SortedEvents.of(pa.Table.from_pylist([own[0], own[2], own[1]], SCHEMA))
