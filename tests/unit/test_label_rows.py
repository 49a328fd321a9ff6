from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.features import SESSION_GAP_S
from feature_repo.contracts.schemas import Positive
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import duckdb_session
from pipelines.training.labels import explicit_labels, implicit_labels, positive_labels, sampled_train

if TYPE_CHECKING:
    from pathlib import Path

BASE = datetime(2011, 1, 1, tzinfo=UTC)
BOUGHT = Positive(("purchase",), 1.0)
COUNTED = ("purchase", "view")
Row = dict[str, Any]

logs = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 6), st.sampled_from(["purchase", "view", "return"]), st.integers(0, 12)
    ),
    min_size=1,
    max_size=60,
    unique=True,
)


def events(log: list[tuple[int, int, str, int]]) -> list[Row]:
    return [
        {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "event_type": kind,
            "value": 1.0,
            "event_time": BASE + timedelta(seconds=second),
        }
        for user, item, kind, second in log
    ]


def write(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, arrow_schema(EVENTS)), path)
    return path


def read(query: str) -> list[Row]:
    with duckdb_session("500MB") as connection:
        rows: list[Row] = connection.sql(query).to_arrow_table().to_pylist()
        return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels")


@settings(max_examples=60, deadline=None)
@given(log=logs, negatives=st.integers(1, 3))
def test_drawn_items_were_there_before_and_are_new_to_the_user(
    folder: Path, log: list[tuple[int, int, str, int]], negatives: int
) -> None:
    rows = events(log)
    labelled = read(implicit_labels([write(folder / "events.parquet", rows)], COUNTED, BOUGHT, negatives))
    counted = [row for row in rows if row["event_type"] in COUNTED]
    positives = [row for row in counted if row["event_type"] == "purchase"]
    assert [row["example_id"] for row in labelled] == list(range(len(labelled)))
    assert [row["event_time"] for row in labelled] == sorted(row["event_time"] for row in labelled)
    kept = [row for row in labelled if not row["is_drawn"]]
    assert Counter((row["user_id"], row["item_id"], row["event_time"]) for row in kept) == Counter(
        (row["user_id"], row["item_id"], row["event_time"]) for row in positives
    )
    assert all(row["label"] == 1 - row["is_drawn"] for row in labelled)
    group: list[str] = []
    for row in labelled:
        if not row["is_drawn"]:
            group = []
            continue
        assert row["item_id"] not in group
        group.append(row["item_id"])
        assert len(group) <= negatives
        assert any(row["item_id"] == each["item_id"] and each["event_time"] < row["event_time"] for each in counted)
        assert not any(
            (each["user_id"], each["item_id"]) == (row["user_id"], row["item_id"])
            and each["event_time"] <= row["event_time"]
            for each in rows
        ), "the user has met it: looked at it, or sent it back, perhaps"


@settings(max_examples=40, deadline=None)
@given(log=logs, future=logs)
def test_the_future_changes_no_earlier_row(
    folder: Path, log: list[tuple[int, int, str, int]], future: list[tuple[int, int, str, int]]
) -> None:
    rows = events(log)
    planted = rows + [{**row, "event_time": row["event_time"] + timedelta(days=1)} for row in events(future)]
    before = read(implicit_labels([write(folder / "past.parquet", rows)], COUNTED, BOUGHT, 2))
    after = read(implicit_labels([write(folder / "planted.parquet", planted[::-1])], COUNTED, BOUGHT, 2))
    assert after[: len(before)] == before


def test_items_are_drawn_as_often_as_they_are_popular(folder: Path) -> None:
    random = np.random.default_rng(5)
    popularity = np.array([0.5, 0.3, 0.15, 0.05])
    past = [(10_000 + n, int(item), "view", 0) for n, item in enumerate(random.choice(4, 4000, p=popularity))]
    bought = [(n, 9, "purchase", 1) for n in range(3000)]
    labelled = read(implicit_labels([write(folder / "zipf.parquet", events(past + bought))], COUNTED, BOUGHT, 1))
    drawn = Counter(row["item_id"] for row in labelled if row["is_drawn"])
    shares = np.array([drawn[f"i{item}"] for item in range(4)]) / sum(drawn.values())
    assert sum(drawn.values()) == 3000
    assert np.abs(shares - popularity).max() < 0.04


def test_retrieval_rows_are_the_positive_events(folder: Path) -> None:
    log = [(0, 1, "view", 0), (0, 1, "purchase", 1), (1, 2, "return", 2), (1, 2, "purchase", 3)]
    labelled = read(positive_labels([write(folder / "retrieval.parquet", events(log))], COUNTED, BOUGHT))
    assert [(row["example_id"], row["item_id"], row["label"]) for row in labelled] == [(0, "i1", 1), (1, "i2", 1)]


def test_explicit_rows_are_the_counted_events(folder: Path) -> None:
    log = [(0, 1, "view", 0), (0, 1, "purchase", 1), (1, 2, "return", 2)]
    labelled = read(explicit_labels([write(folder / "explicit.parquet", events(log))], COUNTED, BOUGHT))
    assert [(row["example_id"], row["label"], row["is_drawn"]) for row in labelled] == [(0, 0, 0), (1, 1, 0)]


@given(log=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 8)), min_size=1, unique=True))
@settings(max_examples=20, deadline=None)
def test_rows_of_one_session_of_a_user_are_a_group(folder: Path, log: list[tuple[int, int, int]]) -> None:
    half = SESSION_GAP_S // 2
    rows = events([(user, item, "view", step * half) for user, item, step in log])
    labelled = read(explicit_labels([write(folder / "sessions.parquet", rows)], COUNTED, BOUGHT))
    begun: dict[str, tuple[int, Any]] = {}
    for row in labelled:
        group, last = begun.get(row["user_id"], (row["example_id"], row["event_time"]))
        goes_on = (row["event_time"] - last).total_seconds() <= SESSION_GAP_S
        begun[row["user_id"]] = (group if goes_on else row["example_id"], row["event_time"])
        assert row["group_id"] == begun[row["user_id"]][0]


def test_what_is_drawn_for_an_event_is_of_its_group(folder: Path) -> None:
    log = [(user, item, "purchase", 4 * user + item) for user in range(4) for item in range(user + 2)]
    drawn = read(implicit_labels([write(folder / "drawn.parquet", events(log))], COUNTED, BOUGHT, 2))
    assert any(row["is_drawn"] for row in drawn)
    positives = {(row["user_id"], row["event_time"]): row["group_id"] for row in drawn if not row["is_drawn"]}
    assert all(row["group_id"] == positives[row["user_id"], row["event_time"]] for row in drawn)


def sample(folder: Path, query: str, samples: int, half_life: float = 0.0, train_seconds: int = 8) -> list[Row]:
    labels = folder / "labels.parquet"
    with duckdb_session("500MB") as connection:
        pq.write_table(connection.sql(query).to_arrow_table(), labels)
    end = int(BASE.timestamp() + train_seconds) * 1_000_000
    return read(sampled_train(labels, end, samples, half_life))


def sampled(folder: Path, samples: int, half_life: float) -> list[Row]:
    log = [(user, item, "purchase", item) for user in range(3) for item in range(12) if user or item % 4 == 0]
    query = explicit_labels([write(folder / "sampled.parquet", events(log))], COUNTED, BOUGHT)
    return sample(folder, query, samples, half_life)


def test_busy_users_have_no_more_train_rows_than_allowed_and_all_test_rows(folder: Path) -> None:
    rows = sampled(folder, 3, 0.0)
    assert [row["example_id"] for row in rows] == list(range(len(rows)))
    train: dict[str, int] = defaultdict(int)
    test: dict[str, int] = defaultdict(int)
    for row in rows:
        (train if row["event_time"] < BASE + timedelta(seconds=8) else test)[row["user_id"]] += 1
    assert train == {"u0": 2, "u1": 3, "u2": 3}
    assert test == {"u0": 1, "u1": 4, "u2": 4}
    assert {row["sample_weight"] for row in rows} == {1.0}
    assert rows == sampled(folder, 3, 0.0)


def groups_of(rows: list[Row]) -> dict[tuple[Any, ...], list[str]]:
    """Return positive event → the items that were drawn in its place, which are the rows that follow it."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    key: tuple[Any, ...] = ()
    for row in rows:
        if row["is_drawn"]:
            assert key[::2] == (row["user_id"], row["event_time"]), "a drawn row without its event"
            groups[key].append(row["item_id"])
        else:
            key = (row["user_id"], row["item_id"], row["event_time"])
            groups[key] = []
    return groups


def test_what_was_drawn_for_an_event_stays_or_goes_with_it(folder: Path) -> None:
    dice = np.random.default_rng(2)
    log = {(int(dice.integers(4)), int(dice.integers(40)), "purchase", int(dice.integers(30))) for _ in range(120)}
    query = implicit_labels([write(folder / "together.parquet", events(sorted(log)))], COUNTED, BOUGHT, 3)
    every = groups_of(read(query))
    kept = groups_of(sample(folder, query, 5, train_seconds=25))
    assert kept.items() <= every.items(), "each event has all that was drawn for it"
    end = BASE + timedelta(seconds=25)
    assert {key: drawn for key, drawn in every.items() if key[2] >= end}.items() <= kept.items()
    assert Counter(user for user, _, time in kept if time < end) == {f"u{user}": 5 for user in range(4)}
    assert sum(len(drawn) for key, drawn in kept.items() if key[2] < end) > 30


@settings(max_examples=40, deadline=None)
@given(
    log=logs,
    late=st.tuples(st.integers(0, 4), st.integers(0, 6), st.just("purchase"), st.integers(0, 12)),
    negatives=st.integers(0, 2),
)
def test_a_late_event_changes_no_one_else_s_sample_and_takes_the_place_of_one_at_most(
    folder: Path, log: list[tuple[int, int, str, int]], late: tuple[int, int, str, int], negatives: int
) -> None:
    def kept(rows: list[tuple[int, int, str, int]]) -> set[tuple[Any, ...]]:
        file = [write(folder / "late.parquet", events(rows))]
        query = (
            implicit_labels(file, COUNTED, BOUGHT, negatives) if negatives else explicit_labels(file, COUNTED, BOUGHT)
        )
        happened = (row for row in sample(folder, query, 3, train_seconds=13) if not row["is_drawn"])
        return {(row["user_id"], row["item_id"], row["event_time"], row["label"]) for row in happened}

    (planted,) = events([late])
    before, after = kept(log), kept([*log, late] if late not in log else log)
    new = after - before
    assert new <= {(planted["user_id"], planted["item_id"], planted["event_time"], 1)}
    gone = before - after
    assert len(gone) <= 1
    assert all(user == planted["user_id"] for user, *_ in gone)


def test_old_train_rows_weigh_less(folder: Path) -> None:
    second = 1 / 86_400
    for row in sampled(folder, 0, 2 * second):
        age = 8 - (row["event_time"] - BASE).total_seconds()
        assert row["sample_weight"] == pytest.approx(0.5 ** (age / 2) if age > 0 else 1.0)
