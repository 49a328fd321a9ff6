"""The engine that Feast materialises with, loaded by the name of its class: Arrow batches straight into Redis.

Feast's own engine holds all rows of a view in memory and makes a message object of every value. This one streams the
same rows from the offline store and writes the same bytes, which a test compares; registry, states and intervals stay
Feast's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from redis import Redis

from pipelines.errors import JobError
from pipelines.feast_store.online_writes import write_rows

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.infra.common.materialization_job import MaterializationTask
    from feast.infra.registry.base_registry import BaseRegistry

_BATCH_ROWS = 8_192
"""Rows in one go. A history of a thousand items makes this some 60 MB."""


class ArrowRedisEngineConfig(LocalComputeEngineConfig):  # type: ignore[misc]  # feast ships no types
    """Configuration of `ArrowRedisEngine`; Feast finds it by its name."""

    type: str = "pipelines.feast_store.batch_engine.ArrowRedisEngine"
    """The engine's class."""


class ArrowRedisEngine(LocalComputeEngine):  # type: ignore[misc]  # feast ships no types
    """Materialises from an offline store whose jobs stream (`reader`) to one Redis server."""

    def _materialize_one(
        self,
        registry: BaseRegistry,
        task: MaterializationTask,
        **options: object,  # noqa: ARG002 - Feast's signature
    ) -> LocalMaterializationJob:
        client = self.online_store._get_client(self.repo_config.online_store)  # noqa: SLF001 - Feast's own way to it
        if not isinstance(client, Redis):
            msg = f"online store: expected one Redis server, received {type(client).__name__}; set batch_engine: local"
            raise JobError(msg)
        self._write(client, task, registry)
        return LocalMaterializationJob(job_id=task.feature_view.name, status=MaterializationJobStatus.SUCCEEDED)

    def _write(self, client: Redis, task: MaterializationTask, registry: BaseRegistry) -> None:
        view: FeatureView = task.feature_view
        (join_key,) = [registry.get_entity(name, task.project).join_key for name in view.entities]
        features = [field.name for field in view.features]
        time = view.batch_source.timestamp_field
        latest = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=view.batch_source,
            join_key_columns=[join_key],
            feature_name_columns=features,
            timestamp_field=time,
            created_timestamp_column=None,
            start_date=task.start_time,
            end_date=task.end_time,
        )
        with latest.reader(_BATCH_ROWS) as batches:
            for batch in batches:
                write_rows(client, batch, task.project, view.name, join_key, features, time)
