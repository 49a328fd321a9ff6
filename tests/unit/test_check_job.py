"""The job `check`: what it passes, what it stops, what it accepts, and the report it leaves in either case."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.places import DATASET_MANIFEST, REPORT, Namespace
from feature_repo.contracts.publishing import file_sha256, read_json, write_json
from pipelines.errors import ChecksFailedError, JobError
from pipelines.io.lake import partition_file, partition_name
from pipelines.jobs import check
from pipelines.settings import Settings
from tests.lake_world import DAY_ONE, event, item, user, write_events, write_lake

if TYPE_CHECKING:
    from pathlib import Path

DAYS = 35
CUTOFF = DAY_ONE + timedelta(days=DAYS)
GENRES = ("War", "Drama", "<b>Sci-Fi & $x$</b>")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
def place(settings: Settings) -> Namespace:
    place = Namespace(settings.state, "test")
    items = [item(str(number), [GENRES[number % 3]], 1990 + number % 30) for number in range(60)]
    users = [user(str(number), "FM"[number % 2], 20 + number % 50) for number in range(200)]
    write_lake(place, steady_events(), items, users)
    return place


def steady_events(low: int = 1, from_day: int = 0, to_day: int = DAYS) -> list[dict[str, Any]]:
    """Return about 60 events a day by one distribution, the last week no other than the weeks before."""
    rng = np.random.default_rng(3)
    events = []
    for day in range(from_day, to_day):
        count = int(rng.integers(50, 70))
        seconds = rng.choice(86_000, size=count, replace=False) / 86_400
        for second, who, what in zip(seconds, rng.integers(0, 200, count), rng.integers(0, 60, count), strict=True):
            events.append(event(str(who), str(what), float(rng.integers(low, 6)), day + float(second)))
    return events


def report_of(place: Namespace, result: Any) -> tuple[str, dict[str, Any]]:
    folder = place.reports / result["report"]
    record: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return (folder / REPORT).read_text(), record


def outcome_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in record["checks"] if each["name"] == name)


def overwrite_value(place: Namespace, day: int, value: float) -> None:
    """Set the value of a day's first event, as nothing of this project would, and make the manifest agree."""
    folder, name = place.dataset(EVENTS.name), partition_name((DAY_ONE + timedelta(days=day)).date())
    file = partition_file(folder, name)
    rows = pq.ParquetFile(file).read()
    values = [value, *rows.column("value").to_pylist()[1:]]
    pq.write_table(rows.set_column(3, rows.schema.field(3), [np.array(values, np.float32)]), file)
    manifest: Any = read_json(folder / DATASET_MANIFEST)
    manifest["partitions"][name]["file_sha256"] = file_sha256(file)
    write_json(folder / DATASET_MANIFEST, manifest)


def test_a_steady_lake_passes_and_a_second_run_changes_nothing(settings, place):
    result = check.run(settings, place, CUTOFF, None)
    assert (result["errors"], result["warnings"], result["not_judged"]) == (0, 0, 0)
    html, record = report_of(place, result)
    assert record["verdict"]["code"] == "passed"
    assert record["past"]["start"][:10] == "1998-03-01"
    assert len(record["days"]) == 14
    assert record["days"][0]["events"] == sum(row["event_time"].day == 4 for row in steady_events()[-70:])
    assert html.count("<svg") == 9
    before = {path: path.stat().st_mtime_ns for path in place.root.rglob("*.*") if path.suffix != ".lock"}
    assert check.run(settings, place, CUTOFF, None) == {**result, "changed_partitions": 0}
    assert before == {path: path.stat().st_mtime_ns for path in place.root.rglob("*.*") if path.suffix != ".lock"}


def test_large_numbers_that_begin_alike_are_told_apart(settings, tmp_path):
    place = Namespace(tmp_path / "state", "large")
    items = [item(str(number), [GENRES[0]], 1_234_567 + number % 2) for number in range(60)]
    users = [user(str(number), "F", 20) for number in range(200)]
    last_week = DAY_ONE + timedelta(days=DAYS - 7)
    events = [
        {**row, "item_id": str(int(row["item_id"]) // 2 * 2 + (row["event_time"] >= last_week))}
        for row in steady_events()
    ]
    write_lake(place, events, items, users)
    _, record = report_of(place, check.run(settings, place, CUTOFF, None))
    assert outcome_of(record, "events.items.release_year.distribution")["outcome"] == "warning"


def test_the_page_needs_nothing_else_and_runs_nothing(settings, place):
    html, _ = report_of(place, check.run(settings, place, CUTOFF, None))
    assert "&lt;b&gt;Sci-Fi &amp; $x$&lt;/b&gt;" in html, "what a source says is text"
    assert "<b>Sci-Fi" not in html
    assert not re.search(r"<script|<link|<iframe|<img|\son\w+=|@import|url\((?!#)", html)
    addresses = set(re.findall(r"(?:href|src)=\"([^\"#][^\"]*)\"", html))
    assert not addresses
    assert "prefers" not in html
    assert "T00:00" not in html.partition("Where it comes from")[0], "people read days"


def test_a_broken_row_ends_the_run_with_a_report_and_without_statistics(settings, place):
    overwrite_value(place, day=2, value=9.5)
    with pytest.raises(
        ChecksFailedError, match=r"1 checks failed: events\.value\.range: .* 1 of .* value 9\.5"
    ) as caught:
        check.run(settings, place, CUTOFF, None)
    assert caught.value.exit_code is ExitCode.TERMINAL
    html, record = report_of(place, caught.value.result)
    assert record["verdict"]["code"] == "failed"
    assert outcome_of(record, "events.value.range")["outcome"] == "error"
    assert outcome_of(record, "events.volume")["received"] == "the rows themselves are wrong"
    assert "Nothing is computed from this data" in html
    assert not place.statistics.exists()


def test_what_somebody_accepts_stops_nothing_and_is_still_shown(settings, place):
    overwrite_value(place, day=2, value=9.5)
    knowing = settings.model_copy(update={"check_accepted": "events.value.range, events.delivery"})
    result = check.run(knowing, place, CUTOFF, None)
    assert (result["errors"], result["warnings"]) == (0, 1)
    assert outcome_of(report_of(place, result)[1], "events.value.range")["outcome"] == "accepted"


@pytest.mark.parametrize("name", ["events.value.rang", "events.value.type"])
def test_accepting_a_check_that_is_none_or_is_of_a_type_is_refused(settings, place, name):
    with pytest.raises(JobError, match=rf"KESTREL_CHECK_ACCEPTED: .*{name}"):
        check.run(settings.model_copy(update={"check_accepted": name}), place, CUTOFF, None)


def test_a_week_unlike_the_weeks_before_is_warned_of(settings, place):
    few = steady_events(low=5, from_day=33)[::40]
    write_events(place, steady_events(to_day=28) + steady_events(low=5, from_day=28, to_day=33) + few)
    result = check.run(settings, place, CUTOFF, None)
    _, record = report_of(place, result)
    assert (result["errors"], result["warnings"]) == (0, 2)
    assert outcome_of(record, "events.volume")["received"].startswith("2 of 7 days outside")
    value = outcome_of(record, "events.value.distribution")
    assert value["outcome"] == "warning"
    assert float(value["received"].split(" ")[0]) > 0.25
    assert any(example.startswith("5: 2") for example in value["examples"])


def test_a_source_that_stopped_delivering_is_an_error(settings, place):
    write_events(place, steady_events(to_day=28))
    with pytest.raises(ChecksFailedError, match=r"events\.delivery: .* received none, after .* in the 28 days before"):
        check.run(settings, place, CUTOFF, None)


def test_without_history_nothing_is_compared(settings, place):
    result = check.run(settings, place, CUTOFF, DAY_ONE)
    _, record = report_of(place, result)
    assert (result["errors"], result["warnings"]) == (0, 0)
    assert record["past"] is None
    assert outcome_of(record, "events.value.distribution") == {
        "name": "events.value.distribution",
        "outcome": "not judged",
        "expected": "a population stability index of at most 0.25",
        "received": "too little history before the interval",
        "examples": [],
    }


def test_an_interval_that_is_none_and_a_lake_without_events_are_refused(settings, place):
    with pytest.raises(JobError, match="expected a start before the cutoff"):
        check.run(settings, place, CUTOFF, CUTOFF)
    with pytest.raises(JobError, match="expected events before 1998-03-01"):
        check.run(settings, place, DAY_ONE, None)
