"""Feast made in process from the settings: no YAML, no working directory, nothing global."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from feast import FeatureStore, RepoConfig
from sqlalchemy.pool import NullPool

from feature_repo.contracts.intervals import feast_project
from pipelines.errors import JobError
from pipelines.feast_store.offline import StrictDuckDBOfflineStore
from pipelines.io.online_client import redacted

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings

REGISTRY_FILE = "registry.db"

_WRITE_BATCH = 10_000
"""Rows in one pipeline to Redis. Feast's default is one batch for all, and then it writes only Arrow's first chunk."""


_REDIS_PORT = 6379
_TIMEOUTS = {"socket_connect_timeout": 5, "socket_timeout": 60}
"""Seconds. Feast waits for ever by default."""


def registry_path(namespace: Namespace) -> Path:
    """Return the file of a namespace's Feast registry."""
    return namespace.feast / REGISTRY_FILE


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
            "path": f"sqlite:///{registry_path(namespace)}",
            # Feast never closes its engine: without a pool no connection outlives its use.
            "sqlalchemy_config_kwargs": {"poolclass": NullPool},
        },
        offline_store={"type": f"{StrictDuckDBOfflineStore.__module__}.{StrictDuckDBOfflineStore.__qualname__}"},
        online_store={
            "type": "redis",
            "connection_string": connection_string(settings.redis_url),
            "skip_dedup": True,
            "full_scan_for_deletion": False,
        },
        materialization={"pull_latest_features": True, "online_write_batch_size": _WRITE_BATCH},
        entity_key_serialization_version=3,
    )


def open_store(settings: Settings, namespace: Namespace) -> FeatureStore:
    """Return the feature store of a namespace; its registry is made if it does not exist."""
    namespace.feast.mkdir(parents=True, exist_ok=True)
    return FeatureStore(config=repo_config(settings, namespace))
