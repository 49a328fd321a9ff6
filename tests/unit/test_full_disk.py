"""A disk that fills up at any step of a write: nothing half-written is read, and the next run ends the same."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import tree_sha256, write_json
from pipelines.errors import JobError
from pipelines.io.lake import sync_directory
from pipelines.jobs import ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from pipelines.stream.landing import write_landing
from pipelines.stream.merge import merge_landed, streamed_table
from tests.stream_world import random_events
from tests.synthetic import write_movielens_100k
from tests.unit.test_lake_merge import empty_lake, numbered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = {"write_json": write_json, "sync_directory": sync_directory}
MOMENTS = [("write_json", 1), ("write_json", 2), ("write_json", 4), ("sync_directory", 1), ("sync_directory", 2)]
"""The manifest to be, the manifest, another table's manifest, between two renames."""


def fill_disk_at(step: str, nth: int, patch: pytest.MonkeyPatch) -> None:
    """Let the nth call of a step of the lake find no room."""
    calls = [0]

    def full(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        STEPS[step](*arguments)

    patch.setattr(f"pipelines.io.lake.{step}", full)


def check_every_moment(work: Callable[[Namespace], object], begin: Callable[[Path], Namespace], folder: Path) -> None:
    """Do `work` with a disk that is full at a moment, then again: it ends as if the disk had been empty."""
    whole = begin(folder / "whole")
    work(whole)
    wanted = tree_sha256(whole.root / "lake")
    for step, nth in MOMENTS:
        place = begin(folder / f"{step}-{nth}")
        with pytest.MonkeyPatch.context() as patch:
            fill_disk_at(step, nth, patch)
            with pytest.raises(OSError, match="No space"):
                work(place)
        work(place)
        assert tree_sha256(place.root / "lake") == wanted, (step, nth)


def test_a_merge_of_streamed_events_that_finds_the_disk_full_is_finished_by_the_next(tmp_path: Path) -> None:
    events = random_events(60)

    def begin(state: Path) -> Namespace:
        place = empty_lake(state)
        write_landing(place, numbered(events[:30]))
        merge_landed(place)
        write_landing(place, numbered(events[30:], start=31))
        return place

    check_every_moment(merge_landed, begin, tmp_path)


def test_a_part_that_finds_the_disk_full_is_finished_by_the_next(tmp_path: Path) -> None:
    whole, part = (
        write_movielens_100k(tmp_path / name, users=users, items=items, events=3, seed=items)
        for name, users, items in (("a", 4, 5), ("b", 5, 6))
    )

    def begin(state: Path) -> Namespace:
        place = Namespace(state, "made-up")
        ingest.run(Settings(state=state), place, whole, None, CLOCK)
        return place

    def work(place: Namespace) -> None:
        ingest.run(Settings(state=place.state), place, part, None, CLOCK, mode=Mode.PART)

    check_every_moment(work, begin, tmp_path)


def test_between_the_failure_and_the_next_run_nothing_is_read(tmp_path: Path) -> None:
    place = empty_lake(tmp_path)
    write_landing(place, numbered(random_events(30)))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space"):
        fill_disk_at("write_json", 2, patch)
        merge_landed(place)
    with pytest.raises(JobError, match="pipelines land"):
        streamed_table(place).snapshot()
    merge_landed(place)
    assert streamed_table(place).snapshot().rows == 30
