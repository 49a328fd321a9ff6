from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.feast_store import offline
from pipelines.feast_store.errors import (
    EntityRowsError,
    FeatureTableMissingError,
    RepeatedFeatureRowError,
    RowCountError,
)
from pipelines.feast_store.offline import StrictDuckDBOfflineStoreConfig, StrictLatestJob, StrictRetrievalJob
from pipelines.feast_store.point_in_time import AsOfJoin, point_in_time_sql
from pipelines.feast_store.tables import FeatureTable

ZERO = datetime(1998, 4, 22, tzinfo=UTC)
OPTIONS = StrictDuckDBOfflineStoreConfig()


def at(second: float) -> datetime:
    return ZERO + timedelta(seconds=second)


def write_features(folder: Path, rows: list[tuple[str, float, int]], key: str = "user_id") -> FeatureTable:
    """Write (key, second, value) rows as two partitions, to be read by a pattern."""
    for part, chosen in enumerate((rows[::2], rows[1::2])):
        target = folder / f"event_date=1998-04-{22 + part}"
        target.mkdir(parents=True, exist_ok=True)
        times = pa.array([at(second) for _, second, _ in chosen], pa.timestamp("us", tz="UTC"))
        keys, values = [user for user, _, _ in chosen], [value for _, _, value in chosen]
        table = pa.table(
            {key: pa.array(keys, pa.string()), "event_time": times, f"{key}_x": pa.array(values, pa.int64())}
        )
        pq.write_table(table, target / "part-0.parquet")
    return FeatureTable("view", str(folder / "event_date=*" / "part-0.parquet"), (key,), "event_time")


def join(table: FeatureTable, labels: pd.DataFrame | str, ttl_s: int = 0) -> StrictRetrievalJob:
    (key,) = table.keys
    planned = AsOfJoin(table, {key: key}, {f"{key}_x": f"{key}_x"}, ttl_s * 1_000_000)
    return StrictRetrievalJob(labels, [planned], [], [], OPTIONS, full_feature_names=False)


def label_frame(labels: list[tuple[str, float]]) -> pd.DataFrame:
    times = pd.to_datetime([at(second) for _, second in labels], utc=True)
    return pd.DataFrame({"user_id": [user for user, _ in labels], "event_timestamp": times})


def brute_force(features: list[tuple[str, float, int]], label: tuple[str, float], ttl_s: int) -> int | None:
    """Return the value of the latest row strictly before the label; None without one, or beyond the TTL."""
    user, second = label
    before = [(time, value) for key, time, value in features if key == user and time < second]
    if not before:
        return None
    time, value = max(before)
    return None if ttl_s and second - time > ttl_s else value


users = st.sampled_from(["a", "b", "é"])
seconds = st.integers(0, 8)
logs = st.lists(st.tuples(users, seconds, st.integers(0, 99)), max_size=30, unique_by=lambda row: row[:2])


@settings(max_examples=60, deadline=None)
@given(features=logs, labels=st.lists(st.tuples(users, seconds), max_size=40), ttl_s=st.sampled_from([0, 1, 3]))
def test_join_equals_brute_force_on_logs_full_of_ties(
    features: list[tuple[str, float, int]], labels: list[tuple[str, float]], ttl_s: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = write_features(Path(folder), features)
        joined = join(table, label_frame(labels), ttl_s).to_arrow()
    assert joined["user_id"].to_pylist() == [user for user, _ in labels]
    assert joined["user_id_x"].to_pylist() == [brute_force(features, label, ttl_s) for label in labels]


def test_a_row_at_the_label_s_own_second_does_not_leak(tmp_path: Path) -> None:
    table = write_features(tmp_path, [("a", 5, 1), ("a", 6, 2)])
    joined = join(table, label_frame([("a", 5), ("a", 5.000001), ("a", 6)])).to_arrow()
    assert joined["user_id_x"].to_pylist() == [None, 1, 1]


def test_no_row_is_lost_where_three_quarters_share_user_and_second(tmp_path: Path) -> None:
    labels = [("a", float(second)) for second in range(50) for _ in range(4)]
    table = write_features(tmp_path, [("a", float(second), second) for second in range(50)])
    joined = join(table, label_frame(labels)).to_arrow()
    assert joined["user_id_x"].to_pylist() == [None if second == 0 else second - 1 for _, second in labels]


@pytest.mark.parametrize(("fault", "received"), [("LIMIT 2", 2), ("CROSS JOIN range(2)", 6)])
def test_a_join_that_loses_or_multiplies_rows_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, received: int
) -> None:
    def faulty_sql(*arguments: Any) -> str:
        return f"SELECT * FROM ({point_in_time_sql(*arguments)}) {fault}"  # noqa: S608 - the test's own constants

    table, labels = write_features(tmp_path, [("a", 5, 1)]), label_frame([("a", 5), ("a", 6), ("b", 6)])
    assert join(table, labels).to_arrow().num_rows == 3
    monkeypatch.setattr(offline, "point_in_time_sql", faulty_sql)
    with pytest.raises(RowCountError, match=f"expected as many rows out as in, 3, received {received}"):
        join(table, labels).to_arrow()


def test_future_events_change_nothing(tmp_path: Path) -> None:
    past = [("a", float(second), second) for second in range(10)]
    labels = label_frame([("a", float(second)) for second in range(11)])
    without = join(write_features(tmp_path / "past", past), labels).to_arrow()
    future = [("a", float(second), 1000 + second) for second in range(10, 40)]
    planted = join(write_features(tmp_path / "all", past + future), labels).to_arrow()
    assert planted == without


def test_a_query_comes_out_in_the_order_of_its_ids_and_is_streamed(tmp_path: Path) -> None:
    table = write_features(tmp_path, [("a", float(second), second) for second in range(0, 1000, 3)])
    query = (
        "SELECT id * 7919 % 10007 AS example_id, 'a' AS user_id, "  # noqa: S608 - the test's own constants
        f"TIMESTAMPTZ '{ZERO.isoformat()}' + to_seconds(id % 1000) AS event_timestamp FROM range(10007) AS t(id)"
    )
    first, again = (join(table, query).to_arrow() for _ in range(2))
    assert first["example_id"].to_pylist() == list(range(10007))
    assert first == again
    with join(table, query).reader(batch_rows=2048) as reader:
        sizes = [batch.num_rows for batch in reader]
    assert sum(sizes) == 10007
    assert len(sizes) > 3


def test_label_times_without_a_zone_are_utc(tmp_path: Path) -> None:
    table = write_features(tmp_path, [("a", 5, 1)])
    labels = label_frame([("a", 5), ("a", 6)])
    labels["event_timestamp"] = labels["event_timestamp"].dt.tz_localize(None)
    assert join(table, labels).to_arrow()["user_id_x"].to_pylist() == [None, 1]


def test_two_rows_of_one_key_and_time_are_refused(tmp_path: Path) -> None:
    table = write_features(tmp_path, [("a", 5, 1), ("a", 5, 2)])
    with pytest.raises(RepeatedFeatureRowError, match=r"view view: expected one row .* received 2 for \['a'\]"):
        join(table, label_frame([("a", 6)])).to_arrow()


def test_missing_files_say_which_command_writes_them(tmp_path: Path) -> None:
    table = FeatureTable("view", str(tmp_path / "event_date=*" / "part-0.parquet"), ("user_id",), "event_time")
    with pytest.raises(FeatureTableMissingError, match="python -m pipelines features"):
        join(table, label_frame([("a", 6)])).to_arrow()


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (pd.DataFrame({"user_id": ["a"]}), "event_timestamp"),
        ("SELECT 'a' AS user_id, TIMESTAMP '1998-04-22' AS event_timestamp", "example_id"),
        (label_frame([("a", 6)]).assign(user_id_x=1), "names of features"),
    ],
)
def test_unusable_label_rows_are_refused(tmp_path: Path, labels: Any, fault: str) -> None:
    table = write_features(tmp_path, [("a", 5, 1)])
    with pytest.raises(EntityRowsError, match=fault):
        join(table, labels).to_arrow()


@settings(max_examples=40, deadline=None)
@given(features=logs, end=seconds)
def test_latest_rows_end_before_the_cutoff(features: list[tuple[str, float, int]], end: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = write_features(Path(folder), features)
        latest = StrictLatestJob(table, ["user_id_x"], at(-1), at(end), OPTIONS).to_arrow()
    expected = {user: brute_force(features, (user, end), 0) for user, second, _ in features if second < end}
    assert latest["user_id"].to_pylist() == sorted(expected)
    assert dict(zip(latest["user_id"].to_pylist(), latest["user_id_x"].to_pylist(), strict=True)) == expected


def test_a_busy_key_takes_about_as_long_as_many_quiet_ones(tmp_path: Path) -> None:
    """One key with n rows and n labels is what Feast's own join takes n² steps for: 16,000 need a minute there."""
    rows = 16_000
    table = write_features(tmp_path, [("a", float(second), second) for second in range(rows)])
    labels = label_frame([("a", float(second)) for second in range(rows)])
    start = datetime.now(UTC)
    joined = join(table, labels).to_arrow()
    assert joined["user_id_x"].to_pylist()[1:] == list(range(rows - 1))
    assert datetime.now(UTC) - start < timedelta(seconds=10)
