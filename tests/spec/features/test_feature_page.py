"""docs/features.md says what the contracts say, and all of it."""

import re

import pytest

from feature_repo.contracts.embeddings import EMBEDDING_GROUPS, EMBEDDING_SIZE
from feature_repo.contracts.features import declared
from feature_repo.contracts.on_demand import on_demand
from feature_repo.contracts.places import REPOSITORY
from pipelines.feature_page.example_log import SCHEMA
from pipelines.feature_page.page import COLUMNS, COMMAND, render

GROUPS = (*declared(SCHEMA).groups, *EMBEDDING_GROUPS)


@pytest.fixture(scope="module")
def page():
    return (REPOSITORY / "docs" / "features.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page):
    """Feature → column of the page → what it says."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.splitlines()
        if line.startswith("| `")
    ]
    assert {len(row) for row in cells} == {len(COLUMNS)}
    return {row[0].strip("`"): dict(zip(COLUMNS, row, strict=True)) for row in cells}


def test_the_page_is_what_the_contracts_and_the_transforms_make_of_it(spark, page):
    assert page == render(spark), f"docs/features.md is stale; run `{COMMAND}`"


def test_every_feature_is_on_the_page_once_stored_fitted_or_of_the_request(page, rows):
    stored = {column.name for group in GROUPS for column in group.features}
    assert len(EMBEDDING_GROUPS) == 8
    assert set(rows) == stored | {feature.name for feature in on_demand(SCHEMA)}
    assert page.count("\n| `") == len(rows)
    assert f"All {len(rows)} features" in page


def test_everything_is_told_of_every_feature(rows):
    assert set(COLUMNS) >= {"feature", "meaning", "source", "window", "fresh", "owner", "example"}
    empty = {(name, column) for name, row in rows.items() for column, cell in row.items() if not cell.strip("` ")}
    assert not empty
    assert not [name for name, row in rows.items() if row["example"] in {"`None`", "`nan`", "`[]`"}]


def test_a_window_is_told_as_long_as_it_is(rows):
    days = {name: found[1] for name in rows if (found := re.search(r"_(\d+)d$", name))}
    assert len(days) == 12
    assert {name: rows[name]["window"] for name in days} == {name: f"the last {n} days" for name, n in days.items()}
    assert re.findall(r"\d+", rows["item_trend"]["window"]) == ["7", "30"]
    lists = [name for name in rows if name.startswith(("user_last_items", "user_last_values", "user_sequence_"))]
    assert len(lists) == 7
    for name in lists:
        (length,) = re.findall(r"\d+", rows[name]["type"].removesuffix("int64").removesuffix("float32"))
        assert rows[name]["window"] == f"the last {length} events"
    assert rows["user_session_seconds"]["window"] == "the last session"
    assert rows["user_age"]["window"].startswith("none")


def test_owner_and_freshness_say_who_writes_and_when(rows):
    written = {group.name for group in GROUPS if group.streamed}
    encoded = {"user_activity", "user_session", "user_sequence", "user_history", "user_liked_items"}
    assert written == encoded, "what pipelines/stream/online_users.py encodes"
    for group in GROUPS:
        for column in group.features:
            row = rows[column.name]
            assert ("stream" in row["owner"]) == ("stream" in row["fresh"]) == group.streamed
            assert ("embeddings" in row["owner"]) == (group in EMBEDDING_GROUPS)
    for feature in on_demand(SCHEMA):
        assert rows[feature.name]["owner"].startswith("model plane")
        assert rows[feature.name]["fresh"] == "request"
        assert rows[feature.name]["source"].split(", ") == list(feature.inputs)
    assert {row["fresh"].split(",")[0] for row in rows.values()} == {"event", "day", "refresh", "request"}


def test_examples_are_what_one_counts_by_hand_in_the_log(rows):
    """Ann rated five films from 1 March, 8 p.m., the last of them 4,332 minutes later; the request is of the 8th."""
    examples = {name: row["example"].strip("`") for name, row in rows.items()}
    assert examples["user_last_items"] == "['heat', 'alien', 'totoro', 'vertigo', …]"
    assert examples["user_event_count_7d"] == "5"
    assert examples["user_value_mean_30d"] == f"{(4.5 + 5 + 2.5 + 3.5 + 4) / 5:.6g}"
    assert examples["item_event_count_90d"] == "3"
    assert (examples["user_followed_count"], examples["user_follower_count"]) == ("1", "1")
    assert examples["user_circle_items"] == "['casablanca', 'fargo']", "what bob liked, latest first"
    assert examples["user_liked_items"] == "['heat', 'vertigo', 'casablanca']", "what ann gave four stars, latest first"
    assert examples["user_recency"] == str(6 * 86_400 + 4 * 3_600 - 4_332 * 60)
    assert (examples["request_hour"], examples["request_weekday"], examples["request_season"]) == ("0", "6", "1")
    assert examples["genres_match"] == "1"
    assert rows["item_node2vec"]["type"] == f"list of {EMBEDDING_SIZE} float32"
