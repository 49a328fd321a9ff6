"""The offline store that Feast loads by the name of its class: its DuckDB store with two queries of our own.

What differs from Feast's: features are joined strictly before the label's time, by a join that is linear; the latest
rows of an interval are those before its end, which is exclusive; one row per key and time is checked, not hoped for;
rows come out in the order of an id, as many as went in.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView

from pipelines.feast_store.errors import EntityRowsError, RowCountError
from pipelines.feast_store.point_in_time import AsOfJoin, latest_sql, point_in_time_sql
from pipelines.feast_store.tables import FeatureTable, duckdb_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb
    import pandas as pd
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig

ROW_ID = "example_id"
"""The column of the label rows that says their order. A query must have it; a data frame's own order stands in."""
LABEL_TIME = "event_timestamp"
"""The column of the label rows with the moment as of which features are wanted (Feast's standard name)."""

_BATCH_ROWS = 65_536
_ROW = "__row"


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
        if entity_df is None or any(unsupported.values()):
            asked = {name: value for name, value in unsupported.items() if value}
            msg = f"point-in-time join: expected label rows and no other option, received {entity_df=}, {asked}"
            raise EntityRowsError(msg)
        joins = [_join(config, view, feature_refs, full_feature_names=full_feature_names) for view in feature_views]
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return StrictRetrievalJob(
            entity_df, joins, feature_refs, on_demand, config.offline_store, full_feature_names=full_feature_names
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


def _join(config: RepoConfig, view: FeatureView, refs: Sequence[str], *, full_feature_names: bool) -> AsOfJoin:
    key_map = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    table = FeatureTable.of_source(view.batch_source, view.name, tuple(key_map), str(config.repo_path))
    prefix = f"{view.projection.name_to_use()}:"
    wanted = [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]
    name = view.projection.name_alias or view.name
    features = {feature: f"{name}__{feature}" if full_feature_names else feature for feature in wanted}
    ttl_us = int(view.ttl.total_seconds() * 1_000_000) if view.ttl else 0
    return AsOfJoin(table, key_map, features, ttl_us)


class _ArrowJob(RetrievalJob):  # type: ignore[misc]  # feast ships no types
    """What both jobs share: Arrow is the result, everything else is made from it."""

    @property
    def full_feature_names(self) -> bool:
        """Whether the result's columns are named `view__feature`."""
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views that Feast computes from the result."""
        return []

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame


class StrictRetrievalJob(_ArrowJob):
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
        super().__init__()
        self._entity_rows = entity_rows
        self._joins = joins
        self._feature_refs = feature_refs
        self._on_demand = on_demand
        self._options = options
        self._full_feature_names = full_feature_names

    @property
    def full_feature_names(self) -> bool:
        """Whether the result's columns are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views that Feast computes from the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for."""
        return RetrievalMetadata(features=self._feature_refs, keys=[])

    @contextmanager
    def reader(self, batch_rows: int = _BATCH_ROWS) -> Iterator[pa.RecordBatchReader]:
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
            hidden = [_ROW] if order == _ROW else []
            schema = pa.schema([field for field in stream.schema if field.name not in hidden])
            yield pa.RecordBatchReader.from_batches(schema, _counted(stream, schema, rows))

    def to_sql(self) -> str:
        """Return the query, for a person to look at."""
        labels = f"({self._entity_rows})" if isinstance(self._entity_rows, str) else "entity_rows"
        return point_in_time_sql(labels, LABEL_TIME, self._joins, ROW_ID)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        with self.reader() as reader:
            return reader.read_all()

    def _register(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, str]:
        """Return the label rows as a table expression, and the column that orders them."""
        if isinstance(self._entity_rows, str):
            labels, order = f"({self._entity_rows})", ROW_ID
        else:
            frame = pa.Table.from_pandas(self._entity_rows, preserve_index=False)
            connection.register("entity_rows", frame.append_column(_ROW, pa.array(range(frame.num_rows), pa.int64())))
            labels, order = "entity_rows", _ROW
        columns = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {labels}").fetchall()}  # noqa: S608 - Feast's caller writes this query
        needed = {order, LABEL_TIME, *(label for join in self._joins for label in join.key_map.values())}
        if missing := sorted(needed - columns):
            msg = f"label rows: columns {missing} are missing, received {sorted(columns)}"
            raise EntityRowsError(msg)
        features = {name for join in self._joins for name in join.features.values()}
        if repeated := sorted(features & columns):
            msg = f"label rows: columns {repeated} have the names of features; rename them, or set full_feature_names"
            raise EntityRowsError(msg)
        return labels, order


class StrictLatestJob(_ArrowJob):
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
        self._start_us = _microseconds(start)
        self._end_us = _microseconds(end)
        self._options = options

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        with duckdb_session(self._options.memory_limit) as connection:
            self._table.check(connection, before_us=self._end_us)
            query = latest_sql(self._table, self._features, self._start_us, self._end_us)
            return connection.sql(query).to_arrow_table()


def _count(connection: duckdb.DuckDBPyConnection, labels: str) -> int:
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {labels}").fetchall()  # noqa: S608 - Feast's caller writes this query
    return int(rows)


def _counted(stream: pa.RecordBatchReader, schema: pa.Schema, expected: int) -> Iterator[pa.RecordBatch]:
    received = 0
    for batch in stream:
        received += batch.num_rows
        yield batch.select(schema.names)
    if received != expected:
        msg = f"point-in-time join: expected as many rows out as in, {expected}, received {received}"
        raise RowCountError(msg)


def _microseconds(moment: datetime) -> int:
    """Return microseconds since 1970; a moment without a zone is UTC, as Feast means it."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
