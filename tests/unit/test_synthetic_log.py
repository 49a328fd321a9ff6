"""Made-up logs have the properties that their scale names, and the same scale gives the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from feature_repo.contracts.publishing import tree_sha256
from pipelines.errors import JobError
from pipelines.jobs import generate
from pipelines.settings import Settings
from pipelines.synthetic import events as log_events
from pipelines.synthetic.catalogue import EPOCH_DAYS, GENRES
from pipelines.synthetic.events import Log, make_log
from pipelines.synthetic.files import event_batches
from pipelines.synthetic.scale import LogLayout, LogScale, usual_items, usual_users

if TYPE_CHECKING:
    from pathlib import Path

SCALE = LogScale(events=300_000, users=30_000, items=3000, seed=11)
QUARTER_S = SCALE.seconds // 4
DAY_S = 86_400


class Columns:
    """All events of a log, as arrays."""

    def __init__(self, log: Log) -> None:
        blocks = list(log.blocks())
        self.users, self.items, self.half_stars, self.seconds = (
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("users", "items", "half_stars", "seconds")
        )


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(SCALE)


@pytest.fixture(scope="module")
def columns(log: Log) -> Columns:
    return Columns(log)


def slope(counts: np.ndarray, offset: float, ranks: slice) -> float:
    """Return the slope of log count over log (rank + offset), counts falling."""
    falling = np.sort(counts)[::-1]
    rank = np.arange(1, len(falling) + 1) + offset
    return float(np.polyfit(np.log(rank[ranks]), np.log(falling[ranks]), 1)[0])


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.3])
def test_popularity_follows_zipf_s_law(exponent: float) -> None:
    scale = SCALE.model_copy(update={"popularity_exponent": exponent, "taste": 0.0})
    counts = np.bincount(Columns(make_log(scale)).items, minlength=scale.items)
    assert slope(counts, 20, slice(0, 500)) == pytest.approx(-exponent, abs=0.1)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_activity_follows_zipf_s_law(exponent: float) -> None:
    scale = SCALE.model_copy(update={"activity_exponent": exponent, "users": 3000})
    counts = make_log(scale).people.events
    assert counts.sum() == scale.events
    assert counts.min() >= 1
    assert slope(counts - 1, 0.02 * 3000, slice(0, 1000)) == pytest.approx(-exponent, abs=0.02)


def test_there_are_exactly_as_many_events_as_asked_for_and_none_twice(columns: Columns) -> None:
    assert len(columns.users) == SCALE.events
    rows = np.stack([columns.users, columns.seconds, columns.items])
    assert np.unique(rows, axis=1).shape[1] == SCALE.events
    assert len(np.unique(columns.users)) == SCALE.users
    first, end = SCALE.first_second, SCALE.end.timestamp()
    assert first <= columns.seconds.min()
    assert columns.seconds.max() < end
    assert set(np.unique(columns.half_stars)) == set(range(1, 11))


@pytest.mark.parametrize(("events", "users"), [(5, 20), (20, 20), (1, 1), (3, 1)])
def test_the_smallest_logs_are_whole(events: int, users: int) -> None:
    made = Columns(make_log(LogScale(events=events, users=users, items=20, days=7)))
    assert len(made.users) == events
    assert made.users.max() < users


def test_what_is_popular_changes_over_time(columns: Columns) -> None:
    def kept(log: Columns) -> int:
        """Return how many of the 50 most popular items of the first quarter are among those of the last."""
        quarter = (log.seconds - SCALE.first_second) // QUARTER_S
        counts = (np.bincount(log.items[quarter == number], minlength=SCALE.items) for number in (0, 3))
        first, last = (set(np.argsort(-count)[:50].tolist()) for count in counts)
        return len(first & last)

    lasting = Columns(make_log(SCALE.model_copy(update={"drift": 0.0})))
    assert kept(columns) < 20
    assert kept(lasting) > 35


def test_an_item_has_no_event_before_it_appears(log: Log, columns: Columns) -> None:
    first = np.full(SCALE.items, np.iinfo(np.int64).max)
    np.minimum.at(first, columns.items, columns.seconds)
    new = log.catalogue.released > 0
    assert new.mean() == pytest.approx(0.2, abs=0.03)
    day = (first - SCALE.first_second) / DAY_S
    assert (day[new] >= log.catalogue.released[new] - EPOCH_DAYS / 2).all()
    popular = np.bincount(columns.items, minlength=SCALE.items) > 100
    assert np.median(day[popular & ~new]) < EPOCH_DAYS < np.median(day[popular & new])
    assert (log.catalogue.years[new] >= SCALE.first_day.year).all()


def test_users_act_in_sessions(columns: Columns) -> None:
    gap = np.diff(columns.seconds)[np.diff(columns.users) == 0]
    within = gap <= 1800
    assert (gap == 0).mean() == pytest.approx(SCALE.burst * (1 - 1 / SCALE.session_events), abs=0.06)
    assert (gap > 6 * 3600).mean() > 0.03
    assert ((gap > 1800) & (gap <= 6 * 3600)).mean() < 0.01, (
        "pauses within a session and between sessions are far apart"
    )
    sessions = (~within).sum() + SCALE.users
    assert 3 < SCALE.events / sessions < SCALE.session_events


def test_evenings_weekends_and_winters_are_busy(columns: Columns) -> None:
    hour = np.bincount(columns.seconds // 3600 % 24, minlength=24)
    assert hour[20:22].min() > 5 * hour[3:5].max()
    day = columns.seconds // DAY_S
    weekday = np.bincount((day - 4) % 7, minlength=7)  # from Monday
    assert weekday[5:].min() > 1.1 * weekday[:4].max()
    month = np.array([datetime.fromtimestamp(second, UTC).month for second in columns.seconds[::50]])
    assert np.isin(month, [12, 1, 2]).sum() > 1.15 * np.isin(month, [6, 7, 8]).sum()


def test_tastes_can_be_learnt(log: Log) -> None:
    """The mean of a user's other ratings of a genre says more of a rating than the user's and the item's means."""
    scale = SCALE.model_copy(update={"users": 3000})
    made = make_log(scale)
    columns = Columns(made)
    genre = made.catalogue.genres[columns.items, 0]
    value = columns.half_stars / 2
    pair = columns.users * len(GENRES) + genre
    base = means(columns.users, value, scale.users) + means(columns.items, value, scale.items) - value.mean()
    rest = value - base
    taste = means(pair, rest, scale.users * len(GENRES))
    assert np.corrcoef(taste, rest)[0, 1] > 0.2
    untasteful = Columns(make_log(scale.model_copy(update={"taste": 0.0})))
    assert np.std(untasteful.half_stars) < np.std(columns.half_stars)


def means(key: np.ndarray, value: np.ndarray, size: int) -> np.ndarray:
    """Return, for each row, the mean of the other rows with its key; 0 where there are none."""
    count, total = np.bincount(key, minlength=size), np.bincount(key, value, minlength=size)
    others = count[key] - 1
    return np.where(others > 0, (total[key] - value) / np.maximum(others, 1), 0.0)


@pytest.mark.parametrize("layout", list(LogLayout))
def test_the_same_scale_gives_the_same_bytes(layout: LogLayout, tmp_path: Path) -> None:
    scale = LogScale(events=5000, users=100, items=200, seed=3)
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "other"]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        generate.run(Settings(state=tmp_path), folder, scale.model_copy(update={"seed": seed}), layout)
    one, two, other = (tree_sha256(folder) for folder in folders)
    assert one == two != other


def test_a_user_s_events_do_not_depend_on_how_much_memory_a_block_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_events, "_BLOCK_EVENTS", 1000)
    small = LogScale(events=5000, users=500, items=100)
    sizes = [len(block.users) for block in make_log(small).blocks()]
    assert sum(sizes) == small.events
    assert max(sizes) <= 1000
    assert len(sizes) >= 5


def test_what_is_there_already_is_kept_and_anything_else_refused(tmp_path: Path) -> None:
    scale, settings = LogScale(events=100, users=10, items=20), Settings(state=tmp_path)
    first = generate.run(settings, tmp_path / "log", scale, LogLayout.PARQUET)
    assert first["generated"] is True
    assert generate.run(settings, tmp_path / "log", scale, LogLayout.PARQUET)["generated"] is False
    with pytest.raises(JobError, match=r"expected no such folder.*'seed': 1.*remove it"):
        generate.run(settings, tmp_path / "log", scale.model_copy(update={"seed": 1}), LogLayout.PARQUET)
    (tmp_path / "mine").mkdir()
    with pytest.raises(JobError, match=r"no generated\.json"):
        generate.run(settings, tmp_path / "mine", scale, LogLayout.PARQUET)


def test_parquet_has_the_columns_of_the_lake() -> None:
    from feature_repo.contracts.datasets import EVENTS
    from pipelines.io.arrow import conform

    rows = pa.Table.from_batches(event_batches(make_log(LogScale(events=1000, users=50, items=50))))
    assert conform(rows, EVENTS).num_rows == 1000


@pytest.mark.parametrize("change", [{"items": 3}, {"days": 1}, {"events": 0}, {"drift": 1.5}, {"colour": 1}])
def test_scales_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        LogScale(**{"events": 10, "users": 5, "items": 20, **change})  # type: ignore[arg-type]  # on purpose


def test_usual_sizes_grow_with_the_events() -> None:
    assert (usual_users(20_000_000), usual_users(10)) == (200_000, 1)
    assert usual_items(20_000_000) == pytest.approx(30_000, rel=0.01)
