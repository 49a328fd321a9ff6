"""Feast made in process from the settings: no YAML, no working directory, nothing global."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from feast import FeatureStore, RepoConfig
from sqlalchemy.pool import NullPool

from feature_repo.contracts.intervals import feast_project
from pipelines.errors import JobError
from pipelines.feast_store.batch_engine import ArrowRedisEngine
from pipelines.feast_store.offline import StrictDuckDBOfflineStore
from pipelines.io.online_client import redacted
from pipelines.settings import OfflineEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings

REGISTRY_FILE = "registry.db"

_REDIS_PORT = 6379
_TIMEOUTS = {"socket_connect_timeout": 5, "socket_timeout": 60}
"""Seconds. Feast waits for ever by default."""


def registry_path(namespace: Namespace) -> Path:
    """Return the file of a namespace's Feast registry."""
    return namespace.feast / REGISTRY_FILE


def registry_url(settings: Settings, namespace: Namespace) -> str:
    """Return SQLAlchemy's URL of the registry: the settings' database, which all namespaces share, or a file.

    A path is quoted twice: SQLAlchemy reads it once, SQLite again.
    """
    # As a URI of SQLite's own, in which a question mark of the path is no end of it.
    return settings.feast_registry_url or f"sqlite:///file:{quote(quote(str(registry_path(namespace))))}?uri=true"


def offline_store(settings: Settings) -> dict[str, object]:
    """Return the offline store's part of Feast's configuration."""
    if settings.feast_offline_engine is OfflineEngine.SPARK:
        # By name: whoever reads features with DuckDB needs no Spark.
        return {"type": "pipelines.feast_store.offline_spark.StrictSparkOfflineStore", "settings": settings}
    return {"type": f"{StrictDuckDBOfflineStore.__module__}.{StrictDuckDBOfflineStore.__qualname__}"}


@contextmanager
def offline_engine(settings: Settings, name: str) -> Iterator[None]:
    """Hold what the offline store runs on for as long as a job: a Spark session, or nothing."""
    if settings.feast_offline_engine is not OfflineEngine.SPARK:
        yield
        return
    from pipelines.io.spark import spark_session  # noqa: PLC0415 - as above

    with spark_session(settings, name):
        yield


def connection_string(redis_url: str) -> str:
    """Translate `redis[s]://[user][:password]@host[:port][/db]` into Feast's `host:port,db=0,password=...`.

    JobError for anything that Feast's form cannot say: another scheme, no host, or a comma in user or password.
    """
    url = urlsplit(redis_url)
    user, password = (unquote(part or "") for part in (url.username, url.password))
    database = url.path.removeprefix("/") or "0"
    if url.scheme not in {"redis", "rediss"} or not url.hostname or "," in user + password or not database.isdigit():
        msg = (
            "KESTREL_REDIS_URL: expected redis://:password@host:port/database (or rediss://), with no comma in the "
            f"password, received {redacted(redis_url)}"
        )
        raise JobError(msg)
    parameters = {"db": int(database), "username": user, "password": password, "ssl": url.scheme == "rediss"}
    given = [f"{name}={json.dumps(value)}" for name, value in (parameters | _TIMEOUTS).items() if value]
    return ",".join([f"{url.hostname}:{url.port or _REDIS_PORT}", *given])


def repo_config(settings: Settings, namespace: Namespace) -> RepoConfig:
    """Return Feast's configuration for a namespace."""
    return RepoConfig(
        project=feast_project(namespace.name),
        provider="local",
        registry={
            "registry_type": "sql",
            "path": registry_url(settings, namespace),
            # Feast never closes its engine: without a pool no connection outlives its use.
            "sqlalchemy_config_kwargs": {"poolclass": NullPool},
        },
        offline_store=offline_store(settings),
        batch_engine=f"{ArrowRedisEngine.__module__}.{ArrowRedisEngine.__qualname__}",
        online_store={
            "type": "redis",
            "connection_string": connection_string(settings.redis_url),
            "skip_dedup": True,
            "full_scan_for_deletion": False,
        },
        materialization={"pull_latest_features": True},
        entity_key_serialization_version=3,
    )


def open_store(settings: Settings, namespace: Namespace) -> FeatureStore:
    """Return the feature store of a namespace; its registry is made if it does not exist."""
    namespace.feast.mkdir(parents=True, exist_ok=True)
    return FeatureStore(config=repo_config(settings, namespace))
