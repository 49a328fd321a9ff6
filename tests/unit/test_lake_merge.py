"""Landed events in the lake: each once, the latest value, in its day's partition, whatever order files come in."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.events import Event, Position
from feature_repo.contracts.places import DATASET_MANIFEST, Namespace
from feature_repo.contracts.publishing import read_json, write_json
from pipelines.errors import CorruptDatasetError
from pipelines.io.lake import partition_file, stored_dataset
from pipelines.jobs import check, ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from pipelines.stream.landing import landed_files, write_landing
from pipelines.stream.merge import merge_landed, streamed_table
from pipelines.stream.source import Received
from tests.movielens import USERS
from tests.stream_world import BASE, random_events, sent, write_items
from tests.synthetic import write_movielens_100k

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLOCK = datetime(2026, 1, 1, tzinfo=UTC)


def entry(event: Event, number: int) -> tuple[Received, Event]:
    return Received(Position(number, 0), f"{number}-0", event.fields()), event


def numbered(events: Sequence[Event], start: int = 1) -> list[tuple[Received, Event]]:
    return [entry(event, start + number) for number, event in enumerate(events)]


def empty_lake(state: Path) -> Namespace:
    place = write_items(state)
    with stored_dataset(place, EVENTS).rewriting():
        pass
    return place


def lake_events(place: Namespace) -> list[Event]:
    rows = stored_dataset(place, EVENTS).snapshot().read().to_pylist()
    micro = [int(row["event_time"].timestamp()) * 1_000_000 + row["event_time"].microsecond for row in rows]
    return [
        Event("", row["user_id"], row["item_id"], row["event_type"], row["value"], time)
        for row, time in zip(rows, micro, strict=True)
    ]


def without_id(events: Sequence[Event]) -> set[Event]:
    return {dataclasses.replace(event, event_id="") for event in events}


def checksums(place: Namespace) -> tuple[str, str, str]:
    tables = (streamed_table(place), stored_dataset(place, EVENTS), stored_dataset(place, USERS))
    first, second, third = (table.snapshot().checksum for table in tables)
    return first, second, third


def test_landed_events_are_merged_and_their_files_removed(tmp_path: Path) -> None:
    place, events = empty_lake(tmp_path), random_events(60)
    write_landing(place, numbered(events))
    merged = merge_landed(place)
    assert (merged.events, merged.files, len(merged.partitions), merged.new_users) == (60, 1, 3, 5)
    assert set(lake_events(place)) == without_id(events)
    assert stored_dataset(place, USERS).snapshot().rows == 5
    assert landed_files(place) == []
    assert merge_landed(place).partitions == set()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_files_may_come_in_any_order_and_again(tmp_path_factory: pytest.TempPathFactory, dice: object) -> None:
    once, often = (empty_lake(tmp_path_factory.mktemp("lake")) for _ in range(2))
    events = random_events(30)
    corrected = [dataclasses.replace(event, value=5.5 - event.value) for event in events[::3]]
    log = numbered([*events, *corrected])
    write_landing(once, log)
    merge_landed(once)
    for _ in range(4):
        dice.shuffle(log)  # type: ignore[attr-defined]
        write_landing(often, log[:20])
        write_landing(often, log[10:])
        if dice.random() < 0.5:  # type: ignore[attr-defined]
            merge_landed(often)
    merge_landed(often)
    assert checksums(often) == checksums(once)
    assert set(lake_events(once)) == without_id([*corrected, *(event for i, event in enumerate(events) if i % 3)])


def test_late_and_corrected_events_rewrite_their_partition_alone(tmp_path: Path) -> None:
    place, events = empty_lake(tmp_path), random_events(60)
    write_landing(place, numbered(events))
    merge_landed(place)
    table = stored_dataset(place, EVENTS)
    before = {name: partition_file(table.folder, name).stat().st_ino for name in table.snapshot().partitions}
    first = min(events, key=lambda event: event.event_time)
    late = sent("u-late", "i1", 3.0, 39.5)
    write_landing(place, numbered([dataclasses.replace(first, value=5.0 if first.value < 5 else 1.0), late], 1000))
    merged = merge_landed(place)
    assert merged.partitions == {"event_date=1998-04-20"}
    after = {name: partition_file(table.folder, name).stat().st_ino for name in table.snapshot().partitions}
    assert {name for name in before if before[name] != after[name]} == {"event_date=1998-04-20"}
    assert merged.new_users == 1


def test_streamed_events_survive_the_same_source_and_win_over_it(tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=200)
    place, options = Namespace(tmp_path / "state", "made-up"), Settings(state=tmp_path / "state")
    ingest.run(options, place, source, None, CLOCK)
    first = lake_events(place)[0]
    corrected = dataclasses.replace(first, event_id="x", value=5.0 if first.value < 5 else 1.0)
    new = dataclasses.replace(first, event_id="y", user_id="newcomer", event_time=first.event_time + 1_500_000)
    later = dataclasses.replace(first, event_id="z", event_time=first.event_time + 400 * 86_400_000_000)
    write_landing(place, numbered([corrected, new, later]))
    merge_landed(place)
    expected = checksums(place)
    streamed = without_id([corrected, new, later])
    assert streamed <= set(lake_events(place))
    assert dataclasses.replace(first) not in set(lake_events(place))
    again = ingest.run(options, place, source, None, CLOCK)
    assert checksums(place) == expected
    assert again["changed_partitions"] == 0
    assert again["cutoff"] == "1998-10-26T00:00:00Z", "the midnight after the last event, streamed ones included"
    assert again["events"] == 202
    cut = datetime(1998, 1, 1, tzinfo=UTC)
    ingest.run(options, place, source, cut, CLOCK)
    assert checksums(place) == expected, "later partitions stay"


def test_an_ingestion_takes_what_has_landed(tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=200)
    place, options = Namespace(tmp_path / "state", "made-up"), Settings(state=tmp_path / "state")
    event = sent("newcomer", "1", 4.0, 7)
    write_landing(place, numbered([event]))
    ingest.run(options, place, source, None, CLOCK)
    assert without_id([event]) <= set(lake_events(place))
    assert "newcomer" in stored_dataset(place, USERS).snapshot().read().column("user_id").to_pylist()
    assert landed_files(place) == []


def test_a_streamed_event_of_an_item_that_left_the_catalogue_waits_until_it_is_back(tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=200)
    place, options = Namespace(tmp_path / "state", "made-up"), Settings(state=tmp_path / "state")
    items = source / "u.item"
    without, whole = items.read_bytes(), items.read_bytes() + b"99|Extra (1995)|01-Jan-1995||http://x" + b"|0" * 19
    items.write_bytes(whole + b"\n")
    ingest.run(options, place, source, None, CLOCK)
    extra, other = sent("newcomer", "99", 4.0, 7), sent("newcomer", "1", 4.0, 40 * 86_400)
    alone = sent("someone", "99", 5.0, 50 * 86_400)
    write_landing(place, numbered([extra, other, alone]))
    merge_landed(place)
    assert without_id([extra, other, alone]) <= set(lake_events(place))

    items.write_bytes(without)
    result = ingest.run(options, place, source, None, CLOCK)
    assert result["streamed_left_out"] == 2
    assert any("item '99'" in text and "kept in `streamed`" in text for text in result["warnings"])
    assert without_id([other]) <= set(lake_events(place))
    assert not without_id([extra, alone]) & set(lake_events(place))
    assert "someone" not in stored_dataset(place, USERS).snapshot().read().column("user_id").to_pylist()
    assert check.run(options, place, datetime(1998, 7, 1, tzinfo=UTC), None)["errors"] == 0
    write_landing(place, numbered([sent("later", "1", 4.0, 8)], start=50))
    assert merge_landed(place).left_out == 1, "of the same day"

    items.write_bytes(whole + b"\n")
    assert "streamed_left_out" not in ingest.run(options, place, source, None, CLOCK)
    later = without_id([sent("later", "1", 4.0, 8)])
    assert set(lake_events(place)) >= without_id([extra, other, alone]) | later


@pytest.mark.parametrize("mode", [Mode.WHOLE, Mode.PART])
def test_days_that_an_ingestion_leaves_alone_follow_the_catalogue_too(tmp_path: Path, mode: Mode) -> None:
    """A refresh up to a cutoff, and a part of other days: a later day's streamed events go and come all the same."""
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=200)
    place, options = Namespace(tmp_path / "state", "made-up"), Settings(state=tmp_path / "state")
    items, cutoff = source / "u.item", datetime(1998, 4, 1, tzinfo=UTC)
    without, whole = items.read_bytes(), items.read_bytes() + b"99|Extra (1995)|01-Jan-1995||http://x" + b"|0" * 19
    items.write_bytes(whole + b"\n")
    ingest.run(options, place, source, None, CLOCK)
    alone, beside = sent("someone", "99", 5.0, 50 * 86_400), sent("other", "99", 5.0, 60 * 86_400)
    known = sent("other", "1", 5.0, 60 * 86_400 + 1)
    write_landing(place, numbered([alone, beside, known]))
    merge_landed(place)
    expected = checksums(place)

    items.write_bytes(without)
    result = ingest.run(options, place, source, cutoff, CLOCK)
    assert (result["streamed_left_out"], result["cutoff"]) == (2, "1998-04-01T00:00:00Z")
    assert not without_id([alone, beside]) & set(lake_events(place))
    assert without_id([known]) <= set(lake_events(place))
    assert check.run(options, place, datetime(1998, 7, 1, tzinfo=UTC), None)["errors"] == 0

    items.write_bytes(whole + b"\n")
    until = cutoff if mode is Mode.WHOLE else None
    assert "streamed_left_out" not in ingest.run(options, place, source, until, CLOCK, None, mode)
    assert checksums(place) == expected


def test_a_streamed_event_that_is_left_out_is_not_the_end_of_the_lake(tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=200)
    place, options = Namespace(tmp_path / "state", "made-up"), Settings(state=tmp_path / "state")
    expected = ingest.run(options, place, source, None, CLOCK)["cutoff"]
    write_landing(place, numbered([sent("someone", "99", 5.0, 50 * 86_400)]))
    assert merge_landed(place).new_users == 0, "an ingestion would not name them, either"
    result = ingest.run(options, place, source, None, CLOCK)
    assert (result["streamed_left_out"], result["cutoff"]) == (1, expected)


@pytest.mark.parametrize(
    "change", [{"event_type": "click"}, {"value": 7.0}, {"value": 3.3}, {"item_id": "i-unknown"}, {"value": 0.0}]
)
def test_a_streamed_event_without_a_meaning_stays_out_of_the_events(change: dict[str, object], tmp_path: Path) -> None:
    place, events = empty_lake(tmp_path), random_events(5)
    odd = dataclasses.replace(sent("odd", "i1", 4.0, 3), **change)  # type: ignore[arg-type] # of any field
    write_landing(place, numbered([*events, odd]))
    merged = merge_landed(place)
    assert (merged.events, merged.left_out) == (6, 1)
    assert set(lake_events(place)) == without_id(events)
    assert streamed_table(place).snapshot().rows == 6


def test_a_day_that_goes_on_is_left_to_the_stream(tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=200)
    place, options = Namespace(tmp_path / "state", "made-up"), Settings(state=tmp_path / "state")
    write_landing(place, numbered([sent("u", "1", 4.0, 30 * 86_400), sent("u", "2", 4.0, 31 * 86_400 + 7)]))
    now = datetime(1998, 5, 21, 12, tzinfo=UTC)
    assert ingest.run(options, place, source, None, now)["cutoff"] == "1998-05-21T00:00:00Z"
    assert "event_date=1998-05-21" in stored_dataset(place, EVENTS).snapshot().partitions


def test_a_damaged_landing_file_stops_the_merge_and_is_named(tmp_path: Path) -> None:
    place = empty_lake(tmp_path)
    path = write_landing(place, numbered(random_events(5)))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptDatasetError, match=path.name):
        merge_landed(place)
    assert not lake_events(place)
    assert path.exists()


@pytest.mark.parametrize("damaged", ["events", "users"])
def test_a_damaged_partition_is_written_anew_by_the_ingestion_that_the_message_names(
    damaged: str, tmp_path: Path
) -> None:
    """With an event of that very day on its way: `land` cannot put it on top of what nobody can read."""
    source = write_movielens_100k(tmp_path / "source", users=20, items=40, events=200)
    place, options = Namespace(tmp_path / "state", "made-up"), Settings(state=tmp_path / "state")
    ingest.run(options, place, source, None, CLOCK)
    name, *_ = stored_dataset(place, EVENTS).snapshot().partitions
    day = (datetime.fromisoformat(f"{name.removeprefix('event_date=')}T00:00:00+00:00") - BASE).total_seconds()
    write_landing(place, numbered([sent("newcomer", "1", 4.0, day)]))
    file = next(place.dataset(damaged).rglob("*.parquet"))
    for path in place.dataset(damaged).rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptDatasetError, match=r"python -m pipelines ingest") as caught:
        merge_landed(place)
    assert file.name in str(caught.value)
    ingest.run(options, place, source, None, CLOCK)
    assert len(lake_events(place)) == 201
    assert "newcomer" in stored_dataset(place, USERS).snapshot().read().column("user_id").to_pylist()
    assert landed_files(place) == []


def test_a_damaged_day_of_the_stream_is_given_up_as_the_message_says(tmp_path: Path) -> None:
    place, events = empty_lake(tmp_path), random_events(60)
    write_landing(place, numbered(events))
    merge_landed(place)
    table = streamed_table(place)
    name, *_ = table.snapshot().partitions
    file = partition_file(table.folder, name)
    file.write_bytes(file.read_bytes()[:-30])
    write_landing(place, numbered([sent("newcomer", "i1", 4.0, 1)], start=99))
    with pytest.raises(CorruptDatasetError, match="its folder and its entry in the manifest"):
        merge_landed(place)
    shutil.rmtree(file.parent)
    manifest = table.folder / DATASET_MANIFEST
    record = read_json(manifest)
    del record["partitions"][name]  # type: ignore[attr-defined] # a JSON object
    write_json(manifest, record)
    merge_landed(place)
    assert len(lake_events(place)) == 61


def test_what_came_by_the_stream_is_not_to_be_removed_for_a_broken_manifest(tmp_path: Path) -> None:
    place = empty_lake(tmp_path)
    write_landing(place, numbered(random_events(5)))
    merge_landed(place)
    (place.dataset("streamed") / DATASET_MANIFEST).write_text("{")
    with pytest.raises(CorruptDatasetError, match="restore it from a backup") as caught:
        streamed_table(place).snapshot()
    assert "remove" not in str(caught.value)


def test_a_manifest_that_is_no_json_names_what_to_do(tmp_path: Path) -> None:
    place = empty_lake(tmp_path)
    (place.dataset("events") / DATASET_MANIFEST).write_text('{"partitions": {"all"')
    with pytest.raises(CorruptDatasetError, match="remove the folder and run `python -m pipelines ingest`"):
        stored_dataset(place, EVENTS).snapshot()
