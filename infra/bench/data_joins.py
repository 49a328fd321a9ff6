"""The point-in-time join three ways: DuckDB's own, and the project's offline store on DuckDB and on Spark."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.bench.errors import BenchError
from pipelines.feast_store.offline import StrictDuckDBOfflineStoreConfig, StrictRetrievalJob
from pipelines.feast_store.point_in_time import AsOfJoin
from pipelines.feast_store.tables import FeatureTable
from pipelines.io.duck import duckdb_session
from pipelines.io.sql_text import literal, parquet, parquet_like

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from pipelines.settings import Settings

KEY, TIME = "item_id", "event_time"
FEATURES = ("events", "mean", "std")
LABELS, SNAPSHOTS = "labels.parquet", "snapshots"
_PARTS = 64
"""Files that the snapshots lie in, by time."""
_PRIME = 7919


def write_join_inputs(events: Path, folder: Path, labels: int, cutoff: datetime) -> tuple[int, int]:
    """Write labels and snapshots; return how many of each.

    A snapshot is the state of an item after each second that has an event of it: count, mean and standard deviation so
    far. Labels are events drawn evenly from the log, in the order of an id that has nothing to do with time.
    """
    window = "OVER (PARTITION BY item_id ORDER BY event_time, user_id ROWS UNBOUNDED PRECEDING)"
    states = f"""
        SELECT item_id, event_time, count(*) {window} AS events, sum(half) {window} AS s,
            sum(half * half) {window} AS ss,
            lead(event_time) OVER (PARTITION BY item_id ORDER BY event_time, user_id) AS following
        FROM (SELECT *, (value * 2)::INTEGER AS half FROM {parquet([events])})
        WHERE event_time < TIMESTAMPTZ '{cutoff.isoformat()}'
    """  # noqa: S608 - the benchmark's own paths
    figures = (
        "events, (s::DOUBLE / (2 * events))::FLOAT AS mean, "
        "(sqrt((events * ss - s * s)::DOUBLE) / (2 * events))::FLOAT AS std"
    )
    with duckdb_session("4GB") as connection:
        connection.execute(
            f"CREATE TEMP TABLE snapshots AS SELECT item_id, event_time, {figures}, "  # noqa: S608 - as above
            f"ntile({_PARTS}) OVER (ORDER BY event_time) AS part FROM ({states}) "
            "WHERE following IS DISTINCT FROM event_time"
        )
        for part in range(1, _PARTS + 1):
            path = folder / SNAPSHOTS / f"part={part}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            connection.execute(
                f"COPY (SELECT * EXCLUDE part FROM snapshots WHERE part = {part} ORDER BY event_time, item_id) "  # noqa: S608 - as above
                f"TO {literal(str(path))} (FORMAT parquet)"
            )
        ((snapshots, rows),) = connection.execute(
            f"SELECT (SELECT count(*) FROM snapshots), (SELECT count(*) FROM {parquet([events])})"  # noqa: S608 - as above
        ).fetchall()
        step = max(rows // labels, 1)
        connection.execute(
            f"COPY (SELECT row_number() OVER (ORDER BY hash(number)) AS example_id, user_id, item_id, "  # noqa: S608 - as above
            f"event_time AS event_timestamp FROM (SELECT *, file_row_number AS number FROM "
            f"{parquet([events], 'file_row_number = true')}) WHERE number % {step} = 0 LIMIT {labels}) "
            f"TO {literal(str(folder / LABELS))} (FORMAT parquet)"
        )
        ((count,),) = connection.execute(
            f"SELECT count(*) FROM {parquet([folder / LABELS])}"  # noqa: S608 - as above
        ).fetchall()
    return int(snapshots), int(count)


def bare_asof(folder: Path) -> dict[str, Any]:
    """Join with DuckDB's ASOF join and nothing else: no check, no order."""
    columns = ", ".join(f"snapshot.{name}" for name in FEATURES)
    query = (
        f"SELECT label.*, {columns} FROM {parquet([folder / LABELS])} AS label "  # noqa: S608 - the benchmark's own paths
        f"ASOF LEFT JOIN {parquet_like([_pattern(folder)])} AS snapshot "
        f"ON label.{KEY} = snapshot.{KEY} AND label.event_timestamp > snapshot.{TIME}"
    )
    with duckdb_session("8GB") as connection:
        return _digest(connection.sql(query).to_arrow_reader(65_536))


def duckdb_engine(folder: Path) -> dict[str, Any]:
    """Join with the project's default offline store."""
    options = StrictDuckDBOfflineStoreConfig()
    job = StrictRetrievalJob(_labels(folder), [_join(folder)], [], [], options, full_feature_names=False)
    with job.reader() as batches:
        return _digest(batches)


def spark_engine(folder: Path, settings: Settings) -> dict[str, Any]:
    """Join with the project's offline store on Spark; the session is there."""
    from pipelines.feast_store.offline_spark import (  # noqa: PLC0415 - Spark only where it is measured
        SparkRetrievalJob,
        StrictSparkOfflineStoreConfig,
    )

    options = StrictSparkOfflineStoreConfig(settings=settings)
    job = SparkRetrievalJob(_labels(folder), [_join(folder)], [], [], options, full_feature_names=False)
    with job.reader() as batches:
        return _digest(batches)


def check_equal(results: dict[str, dict[str, Any]]) -> None:
    """BenchError unless every way gave the same rows."""
    answers = {
        engine: {name: result[name] for name in ("rows", "unknown", "digest")} for engine, result in results.items()
    }
    if len({str(answer) for answer in answers.values()}) != 1:
        msg = f"point-in-time join: expected the same rows of every engine, received {answers}"
        raise BenchError(msg)


def _labels(folder: Path) -> str:
    return f"SELECT * FROM {parquet([folder / LABELS])}"  # noqa: S608 - the benchmark's own path


def _join(folder: Path) -> AsOfJoin:
    table = FeatureTable("bench", _pattern(folder), (KEY,), TIME)
    return AsOfJoin(table, {KEY: KEY}, {name: name for name in FEATURES}, 0)


def _pattern(folder: Path) -> str:
    return f"{glob.escape(str(folder / SNAPSHOTS))}/part=*/part-0.parquet"


def _digest(batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
    """Read the result to its end; return its rows, how many labels know nothing, and a sum in which every value counts.

    The sum is one of integers, so that no order of the rows changes it.
    """
    rows, unknown, digest = 0, 0, 0
    for batch in batches:
        rows += batch.num_rows
        events = batch.column("events")
        unknown += events.null_count
        weight = pa.array(batch.column("example_id").cast(pa.int64()).to_numpy() % _PRIME + 1)
        for name in ("mean", "std"):
            scaled = pc.cast(pc.round(pc.multiply(pc.fill_null(batch.column(name), 0.0), 1e6)), pa.int64())
            digest += pc.sum(pc.multiply(scaled, weight)).as_py() or 0
        digest += pc.sum(pc.multiply(pc.fill_null(events, 0), weight)).as_py() or 0
    return {"rows": rows, "unknown": unknown, "digest": digest}
