"""What the offline stores share: planned joins, and jobs whose result is a stream of Arrow batches."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from pipelines.feast_store.errors import EntityRowsError, RowCountError
from pipelines.feast_store.point_in_time import AsOfJoin
from pipelines.feast_store.tables import FeatureTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from feast import FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.repo_config import RepoConfig

ROW_ID = "example_id"
"""The column of the label rows that says their order. A query must have it; a data frame's own order stands in."""
LABEL_TIME = "event_timestamp"
"""The column of the label rows with the moment as of which features are wanted (Feast's standard name)."""
ROW = "__row"
"""The column that holds a data frame's own order."""
BATCH_ROWS = 65_536


class ArrowJob(RetrievalJob):  # type: ignore[misc]  # feast ships no types
    """A planned query. Arrow batches are its result, everything else is made from them."""

    def __init__(
        self,
        feature_refs: Sequence[str] = (),
        on_demand: Sequence[OnDemandFeatureView] = (),
        *,
        full_feature_names: bool = False,
    ) -> None:
        super().__init__()
        self._feature_refs = list(feature_refs)
        self._on_demand = list(on_demand)
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

    @abstractmethod
    @contextmanager
    def reader(self, batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatchReader]:
        """Run the query and stream its result."""
        raise NotImplementedError

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        with self.reader() as reader:
            return reader.read_all()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame


def label_rows(entity_df: pd.DataFrame | str | None, options: dict[str, object]) -> pd.DataFrame | str:
    """Return the label rows; EntityRowsError where there are none, or options are given that the stores do not have."""
    if entity_df is None or any(options.values()):
        asked = {name: value for name, value in options.items() if value}
        msg = f"point-in-time join: expected label rows and no other option, received {entity_df=}, {asked}"
        raise EntityRowsError(msg)
    return entity_df


def planned_joins(
    config: RepoConfig, views: Sequence[FeatureView], refs: Sequence[str], *, full_feature_names: bool
) -> list[AsOfJoin]:
    """Return the joins of views, projections applied, of which `refs` (`view:feature`) says what is wanted."""
    return [_join(config, view, refs, full_feature_names=full_feature_names) for view in views]


def check_label_columns(columns: set[str], order: str, joins: Sequence[AsOfJoin]) -> None:
    """EntityRowsError where label rows lack a column that the joins need, or have one of a feature's name."""
    needed = {order, LABEL_TIME, *(label for join in joins for label in join.key_map.values())}
    if missing := sorted(needed - columns):
        msg = f"label rows: columns {missing} are missing, received {sorted(columns)}"
        raise EntityRowsError(msg)
    features = {name for join in joins for name in join.features.values()}
    if repeated := sorted(features & columns):
        msg = f"label rows: columns {repeated} have the names of features; rename them, or set full_feature_names"
        raise EntityRowsError(msg)


def checked_result(stream: pa.RecordBatchReader, order: str, rows: int) -> pa.RecordBatchReader:
    """Pass a join's result on without the helper column; RowCountError unless it has as many rows as the labels."""
    schema = pa.schema([field for field in stream.schema if field.name != ROW or order != ROW])
    return pa.RecordBatchReader.from_batches(schema, _counted(stream, schema, rows))


def microseconds_since_1970(moment: datetime) -> int:
    """Return microseconds since 1970; a moment without a zone is UTC, as Feast means it."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _join(config: RepoConfig, view: FeatureView, refs: Sequence[str], *, full_feature_names: bool) -> AsOfJoin:
    key_map = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    table = FeatureTable.of_source(view.batch_source, view.name, tuple(key_map), str(config.repo_path))
    prefix = f"{view.projection.name_to_use()}:"
    wanted = [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]
    name = view.projection.name_alias or view.name
    features = {feature: f"{name}__{feature}" if full_feature_names else feature for feature in wanted}
    ttl_us = int(view.ttl.total_seconds() * 1_000_000) if view.ttl else 0
    return AsOfJoin(table, key_map, features, ttl_us)


def _counted(stream: pa.RecordBatchReader, schema: pa.Schema, expected: int) -> Iterator[pa.RecordBatch]:
    received = 0
    for batch in stream:
        received += batch.num_rows
        yield batch.select(schema.names)
    if received != expected:
        msg = f"point-in-time join: expected as many rows out as in, {expected}, received {received}"
        raise RowCountError(msg)
