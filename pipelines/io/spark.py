"""The Spark session, and contract → StructType."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from pyspark.sql.types import (
    ArrayType,
    DataType,
    FloatType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.places import REPOSITORY
from pipelines.errors import JobError
from pipelines.io.class_archive import class_archive
from pipelines.io.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pyspark.sql import DataFrame

    from feature_repo.contracts.datasets import Dataset
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings

_TYPES: dict[Dtype, DataType] = {
    Dtype.STRING: StringType(),
    Dtype.INT64: LongType(),
    Dtype.FLOAT32: FloatType(),
    Dtype.TIMESTAMP: TimestampType(),
}
_LOCAL_SHUFFLE_PARTITIONS = 4
_READS_PATTERNS = "__globPaths__"
"""Spark's own option (`DataSource.GLOB_PATHS_KEY`). Escaped patterns would do, but for a colon in the same path."""
_JAVA_OPTIONS = "-XX:+UseParallelGC -XX:-DontCompileHugeMethods"
"""Throughput counts, not pauses; and the methods that Spark generates for many columns must be compiled, too."""
_JAVA_OPTIONS_OF_FEW_ROWS = f"{_JAVA_OPTIONS} -XX:TieredStopAtLevel=1"
"""Java's thorough compiler works as long on what runs once as on what runs for an hour: here its quick one does."""
_FEW_ROWS = 400_000
"""Without the thorough one features of 16,000 events take 35 s of processor time less, of 965,000 some 45 s more."""
_DRIVER_JAVA_OPTIONS = "spark.driver.extraJavaOptions"


def spark_type(column: Column) -> DataType:
    """Return the Spark type of a column."""
    scalar = _TYPES[column.dtype]
    return ArrayType(scalar, containsNull=False) if column.length else scalar


def spark_schema(dataset: Dataset) -> StructType:
    """Return the schema of a dataset: its columns in their order."""
    return StructType([StructField(column.name, spark_type(column), column.nullable) for column in dataset.columns])


def read_snapshot(spark: SparkSession, snapshot: Snapshot) -> DataFrame:
    """Read the files of a snapshot, and no others, with the schema of its dataset."""
    schema = spark_schema(snapshot.dataset)
    if not snapshot.partitions:
        return spark.createDataFrame([], schema)
    return read_files(spark, snapshot.files, schema)


def read_files(spark: SparkSession, files: Iterable[Path], schema: StructType | None = None) -> DataFrame:
    """Read Parquet files, or folders that Spark wrote, at least one; without `schema` as the first of them has it.

    A path is a path: what looks like a pattern in it finds nothing else, and a folder `rating=1` is no column.
    """
    reader = spark.read.option(_READS_PATTERNS, value=False).option("recursiveFileLookup", value=True)
    reader = reader if schema is None else reader.schema(schema)
    return reader.parquet(*map(str, files))


@contextmanager
def spark_session(settings: Settings, name: str, *, rows: int | None = None) -> Iterator[SparkSession]:
    """Give a session for one job, and stop it.

    Args:
        settings: Where Spark runs, and how.
        name: What it is called where Spark shows it.
        rows: How many the job reads, where it knows.

    Raises:
        JobError: There is no Java to run it.
    """
    _provide_java(settings)
    logging.getLogger("py4j").setLevel(logging.WARNING)  # it tells of every connection, even after the log is closed
    os.environ.update(PYSPARK_PYTHON=sys.executable, PYSPARK_DRIVER_PYTHON=sys.executable)
    local = settings.spark_master.startswith("local")
    java_options = _JAVA_OPTIONS if rows is None or rows > _FEW_ROWS else _JAVA_OPTIONS_OF_FEW_ROWS
    with (
        scratch_folder() as scratch,
        class_archive(settings.java_archives) as archive_options,
    ):
        options = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
            "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
            "spark.sql.files.openCostInBytes": str(64 << 10),
            "spark.log.level": "ERROR",
            "spark.sql.warehouse.dir": f"{scratch}/warehouse",
            "spark.driver.memory": settings.spark_driver_memory,
            _DRIVER_JAVA_OPTIONS: java_options,
            "spark.executor.extraJavaOptions": java_options,
            "spark.executorEnv.PYTHONPATH": str(REPOSITORY),  # tasks in Python import what the driver's job imports
        }
        if local:
            os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(scratch)}
            options |= {
                "spark.driver.host": "127.0.0.1",
                "spark.driver.bindAddress": "127.0.0.1",
                "spark.sql.shuffle.partitions": str(_LOCAL_SHUFFLE_PARTITIONS),
            }
        options |= settings.spark_options
        options[_DRIVER_JAVA_OPTIONS] = f"{options[_DRIVER_JAVA_OPTIONS]} {archive_options}".strip()
        builder = SparkSession.builder.master(settings.spark_master).appName(name)
        session = builder.config(map=options).getOrCreate()
        try:
            yield session
        finally:
            session.stop()


@contextmanager
def session_at_hand(settings: Settings, name: str, *, rows: int | None = None) -> Iterator[SparkSession]:
    """Give the session that is there, or one that ends with the block; arguments and errors as of `spark_session`."""
    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    with spark_session(settings, name, rows=rows) as session:
        yield session


def _provide_java(settings: Settings) -> None:
    """Point JAVA_HOME at the settings' Java; without one, Spark's launcher takes JAVA_HOME or the `java` on PATH."""
    if settings.java_home is not None:
        if not (settings.java_home / "bin" / "java").exists():
            msg = f"KESTREL_JAVA_HOME: expected bin/java below {settings.java_home}, found none; run `make setup`"
            raise JobError(msg)
        os.environ["JAVA_HOME"] = str(settings.java_home)
    elif "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        msg = "Spark needs Java 17 or later: no KESTREL_JAVA_HOME, no JAVA_HOME and no `java` on PATH; set one of them"
        raise JobError(msg)
