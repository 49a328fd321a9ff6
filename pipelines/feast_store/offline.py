"""The offline store that Feast loads by the name of its class: its DuckDB store with two queries of our own.

What differs from Feast's: features are joined strictly before the label's time, by a join that is linear; the latest
rows of an interval are those before its end, which is exclusive; one row per key and time is checked, not hoped for;
rows come out in the order of an id, as many as went in.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.on_demand_feature_view import OnDemandFeatureView

from pipelines.feast_store.point_in_time import AsOfJoin, latest_sql, point_in_time_sql
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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import duckdb
    import pandas as pd
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig


class StrictDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]  # feast ships no types
    """Configuration of `StrictDuckDBOfflineStore`; Feast finds it by its name."""

    type: str = "pipelines.feast_store.offline.StrictDuckDBOfflineStore"
    """The store's class."""
    memory_limit: str = "2GB"
    """What a query may hold in memory before it spills to the disk, as DuckDB writes it."""


class StrictDuckDBOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]  # feast ships no types
    """DuckDB over Parquet, with a strict, linear point-in-time join."""

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
    ) -> StrictRetrievalJob:
        """Plan the join of features to label rows; nothing is read before the job's result is asked for.

        Args:
            config: Feast's configuration.
            feature_views: The views to join, projections applied.
            feature_refs: `view:feature`, what is wanted of them.
            entity_df: The label rows: a data frame, or a DuckDB query (which is streamed, and needs `example_id`).
                The column `event_timestamp` is the moment as of which features are wanted.
            registry: Feast's registry.
            project: Feast's project.
            full_feature_names: Name the columns `view__feature`.
            unsupported: Whatever else a newer Feast asks for.

        Raises:
            EntityRowsError: No label rows, or ways of retrieval that this store does not have.
        """
        labels = label_rows(entity_df, unsupported)
        joins = planned_joins(config, feature_views, feature_refs, full_feature_names=full_feature_names)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return StrictRetrievalJob(
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
    ) -> StrictLatestJob:
        """Plan the reading of each key's latest row of [start_date, end_date): the end is exclusive."""
        table = FeatureTable.of_source(data_source, data_source.name, tuple(join_key_columns), str(config.repo_path))
        return StrictLatestJob(table, feature_name_columns, start_date, end_date, config.offline_store)


class StrictRetrievalJob(ArrowJob):
    """A planned point-in-time join."""

    def __init__(
        self,
        entity_rows: pd.DataFrame | str,
        joins: list[AsOfJoin],
        feature_refs: list[str],
        on_demand: list[OnDemandFeatureView],
        options: StrictDuckDBOfflineStoreConfig,
        *,
        full_feature_names: bool,
    ) -> None:
        super().__init__(feature_refs, on_demand, full_feature_names=full_feature_names)
        self._entity_rows = entity_rows
        self._joins = joins
        self._options = options

    @contextmanager
    def reader(self, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatchReader]:
        """Stream the result in the rows' order; memory stays within the store's `memory_limit`.

        Raises:
            EntityRowsError: The label rows lack a column, or have one of a feature's name.
            FeatureTableMissingError: A view has no files.
            RepeatedFeatureRowError: A view has two rows for a key and a time.
            RowCountError: While reading: another number of rows came out than went in.
        """
        with duckdb_session(self._options.memory_limit) as connection:
            labels, order = self._register(connection)
            for join in self._joins:
                join.table.check(connection)
            query = point_in_time_sql(labels, LABEL_TIME, self._joins, order)
            rows = _count(connection, labels)
            stream = connection.sql(query).to_arrow_reader(batch_rows)
            yield checked_result(stream, order, rows)

    def to_sql(self) -> str:
        """Return the query, for a person to look at."""
        labels = f"({self._entity_rows})" if isinstance(self._entity_rows, str) else "entity_rows"
        return point_in_time_sql(labels, LABEL_TIME, self._joins, ROW_ID)

    def _register(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, str]:
        """Return the label rows as a table expression, and the column that orders them."""
        if isinstance(self._entity_rows, str):
            labels, order = f"({self._entity_rows})", ROW_ID
        else:
            frame = pa.Table.from_pandas(self._entity_rows, preserve_index=False)
            connection.register("entity_rows", frame.append_column(ROW, pa.array(range(frame.num_rows), pa.int64())))
            labels, order = "entity_rows", ROW
        columns = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {labels}").fetchall()}  # noqa: S608 - Feast's caller writes this query
        check_label_columns(columns, order, self._joins)
        return labels, order


class StrictLatestJob(ArrowJob):
    """A planned reading of each key's latest row before a moment."""

    def __init__(
        self,
        table: FeatureTable,
        features: list[str],
        start: datetime,
        end: datetime,
        options: StrictDuckDBOfflineStoreConfig,
    ) -> None:
        super().__init__()
        self._table = table
        self._features = features
        self._start_us = microseconds_since_1970(start)
        self._end_us = microseconds_since_1970(end)
        self._options = options

    @contextmanager
    def reader(self, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatchReader]:
        """Stream the result in the order of the keys.

        Raises:
            FeatureTableMissingError: The view has no files.
            RepeatedFeatureRowError: It has two rows for a key and a time.
        """
        with duckdb_session(self._options.memory_limit) as connection:
            self._table.check(connection, before_us=self._end_us)
            query = latest_sql(self._table, self._features, self._start_us, self._end_us)
            yield connection.sql(query).to_arrow_reader(batch_rows)


def _count(connection: duckdb.DuckDBPyConnection, labels: str) -> int:
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {labels}").fetchall()  # noqa: S608 - Feast's caller writes this query
    return int(rows)
