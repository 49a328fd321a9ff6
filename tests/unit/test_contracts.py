"""Declarations that make no sense fail where they are made; hashes move with what they stand for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding
from feature_repo.contracts.datasets import EVENTS, Dataset
from feature_repo.contracts.embeddings import EMBEDDING_GROUPS
from feature_repo.contracts.features import FeatureService, Freshness, declared
from feature_repo.contracts.intervals import (
    PartitionKey,
    check_cutoff,
    check_found_cutoff,
    check_namespace,
    feast_project,
    format_cutoff,
    model_name,
    parse_clock,
    parse_cutoff,
)
from feature_repo.contracts.on_demand import on_demand
from feature_repo.contracts.schemas import MOVIELENS, EventType, Positive, Schema, ValueRange
from feature_repo.contracts.signatures import Scope
from tests.movielens import RANKING, RANKING_FEATURES, USER_ACTIVITY


@pytest.mark.parametrize(
    "declaration",
    [
        {"name": "User"},
        {"name": ""},
        {"length": -2},
        {"encoding": Encoding.VOCABULARY},
        {"vocabulary": "item"},
        {"dtype": Dtype.INT64, "missing": 0, "encoding": Encoding.VOCABULARY, "vocabulary": "item"},
        {"encoding": Encoding.STANDARD},
        {"encoding": Encoding.MULTI_HOT, "vocabulary": "item"},
        {"encoding": Encoding.ONE_HOT, "vocabulary": "item", "length": 3},
        {"encoding": Encoding.HASHED},
        {"encoding": Encoding.HASHED, "buckets": 8, "vocabulary": "item"},
        {"dtype": Dtype.FLOAT32, "encoding": Encoding.ROBUST, "length": 2},
        {"dtype": Dtype.FLOAT32, "encoding": Encoding.QUANTILES, "buckets": 1},
        {"dtype": Dtype.FLOAT32, "encoding": Encoding.STANDARD, "buckets": 4},
        {"dtype": Dtype.FLOAT32, "encoding": Encoding.NORM, "length": 2},
        {"dtype": Dtype.FLOAT32, "encoding": Encoding.NORM, "norm": 2.0},
        {"dtype": Dtype.FLOAT32, "encoding": Encoding.MIN_MAX, "norm": 2.0},
        {"dtype": Dtype.FLOAT32, "curve": Curve.LOG},
        {"missing": 0},
        {"dtype": Dtype.FLOAT32, "missing": ""},
    ],
)
def test_a_column_that_makes_no_sense_fails_when_declared(declaration):
    with pytest.raises(ValueError, match="column"):
        Column(**{"name": "a", "dtype": Dtype.STRING, "meaning": "m", **declaration})


def test_a_dataset_refuses_keys_that_are_no_columns_and_columns_declared_twice():
    with pytest.raises(ValueError, match="'nobody' is not among its columns"):
        replace(EVENTS, key=("nobody",))
    with pytest.raises(ValueError, match="dataset d: expected different names, received 'user_id' more"):
        Dataset("d", (EVENTS.columns[0], EVENTS.columns[0]), (), (), partitioned_by_event_date=False, meaning="m")


def test_a_service_refuses_two_features_of_one_name():
    with pytest.raises(ValueError, match="features of the service twice: expected different names"):
        FeatureService("twice", (USER_ACTIVITY, replace(USER_ACTIVITY, name="again")))


CLICKS = Schema((EventType("click"),), ValueRange(1, 1), Positive(("click",), 1), is_implicit=True)


@pytest.mark.parametrize("schema", [MOVIELENS, CLICKS], ids=["movielens", "clicks"])
def test_every_feature_that_is_known_as_of_a_label_reaches_a_training_set(schema):
    features = declared(schema)
    served = {group.name for service in features.services for group in service.groups}
    assert served == {group.name for group in features.groups if group.freshness is not Freshness.LATEST}
    assert all(group.freshness is Freshness.LATEST for group in EMBEDDING_GROUPS)


def test_a_wider_service_reads_the_same_views_and_ranking_reads_no_window():
    features = declared(MOVIELENS)
    wider = (features.ranking, features.ranking_windows, features.ranking_sequences)
    assert [service.views.items() < next_one.views.items() for service, next_one in pairwise(wider)] == [True, True]
    assert features.retrieval.views == features.ranking_sequences.views
    assert not any(group.freshness is Freshness.DAILY for group in RANKING_FEATURES.groups)
    assert len({service.name for service in features.services}) == len(features.services)


def test_a_changed_feature_renames_its_view_and_changes_no_other_features_hash():
    count = next(column for column in USER_ACTIVITY.features if column.name == "user_event_count")
    features = tuple(replace(column, revision=2) if column is count else column for column in USER_ACTIVITY.features)
    changed = replace(USER_ACTIVITY, features=features)
    assert changed.view_name != USER_ACTIVITY.view_name
    moved = {c.name for c in features if changed.feature_hash(c.name) != USER_ACTIVITY.feature_hash(c.name)}
    assert moved == {"user_event_count"}


def test_a_changed_parameter_changes_the_view_and_a_changed_meaning_does_not():
    assert replace(USER_ACTIVITY, parameters={"last_items": 11}).view_name != USER_ACTIVITY.view_name
    reworded = tuple(replace(column, meaning="other words") for column in USER_ACTIVITY.features)
    assert replace(USER_ACTIVITY, features=reworded).view_name == USER_ACTIVITY.view_name


def test_a_lifetime_is_a_part_of_the_view_s_name_and_of_its_features_hashes():
    """A champion must not read as missing what it was trained on as known."""
    aging = replace(USER_ACTIVITY, ttl_days=400)
    assert len({USER_ACTIVITY.view_name, aging.view_name, replace(aging, ttl_days=30).view_name}) == 3
    assert aging.feature_hash("user_event_count") != USER_ACTIVITY.feature_hash("user_event_count")


def test_a_row_is_too_old_when_its_lifetime_is_over():
    time = datetime(2024, 3, 1, tzinfo=UTC)
    aging = replace(USER_ACTIVITY, ttl_days=2)
    assert not aging.is_too_old(time, time + timedelta(days=2))
    assert aging.is_too_old(time, time + timedelta(days=2, microseconds=1))
    assert not USER_ACTIVITY.is_too_old(time, datetime.max.replace(tzinfo=UTC))


def test_ranking_signature_takes_each_feature_of_its_service_once_and_says_whom_it_describes():
    names = [column.name for column in RANKING.input_columns]
    assert len(set(names)) == len(names)
    assert set(names) == {"item_id", "request_time"} | {column.name for column in RANKING_FEATURES.columns}
    assert all(column.name.startswith(("user_", "request_")) for column in RANKING.scoped(Scope.USER))
    assert all(column.name.startswith("item_") for column in RANKING.scoped(Scope.ITEM))


def test_on_demand_features_follow_from_the_schema_and_are_made_of_inputs():
    names = [feature.name for feature in RANKING.on_demand]
    assert {"request_hour", "user_recency", "item_decayed_count", "release_year_match", "genres_match"} <= set(names)
    assert len(set(names)) == len(names)
    inputs = {column.name for column in RANKING.input_columns}
    assert all(set(feature.inputs) <= inputs and feature.meaning for feature in RANKING.on_demand)
    assert not [feature.name for feature in on_demand(CLICKS) if feature.name.endswith("_match")]


def test_every_model_input_has_a_value_for_missing():
    assert all(column.missing is not None for column in RANKING.input_columns)


@pytest.mark.parametrize(
    "text", ["1998-04-23", "1998-04-23T00:00:00Z", "1998-04-23T00:00:00+00:00", "1998-04-23T02:00:00+02:00"]
)
def test_cutoffs_are_midnights_in_utc(text):
    assert parse_cutoff(text) == datetime(1998, 4, 23, tzinfo=UTC)
    assert format_cutoff(parse_cutoff(text)) == "1998-04-23T00:00:00Z"


@pytest.mark.parametrize(
    ("clock", "asked", "found"),
    [
        ("1998-04-23T00:00:00Z", "1998-04-23", "1998-04-24"),
        ("1998-04-23T12:00:00Z", "1998-04-23", "1998-04-24"),
        ("1998-04-23T23:59:59.999999Z", "1998-04-23", "1998-04-24"),
        ("1998-04-23T23:30:00-01:00", "1998-04-24", "1998-04-25"),
    ],
)
def test_a_cutoff_does_not_lie_after_the_clock(clock, asked, found):
    now, day = parse_clock(clock), timedelta(days=1)
    for check, text in ((check_cutoff, asked), (check_found_cutoff, found)):
        latest = parse_cutoff(text)
        assert check(latest, now) == latest
        with pytest.raises(ValueError, match=rf"lies after the clock, {now:%Y-%m-%dT%H:%M:%SZ}: expected {text} at"):
            check(latest + day, now)


@pytest.mark.parametrize("text", ["", "now", "25:00", "9999-12-31T23:00:00-02:00"])
def test_a_clock_is_a_moment(text):
    with pytest.raises(ValueError, match=r"clock .*: expected a moment"):
        parse_clock(text)
    assert parse_clock("2026-11-29T12:00") == datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "1998-04-23T01:00:00Z", "1998-13-01", "1998-04-23T00:00:00+02:00"),
        "0001-01-01T00:00:00+02:00",
    ],
)
def test_anything_else_is_refused_with_what_was_expected(text):
    with pytest.raises(ValueError, match=r"cutoff .*: expected"):
        parse_cutoff(text)


@given(st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True), st.dates())
def test_a_partition_key_reads_what_it_wrote(namespace, day):
    key = PartitionKey(namespace, datetime(day.year, day.month, day.day, tzinfo=UTC))
    if day.year >= 1000:
        assert PartitionKey.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "ml-100k", "|1998-04-23", "ML|1998-04-23", "ml-100k|noon"])
def test_a_bad_partition_key_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        PartitionKey.parse(text)


@pytest.mark.parametrize("name", ["", "ML", "a_b", "-a", "a-", "../x", "a" * 49, "a/b", "a\n"])
def test_a_namespace_can_neither_leave_its_folder_nor_break_a_name(name):
    with pytest.raises(ValueError, match="namespace"):
        check_namespace(name)


def test_names_of_two_namespaces_never_meet():
    assert model_name("ml-100k", "ranking") == "ml-100k.ranking"
    assert feast_project("ml-100k") == "ml_100k"
