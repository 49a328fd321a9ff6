"""Questions are refused where the features end before the origin: users would be asked with an older state."""

from __future__ import annotations

from datetime import timedelta
from itertools import combinations
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.places import PARTITION_FILE, Namespace
from feature_repo.contracts.questions import Role
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.errors import JobError
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import duckdb_session
from pipelines.jobs.questions import _check_features, _inputs
from pipelines.questions.as_of import Sources
from pipelines.questions.origins import Origin
from pipelines.settings import Settings
from tests.lake_world import DAY_ONE, event
from tests.movielens import USER_ACTIVITY

ORIGIN = Origin(DAY_ONE + timedelta(days=10), DAY_ONE + timedelta(days=20), Role.TEST)
LOG = [event("a", "x", day=1), event("b", "y", day=8.5), event("a", "z", day=12)]


def check(tmp_path, days):
    """Check a log against a feature table that has rows of some days after DAY_ONE."""
    place = Namespace(tmp_path, "small")
    files = []
    for day in days:
        time = DAY_ONE + timedelta(days=day)
        file = place.feature_table(USER_ACTIVITY.view_name) / f"event_date={time:%Y-%m-%d}" / PARTITION_FILE
        file.parent.mkdir(parents=True)
        pq.write_table(pa.table({"event_time": pa.array([time], pa.timestamp("us", tz="UTC"))}), file)
        files.append(file)
    sources = Sources(
        Settings(state=tmp_path), place, MOVIELENS, (), {USER_ACTIVITY.view_name: SimpleNamespace(files=files)}
    )
    with duckdb_session("100MB") as connection:
        connection.register("events", pa.Table.from_pylist(LOG, schema=arrow_schema(EVENTS)))
        _check_features(sources, connection, [ORIGIN])


def test_features_up_to_the_last_event_before_the_origin_are_asked_with(tmp_path):
    check(tmp_path, [1, 8.5])


def test_later_features_change_nothing(tmp_path):
    check(tmp_path, [1, 8.5, 12])


@pytest.mark.parametrize("days", [[1], [1, 12], []])
def test_features_that_end_before_are_refused(tmp_path, days):
    with pytest.raises(JobError, match=r"user_activity_\w+: expected rows up to .*run `python -m pipelines features`"):
        check(tmp_path, days)


def test_other_sizes_of_channels_are_other_questions(tmp_path):
    """What is served at an origin depends on them, and equal ids promise equal answers."""
    inputs = [
        _inputs(
            Sources(Settings(state=tmp_path, **sizes), Namespace(tmp_path, "small"), MOVIELENS, (), {}), "", [ORIGIN]
        )
        for sizes in ({}, {"channel_items": 100}, {"channel_neighbours": 100})
    ]
    assert all(one != other for one, other in combinations(inputs, 2))
