"""Item features older than their lifetime are missing, on the clock that is replayed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from serving.recommender.errors import SnapshotError
from serving.recommender.lifetimes import Lifetime, item_lifetimes
from serving.recommender.ranking import ranking_inputs
from serving.recommender.release import RankingPlan
from serving.recommender.settings import Settings
from tests.movielens import ITEM_ACTIVITY, ITEM_PROFILE

FIRST = datetime(1998, 4, 1, tzinfo=UTC)
OLD_IN_A_WEEK = replace(ITEM_ACTIVITY, ttl_days=7)
COUNT, MEAN = "item_event_count", "item_value_mean"
GENRES = ITEM_PROFILE.features[1]
CANDIDATES = np.array([2, 0, 3])


def times(*days: int | None) -> pa.Table:
    """Return a catalogue's event times, in days after FIRST."""
    moments = [None if day is None else FIRST + timedelta(days=day) for day in days]
    return pa.table({OLD_IN_A_WEEK.time_column.name: pa.array(moments, pa.timestamp("us", tz="UTC"))})


def plan(*lifetimes: Lifetime) -> RankingPlan:
    inputs = {
        COUNT: np.array([10, 20, 30, 0]),
        MEAN: np.array([1, 2, 3, -1], dtype=np.float32),
        GENRES.name: np.array([[b"a", b""], [b"b", b""], [b"c", b""], [b"d", b""]], dtype=object),
    }
    return RankingPlan("tiny.ranking", 1, (), inputs, lifetimes)


@pytest.mark.parametrize(
    ("clock", "counts"),
    [("1998-04-08T00:00:00+00:00", [30, 10, 0]), ("1998-04-08T00:00:01+00:00", [30, 0, 0]), ("1998-04-13", [0, 0, 0])],
)
def test_what_is_too_old_on_the_replayed_clock_is_missing(clock: str, counts: list[int]) -> None:
    moment = datetime.fromisoformat(clock)
    settings = Settings(recommender_clock=moment.replace(tzinfo=UTC))
    (lifetime,) = item_lifetimes(times(0, 0, 4, None), [OLD_IN_A_WEEK, ITEM_PROFILE], "catalogue.parquet")
    found = plan(lifetime)
    inputs = ranking_inputs(found, {}, CANDIDATES, settings.now("1998-04-23T00:00:00Z"))
    assert inputs[COUNT].tolist() == counts
    assert inputs[MEAN].tolist() == [-1.0 if not count else {30: 3.0, 10: 1.0}[count] for count in counts]
    assert inputs[GENRES.name][:, 0].tolist() == [b"c", b"a", b"d"], "a group without a lifetime never grows old"
    assert found.item_inputs[COUNT].tolist() == [10, 20, 30, 0], "the catalogue itself stays as it is"


def test_text_and_lists_go_missing_too() -> None:
    as_of = np.zeros(4, dtype=np.int64)
    found = plan(Lifetime((GENRES,), as_of, 1))
    assert ranking_inputs(found, {}, CANDIDATES, FIRST)[GENRES.name].tolist() == [[b"", b""]] * 3


def test_without_lifetimes_nothing_is_read_and_nothing_grows_old() -> None:
    assert item_lifetimes(pa.table({"item_id": ["a"]}), [ITEM_ACTIVITY, ITEM_PROFILE], "catalogue.parquet") == ()
    assert ranking_inputs(plan(), {}, CANDIDATES, datetime.max.replace(tzinfo=UTC))[COUNT].tolist() == [30, 10, 0]


def test_a_catalogue_without_the_times_is_refused() -> None:
    with pytest.raises(SnapshotError, match=r"expected the column item_activity_event_time.*publish again"):
        item_lifetimes(pa.table({"item_id": ["a"]}), [OLD_IN_A_WEEK], "catalogue.parquet")


def test_a_lifetime_for_what_is_valid_for_all_time_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="item_profile: expected ttl_days of 0"):
        replace(ITEM_PROFILE, ttl_days=1)
    with pytest.raises(ValueError, match="received -1"):
        replace(ITEM_ACTIVITY, ttl_days=-1)
