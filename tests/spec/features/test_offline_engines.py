"""The offline store keeps its promises on Spark as on DuckDB: on a log full of ties both give the same rows."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.feast_store.errors import EntityRowsError, FeatureTableMissingError, RepeatedFeatureRowError
from pipelines.feast_store.offline import StrictDuckDBOfflineStoreConfig, StrictLatestJob, StrictRetrievalJob
from pipelines.feast_store.point_in_time import AsOfJoin
from pipelines.feast_store.tables import FeatureTable
from pipelines.settings import OfflineEngine, Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

ZERO = datetime(1998, 4, 22, tzinfo=UTC)
ENGINES = list(OfflineEngine)
Row = tuple[str, int, int]


def at(second: float) -> datetime:
    return ZERO + timedelta(seconds=second)


def write_features(folder: Path, name: str, key: str, rows: list[Row]) -> FeatureTable:
    """Write (key, second, value) rows as two partitions: a number and a list for each."""
    for part, chosen in enumerate((rows[::2], rows[1::2])):
        target = folder / name / f"event_date=1998-04-{22 + part}"
        target.mkdir(parents=True, exist_ok=True)
        columns = {
            key: pa.array([row[0] for row in chosen], pa.string()),
            "event_time": pa.array([at(row[1]) for row in chosen], pa.timestamp("us", tz="UTC")),
            f"{name}_x": pa.array([row[2] for row in chosen], pa.int64()),
            f"{name}_all": pa.array([[str(row[2]), ""] for row in chosen], pa.list_(pa.string())),
        }
        pq.write_table(pa.table(columns), target / "part-0.parquet")
    return FeatureTable(name, str(folder / name / "event_date=*" / "part-0.parquet"), (key,), "event_time")


def joined(
    engine: OfflineEngine, state: Path, joins: list[AsOfJoin], labels: pd.DataFrame | str, batch_rows: int = 1000
) -> pa.Table:
    names = [feature for join in joins for feature in join.features]
    if engine is OfflineEngine.DUCKDB:
        job: Any = StrictRetrievalJob(
            labels, joins, names, [], StrictDuckDBOfflineStoreConfig(), full_feature_names=False
        )
    else:
        from pipelines.feast_store.offline_spark import SparkRetrievalJob, StrictSparkOfflineStoreConfig

        options = StrictSparkOfflineStoreConfig(settings=Settings(state=state))
        job = SparkRetrievalJob(labels, joins, names, [], options, full_feature_names=False)
    with job.reader(batch_rows) as reader:
        return reader.read_all()


def latest(engine: OfflineEngine, state: Path, table: FeatureTable, end: float) -> pa.Table:
    features = [f"{table.view}_x", f"{table.view}_all"]
    if engine is OfflineEngine.DUCKDB:
        job: Any = StrictLatestJob(table, features, at(-1), at(end), StrictDuckDBOfflineStoreConfig())
    else:
        from pipelines.feast_store.offline_spark import SparkLatestJob, StrictSparkOfflineStoreConfig

        options = StrictSparkOfflineStoreConfig(settings=Settings(state=state))
        job = SparkLatestJob(table, features, at(-1), at(end), options)
    return job.to_arrow()


def plan(table: FeatureTable, ttl_s: int = 0) -> AsOfJoin:
    (key,) = table.keys
    names = (f"{table.view}_x", f"{table.view}_all")
    return AsOfJoin(table, {key: key}, {name: name for name in names}, ttl_s * 1_000_000)


def tied_log(seed: int) -> tuple[list[Row], list[Row], pd.DataFrame]:
    """Return user rows, item rows and labels in which most seconds hold several of one key."""
    dice = random.Random(seed)
    users, items = (
        [(f"{kind}{n}", second, dice.randrange(99)) for n in range(5) for second in dice.sample(range(12), 8)]
        for kind in "ui"
    )
    dice.shuffle(users)
    labels = pd.DataFrame(
        {
            "user_id": [f"u{dice.randrange(6)}" for _ in range(300)],
            "item_id": [f"i{dice.randrange(6)}" for _ in range(300)],
            "event_timestamp": pd.to_datetime([at(dice.randrange(14)) for _ in range(300)], utc=True).as_unit("us"),
            "note": [None if dice.random() < 0.2 else "é'" for _ in range(300)],
        }
    )
    return users, items, labels


@pytest.mark.parametrize("ttl_s", [0, 2])
def test_both_engines_join_the_same_rows_in_the_same_order(spark: SparkSession, tmp_path: Path, ttl_s: int) -> None:
    users, items, labels = tied_log(ttl_s)
    user_table = write_features(tmp_path, "user", "user_id", users)
    item_table = write_features(tmp_path, "item", "item_id", items)
    joins = [plan(user_table, ttl_s), plan(item_table)]
    duckdb, by_spark = (joined(engine, tmp_path, joins, labels).to_pylist() for engine in ENGINES)
    assert len(duckdb) == len(labels)
    assert by_spark == duckdb
    known = {(user, second): value for user, second, value in users}
    for row, label in zip(duckdb, labels.itertuples(), strict=True):
        second = round((label.event_timestamp - ZERO).total_seconds())
        times = [time for user, time in known if user == label.user_id and time < second]
        recent = bool(times) and (not ttl_s or second - max(times) <= ttl_s)
        assert row["user_x"] == (known[label.user_id, max(times)] if recent else None)


_MOMENTS = st.tuples(st.sampled_from("abc"), st.integers(0, 12))


@given(facts=st.sets(_MOMENTS, min_size=1), labels=st.lists(_MOMENTS, min_size=1, max_size=40), ttl_s=st.integers(0, 4))
@settings(max_examples=10, deadline=None)
def test_both_engines_find_what_brute_force_finds(
    shared_session: Any, facts: set[tuple[str, int]], labels: list[tuple[str, int]], ttl_s: int
) -> None:
    shared_session.live()
    asked = pd.DataFrame({"user_id": [user for user, _ in labels], "event_timestamp": [at(time) for _, time in labels]})
    asked["event_timestamp"] = asked["event_timestamp"].dt.as_unit("us")
    known = {(user, time): number for number, (user, time) in enumerate(sorted(facts))}
    expected = []
    for user, moment in labels:
        earlier = [time for own, time in known if own == user and time < moment]
        fresh = earlier and (not ttl_s or moment - max(earlier) <= ttl_s)
        expected.append(known[user, max(earlier)] if fresh else None)
    with tempfile.TemporaryDirectory() as folder:
        rows = [(user, time, number) for (user, time), number in known.items()]
        table = write_features(Path(folder), "user", "user_id", rows)
        for engine in ENGINES:
            found = joined(engine, Path(folder), [plan(table, ttl_s)], asked)
            assert found.column("user_x").to_pylist() == expected, engine


@pytest.mark.parametrize("engine", ENGINES)
def test_a_key_with_very_many_events_and_labels_is_joined(
    engine: OfflineEngine, spark: SparkSession, tmp_path: Path
) -> None:
    """Comparing every label with every event of its key would take ten thousand million comparisons."""
    count = 100_000
    times = np.random.default_rng(5).permutation(count)
    table = write_features(tmp_path, "item", "item_id", [("i", 2 * time, time) for time in times.tolist()])
    moments = np.random.default_rng(6).integers(0, 2 * count, count)
    stamps = (pd.Timestamp(ZERO) + pd.to_timedelta(moments, unit="s")).as_unit("us")
    found = joined(engine, tmp_path, [plan(table)], pd.DataFrame({"item_id": "i", "event_timestamp": stamps}), 1 << 16)
    last = (moments - 1) // 2  # of the times 0, 2, 4, ... before a moment; before all of them: -1
    assert found.column("item_x").to_pylist() == [None if time < 0 else time for time in last.tolist()]


def test_both_engines_take_a_query_and_keep_its_ids_order(spark: SparkSession, tmp_path: Path) -> None:
    table = write_features(tmp_path, "user", "user_id", [("a", second, second) for second in range(0, 100, 3)])
    query = (
        "SELECT id * 7919 % 1009 AS example_id, 'a' AS user_id, "  # noqa: S608 - the test's own constants
        f"TIMESTAMP '{ZERO:%Y-%m-%d}' + to_seconds(id % 100) AS event_timestamp FROM range(1009) AS t(id)"
    )
    duckdb, by_spark = (joined(engine, tmp_path, [plan(table)], query) for engine in ENGINES)
    assert by_spark["example_id"].to_pylist() == list(range(1009))
    assert by_spark.select(["user_x", "user_all"]).to_pylist() == duckdb.select(["user_x", "user_all"]).to_pylist()
    assert not list((tmp_path / ".feast-spark").iterdir())


@pytest.mark.parametrize("end", [0, 5, 30])
def test_both_engines_read_the_same_latest_rows(spark: SparkSession, tmp_path: Path, end: int) -> None:
    users, _, _ = tied_log(3)
    table = write_features(tmp_path, "user", "user_id", users)
    duckdb, by_spark = (latest(engine, tmp_path, table, end).to_pylist() for engine in ENGINES)
    assert by_spark == duckdb
    assert {row["user_id"] for row in duckdb} == {user for user, second, _ in users if second < end}


@pytest.mark.parametrize("engine", ENGINES)
def test_repeated_rows_missing_files_and_unusable_labels_are_refused_by_both(
    engine: OfflineEngine, spark: SparkSession, tmp_path: Path
) -> None:
    labels = pd.DataFrame({"user_id": ["a"], "event_timestamp": [pd.Timestamp(at(9))]})
    repeated = write_features(tmp_path, "user", "user_id", [("a", 5, 1), ("b", 5, 1), ("b", 4, 0), ("a", 5, 2)])
    with pytest.raises(RepeatedFeatureRowError, match=r"view user: expected one row .* run the features job again"):
        joined(engine, tmp_path, [plan(repeated)], labels)
    with pytest.raises(RepeatedFeatureRowError, match="view user: expected one row"):
        latest(engine, tmp_path, repeated, 9)
    absent = replace(repeated, pattern=str(tmp_path / "nothing" / "*.parquet"))
    with pytest.raises(FeatureTableMissingError, match="python -m pipelines features"):
        joined(engine, tmp_path, [plan(absent)], labels)
    with pytest.raises(EntityRowsError, match="event_timestamp"):
        joined(engine, tmp_path, [plan(repeated)], labels[["user_id"]])
    with pytest.raises(EntityRowsError, match="names of features"):
        joined(engine, tmp_path, [plan(repeated)], labels.assign(user_x=1))
