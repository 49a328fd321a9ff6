"""The offline store on Spark, for data that one machine's DuckDB is too small for. It keeps the same promises.

Features are joined strictly before the label's time; as many rows leave the join as entered it, in the order of their
ids; of a key and a time there is one row, or the job fails; the latest rows of an interval are those before its end.

Spark has no as-of join. Labels and feature rows are put in one order of (key, time), labels first where times are
equal, and each label takes the last feature row above it: one shuffle and one sort, linear for a key of any size. What
passes between Spark and this process are Parquet files in a passing folder of the state folder, which the executors
see, too; only the result's batches reach the driver.
"""

from __future__ import annotations

import dataclasses
import glob
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel
from pydantic import Field
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows
from pyspark.sql.window import Window

from pipelines.feast_store.errors import FeatureTableMissingError, RepeatedFeatureRowError
from pipelines.feast_store.retrieval_jobs import (
    BATCH_ROWS,
    LABEL_TIME,
    ROW,
    ROW_ID,
    ArrowJob,
    check_label_columns,
    checked_result,
    label_rows,
    microseconds_since_1970,
    planned_joins,
)
from pipelines.feast_store.tables import FeatureTable
from pipelines.io.duck import duckdb_session
from pipelines.io.scratch import scratch_folder
from pipelines.io.spark import read_files, session_at_hand
from pipelines.io.sql_text import identifier, literal, parquet
from pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    import pandas as pd
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig
    from pyspark.sql import Column, DataFrame

    from pipelines.feast_store.point_in_time import AsOfJoin

_SCRATCH = ".feast-spark"
_TIME, _KIND, _LABEL, _FEATURES, _KEY = "__time", "__kind", "__label", "__features", "__key"
_IS_LABEL, _IS_FEATURE = 0, 1
"""In the order of one time: a feature row at a label's own time comes after it, and is not taken."""
_REPEATED = "kestrel: repeated feature row"


class StrictSparkOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # feast ships no types
    """Configuration of `StrictSparkOfflineStore`; Feast finds it by its name."""

    type: str = "pipelines.feast_store.offline_spark.StrictSparkOfflineStore"
    """The store's class."""
    settings: Settings = Field(default_factory=load_settings)
    """Where Spark runs, and the state folder that driver and executors share."""
    memory_limit: str = "2GB"
    """What this process may hold in memory while it hands results on, as DuckDB writes it."""


class StrictSparkOfflineStore(OfflineStore):  # type: ignore[misc]  # feast ships no types
    """Spark over Parquet, with a strict, linear point-in-time join."""

    supports_filter_by_created_timestamp = False

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 - Feast's signature
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        **unsupported: object,
    ) -> SparkRetrievalJob:
        """Plan the join of features to label rows: `StrictDuckDBOfflineStore.get_historical_features`.

        A query for label rows is DuckDB's in both stores: it runs in this process and is handed to Spark as a file.
        """
        labels = label_rows(entity_df, unsupported)
        joins = planned_joins(config, feature_views, feature_refs, full_feature_names=full_feature_names)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return SparkRetrievalJob(
            labels, joins, feature_refs, on_demand, config.offline_store, full_feature_names=full_feature_names
        )

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0917 - Feast's signature
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,  # noqa: ARG004 - Feast's signature; the source names it, too
        created_timestamp_column: str | None,  # noqa: ARG004 - Feast's signature; one row per key and time is checked
        start_date: datetime,
        end_date: datetime,
    ) -> SparkLatestJob:
        """Plan the reading of each key's latest row of [start_date, end_date): the end is exclusive."""
        table = FeatureTable.of_source(data_source, data_source.name, tuple(join_key_columns), str(config.repo_path))
        return SparkLatestJob(table, feature_name_columns, start_date, end_date, config.offline_store)


class SparkRetrievalJob(ArrowJob):
    """A planned point-in-time join."""

    def __init__(
        self,
        entity_rows: pd.DataFrame | str,
        joins: list[AsOfJoin],
        feature_refs: list[str],
        on_demand: list[OnDemandFeatureView],
        options: StrictSparkOfflineStoreConfig,
        *,
        full_feature_names: bool,
    ) -> None:
        super().__init__(feature_refs, on_demand, full_feature_names=full_feature_names)
        self._entity_rows = entity_rows
        self._joins = joins
        self._options = options

    @contextmanager
    def reader(self, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatchReader]:
        """Stream the result in the rows' order; errors are those of `StrictRetrievalJob.reader`."""
        with scratch_folder(self._options.settings.state / _SCRATCH) as scratch:
            order, rows = self._write_labels(scratch / "labels.parquet")
            with session_at_hand(self._options.settings, "feast") as spark:
                joined = read_files(spark, [scratch / "labels.parquet"])
                for join in self._joins:
                    joined = _as_of(spark, joined, join)
                with _explained(self._joins):
                    joined.write.parquet(str(scratch / "joined"))
            with _ordered(scratch / "joined", [order], self._options.memory_limit, batch_rows) as stream:
                yield checked_result(stream, order, rows)

    def _write_labels(self, path: Path) -> tuple[str, int]:
        """Write the label rows where Spark reads them; return the column that orders them, and their number."""
        if isinstance(self._entity_rows, str):
            with duckdb_session(self._options.memory_limit) as connection:
                copy = f"COPY ({self._entity_rows}) TO {literal(str(path))} (FORMAT parquet)"
                connection.execute(copy)
            order = ROW_ID
        else:
            frame = pa.Table.from_pandas(self._entity_rows, preserve_index=False)
            frame = frame.append_column(ROW, pa.array(range(frame.num_rows), pa.int64()))
            # Pandas has nanoseconds, which Spark does not read; DuckDB's store cuts them off, too.
            pq.write_table(frame, path, coerce_timestamps="us", allow_truncated_timestamps=True)
            order = ROW
        written = pq.ParquetFile(path)
        check_label_columns(set(written.schema_arrow.names), order, self._joins)
        return order, written.metadata.num_rows


class SparkLatestJob(ArrowJob):
    """A planned reading of each key's latest row before a moment."""

    def __init__(
        self,
        table: FeatureTable,
        features: list[str],
        start: datetime,
        end: datetime,
        options: StrictSparkOfflineStoreConfig,
    ) -> None:
        super().__init__()
        self._table = table
        self._features = features
        self._options = options
        self._start_us = microseconds_since_1970(start)
        self._end_us = microseconds_since_1970(end)

    @contextmanager
    def reader(self, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatchReader]:
        """Stream the result in the order of the keys; errors are those of `StrictLatestJob.reader`."""
        with scratch_folder(self._options.settings.state / _SCRATCH) as scratch:
            with session_at_hand(self._options.settings, "feast") as spark:
                rows = _read(spark, self._table).select(*self._table.keys, *self._features, self._table.time)
                time = F.unix_micros(F.col(self._table.time).cast("timestamp"))
                rows = rows.where((time >= F.lit(self._start_us)) & (time < F.lit(self._end_us)))
                latest = rows.groupBy(*self._table.keys).agg(F.max(self._table.time).alias(self._table.time))
                found = rows.join(latest, on=[*self._table.keys, self._table.time], how="left_semi")
                found.write.parquet(str(scratch / "latest"))
            pattern = f"{glob.escape(str(scratch / 'latest'))}/part-*.parquet"
            written = dataclasses.replace(self._table, pattern=pattern)
            with duckdb_session(self._options.memory_limit) as connection:
                written.check(connection)
            keys = list(self._table.keys)
            with _ordered(scratch / "latest", keys, self._options.memory_limit, batch_rows) as stream:
                yield stream


@contextmanager
def _ordered(
    folder: Path, columns: Sequence[str], memory_limit: str, batch_rows: int
) -> Iterator[pa.RecordBatchReader]:
    """Stream what Spark wrote to a folder, in order. DuckDB sorts on the disk; Spark would compute everything twice."""
    order = ", ".join(identifier(column) for column in columns)
    query = f"SELECT * FROM {parquet(folder.glob('part-*.parquet'))} ORDER BY {order}"  # noqa: S608 - quoted
    with duckdb_session(memory_limit) as connection:
        yield connection.sql(query).to_arrow_reader(batch_rows)


def _read(spark: SparkSession, table: FeatureTable) -> DataFrame:
    files = table.files
    if not files:
        raise FeatureTableMissingError(table.no_files)
    return read_files(spark, files)


def _as_of(spark: SparkSession, labels: DataFrame, join: AsOfJoin) -> DataFrame:
    """Return the label rows with one table's features: the latest row strictly before each label's time."""
    table, keys = join.table, list(join.key_map)
    label_keys = [F.col(join.key_map[key]).alias(f"{_KEY}_{key}") for key in keys]
    moment = F.unix_micros(F.col(LABEL_TIME).cast("timestamp"))
    feature_time = F.unix_micros(F.col(table.time).cast("timestamp"))
    features = _read(spark, table).select(
        *(F.col(key).alias(f"{_KEY}_{key}") for key in keys),
        feature_time.alias(_TIME),
        F.lit(_IS_FEATURE).alias(_KIND),
        F.struct(feature_time.alias(_TIME), *join.features).alias(_FEATURES),
    )
    rows = labels.select(
        *label_keys, moment.alias(_TIME), F.lit(_IS_LABEL).alias(_KIND), F.struct(*labels.columns).alias(_LABEL)
    )
    order = Window.partitionBy(*(f"{_KEY}_{key}" for key in keys)).orderBy(_TIME, _KIND)
    above = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    before = order.rowsBetween(-1, -1)
    both = rows.unionByName(features, allowMissingColumns=True).select(
        _LABEL,
        _TIME,
        _KIND,
        F.last(_FEATURES, ignorenulls=True).over(above).alias(_FEATURES),
        (
            (F.col(_KIND) == F.lit(_IS_FEATURE))
            & (F.last(_KIND).over(before) == F.lit(_IS_FEATURE))
            & (F.last(_TIME).over(before) == F.col(_TIME))
        ).alias("__repeated"),
    )
    refused = F.raise_error(F.concat(F.lit(f"{_REPEATED} in {table.view} at "), F.col(_TIME).cast("string")))
    chosen = F.when(F.col("__repeated"), refused.cast("boolean")).otherwise(F.col(_KIND) == F.lit(_IS_LABEL))
    return both.where(chosen).select(f"{_LABEL}.*", *(_selected(join, *pair) for pair in join.features.items()))


def _selected(join: AsOfJoin, column: str, name: str) -> Column:
    value = F.col(f"{_FEATURES}.{column}")
    if join.ttl_us:
        value = F.when(F.col(_TIME) - F.col(f"{_FEATURES}.{_TIME}") <= F.lit(join.ttl_us), value)
    return value.alias(name)


@contextmanager
def _explained(joins: Sequence[AsOfJoin]) -> Iterator[None]:
    """Turn the refusal of a repeated row, raised on an executor, into the store's own error."""
    try:
        yield
    except PySparkException as error:
        tables = {join.table.view: join.table for join in joins}
        named = next((view for view in tables if f"{_REPEATED} in {view} at " in str(error)), None)
        if named is None:
            raise
        time = str(error).partition(f"{_REPEATED} in {named} at ")[2].split()[0]
        msg = tables[named].repeated_row(f"more than one at {time} microseconds since 1970")
        raise RepeatedFeatureRowError(msg) from error
