"""Questions are refused where the features end before the origin; the note says for which role nobody is asked."""

from __future__ import annotations

import re
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
from pipelines.jobs.questions import _check_features, _inputs, _note, _users_asked
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
        for sizes in ({}, {"channel_items": 100}, {"channel_neighbours": 100}, {"question_train_users": 7})
    ]
    assert all(one != other for one, other in combinations(inputs, 2))


def test_fewer_users_are_asked_where_models_learn_from_several_origins(tmp_path):
    settings = Settings(state=tmp_path, question_users=100, question_train_users=7)
    assert {role: _users_asked(settings, role) for role in Role} == {
        Role.TRAIN: 7,
        Role.VALIDATION: 100,
        Role.TEST: 100,
    }
    assert _users_asked(Settings(state=tmp_path, question_users=5), Role.TRAIN) == 5


def told(role, asked, day=10):
    return {
        "role": role.value,
        "asked": asked,
        "origin": f"1998-01-{day}T00:00:00Z",
        "end": f"1998-01-{day + 9}T00:00:00Z",
    }


TRAINING, CHOOSING, JUDGING = told(Role.TRAIN, 3), told(Role.VALIDATION, 3), told(Role.TEST, 3)


@pytest.mark.parametrize(
    ("origins", "said"),
    [
        ([TRAINING, CHOOSING, JUDGING], ""),
        ([told(Role.TRAIN, 0), TRAINING, CHOOSING, JUDGING], ""),
        ([], "no midnight lies between the end of the rows that training set few chooses on and the cutoff"),
        ([TRAINING, CHOOSING, told(Role.TEST, 0)], "nobody likes anything new in 1998-01-10 to 1998-01-19"),
        ([JUDGING], "no midnight is left for a validation origin"),
        ([CHOOSING, JUDGING], "no lists are learned from before the validation origin, .*: the log is too short"),
        ([told(Role.TRAIN, 0, 11), CHOOSING, JUDGING], ".*: nobody likes anything new in 1998-01-11 to 1998-01-20"),
    ],
)
def test_the_note_says_for_which_role_nobody_is_asked(origins, said):
    note = _note(origins, DAY_ONE, "few", training=4)
    assert re.match(said, note) if said else note == ""


def test_none_to_train_on_are_missed_where_none_are_wanted():
    assert _note([CHOOSING, JUDGING], DAY_ONE, "few", training=0) == ""
