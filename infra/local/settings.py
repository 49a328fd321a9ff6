"""The one settings file, `<state>/settings.env`: made on first use, checked before every start."""

from __future__ import annotations

import difflib
import importlib
import ipaddress
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.contracts import places
from feature_repo.contracts.intervals import check_namespace
from feature_repo.contracts.orchestration import TASK_TIMEOUT_HOURS, TASK_TIMEOUT_HOURS_MAX
from feature_repo.contracts.places import REPOSITORY, settings_file
from feature_repo.contracts.publishing import write_private
from infra.local.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PREFIX = "KESTREL_"
PLANES = (
    "pipelines.settings",
    "models.settings",
    "serving.model_server.settings",
    "serving.rollout.settings",
    "serving.recommender.settings",
)
ENVIRONMENT_ONLY = frozenset({"STATE", "HOME", "PYTHON", "STACK", "JAVA_HOME", "JAVA_ARCHIVES", "SETUP_DISK_GB"})
"""Known in the process environment, senseless in a file that lies in the state folder."""
ARGUMENT_PREFIX = "KESTREL_ARG_"
"""How the Makefile hands its arguments over without a shell's quoting."""
_FORBIDDEN_IN_PATHS = re.compile(r"[\"';#%?$:\\\x00-\x1f]")
"""Something else to supervisord (quotes, `;`, `#`, `%`), databases' addresses (`?`, `%`), Airflow (`$`), PATH (`:`)."""

Namespace = Annotated[str, AfterValidator(check_namespace)]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a part listens, and the setting that says so."""

    setting: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Tell whether the part is ours to start; another host's is somebody's existing engine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Write it as `host:port`."""
        return f"{self.host}:{self.port}"


def parse_address(setting: str, value: str, default_port: int | None = None) -> Address:
    """Read `host:port` or a URL; SettingsError says what is wrong with it."""
    parts = urlsplit(value if "://" in value else f"//{value}")
    try:
        port = parts.port or default_port
    except ValueError:
        port = None
    if not parts.hostname or not port:
        msg = f"{setting}={value!r}: expected an address with a host and a port between 1 and 65535"
        raise SettingsError(msg)
    return Address(setting, parts.hostname, port)


class LocalSettings(BaseSettings):
    """What one machine needs to know. The process environment wins over the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    namespace: Namespace = "ml-100k"
    """The data set that the recommender serves."""
    redis_url: str
    """Online store. With a random password, hence no default."""
    mlflow_uri: str = "http://127.0.0.1:5000"
    """Tracking server and model registry."""
    airflow_uri: str = "http://127.0.0.1:8080"
    """Airflow's web interface and REST API."""
    airflow_user: Annotated[str, Field(pattern=r"[A-Za-z0-9_.-]+")] = "admin"
    """Login for the web interface and for the demo's REST calls."""
    airflow_password: Annotated[str, Field(min_length=8)]
    """Random, hence no default."""
    model_server_grpc: str = "127.0.0.1:8500"
    """gRPC address of the model server."""
    model_server_rest: str = "http://127.0.0.1:8501"
    """REST address of the model server."""
    recommender_uri: str = "http://127.0.0.1:8000"
    """Where recommendations are asked for."""
    refresh_cron: str = ""
    """When feature_refresh runs by itself (cron, UTC); empty: only when it is triggered. Read by the DAG file."""
    task_timeout_hours: Annotated[float, Field(gt=0, le=TASK_TIMEOUT_HOURS_MAX)] = TASK_TIMEOUT_HOURS
    """How long a task of a DAG may take, in hours. Read by the DAG files."""
    min_free_disk_gb: Annotated[float, Field(ge=0)] = 2.0
    """`make up` refuses to start with less free disk."""
    min_free_memory_gb: Annotated[float, Field(ge=0)] = 4.5
    """`make up` refuses to start with less available memory; the demo's peak is below 6 GB."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """How long a part may take until it is healthy, in seconds."""

    @property
    def addresses(self) -> dict[str, Address]:
        """Field name → address, for every field that is one."""
        fields = ("redis_url", "mlflow_uri", "airflow_uri", "model_server_grpc", "model_server_rest", "recommender_uri")
        ports = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
        values = {field: str(getattr(self, field)) for field in fields}
        return {
            field: parse_address(PREFIX + field.upper(), value, ports.get(value.partition("://")[0]))
            for field, value in values.items()
        }


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the state folder, absolute: KESTREL_STATE, else `.kestrel` in the repository."""
    state = places.state_folder(environ)
    for path in (state, REPOSITORY):
        if _FORBIDDEN_IN_PATHS.search(str(path)):
            msg = (
                f"{path}: expected a path without quotes, backslashes, control characters and any of ; # % ? $ :, "
                "which supervisord or Airflow would read as something else; rename the folder, or name another one in "
                "KESTREL_STATE"
            )
            raise SettingsError(msg)
    return state


def initial_settings() -> str:
    """Return the text of a new settings file: addresses and random passwords, and the rest as comments."""
    return f"""\
# Every setting, port and password of this stack. The process environment wins over this file.
# `make up` applies what was changed here. A part whose address is not a loopback one is not started on this machine.

# The data set that the recommender serves; `make demo` sets it when its data has passed.
KESTREL_NAMESPACE=ml-100k

# Redis, the online store.
KESTREL_REDIS_URL=redis://:{secrets.token_urlsafe(24)}@127.0.0.1:6390/0

# MLflow, experiments and model registry.
KESTREL_MLFLOW_URI=http://127.0.0.1:5000

# Airflow, and the login for its web interface.
KESTREL_AIRFLOW_URI=http://127.0.0.1:8080
KESTREL_AIRFLOW_USER=admin
KESTREL_AIRFLOW_PASSWORD={secrets.token_urlsafe(18)}

# The model server.
KESTREL_MODEL_SERVER_GRPC=127.0.0.1:8500
KESTREL_MODEL_SERVER_REST=http://127.0.0.1:8501

# The recommender. Its clock: `snapshot` is the moment that the data online reaches up to, right for data sets of the
# past; `wall` is right where events come in now.
KESTREL_RECOMMENDER_URI=http://127.0.0.1:8000
KESTREL_RECOMMENDER_CLOCK=snapshot

# Spark, and what Feast keeps its registry in and joins features with: docs/scale.md.
#KESTREL_SPARK_MASTER=local[*]
#KESTREL_SPARK_DRIVER_MEMORY=2g
#KESTREL_SPARK_OPTIONS={{"spark.executor.memory": "4g"}}
#KESTREL_FEAST_REGISTRY_URL=postgresql+psycopg2://user:password@host/database
#KESTREL_FEAST_OFFLINE_ENGINE=duckdb

# The training set: the least value that counts as liked (by default what the data set says), rows drawn for each
# positive event where feedback is implicit, shares of the rows by time, hours between two refreshes.
#KESTREL_LABEL_MIN_VALUE=4.0
#KESTREL_NEGATIVES=4
#KESTREL_TRAIN_FRACTION=0.8
#KESTREL_VALID_FRACTION=0.1
#KESTREL_REFRESH_HOURS=24

# The largest share of rows of a source that may be refused.
#KESTREL_QUARANTINE_LIMIT=0.01

# When feature_refresh runs by itself, as a cron expression in UTC; empty: when it is triggered.
#KESTREL_REFRESH_CRON=0 3 * * *

# How long a task may take, in hours; a longer one is ended, so that a job that hangs stops nothing for ever.
#KESTREL_TASK_TIMEOUT_HOURS=6

# What `make up` wants to find before it starts anything, and how long a part may take to become healthy.
#KESTREL_MIN_FREE_DISK_GB=2
#KESTREL_MIN_FREE_MEMORY_GB=4.5
#KESTREL_START_TIMEOUT_S=300
"""


def ensure_settings_file(state: Path) -> Path:
    """Make the settings file unless it exists, and return it."""
    path = settings_file(state)
    if not path.exists():
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
        write_private(path, initial_settings())
    return path


def _settings_models(module: str) -> Iterator[type[BaseSettings]]:
    for value in vars(importlib.import_module(module)).values():
        if isinstance(value, type) and issubclass(value, BaseSettings) and value is not BaseSettings:
            yield value


def known_settings() -> frozenset[str]:
    """Return every setting that some plane reads, with the prefix. A plane that is not installed adds none."""
    names = {f"{PREFIX}{name.upper()}" for name in LocalSettings.model_fields}
    for module in PLANES:
        try:
            models = list(_settings_models(module))
        except ModuleNotFoundError as error:
            if not module.startswith(str(error.name)):
                raise
            continue
        for model in models:
            prefix = model.model_config.get("env_prefix") or ""
            names |= {f"{prefix}{name}".upper() for name in model.model_fields}
    return frozenset(names)


def refuse_unknown(origin: str, names: set[str], known: frozenset[str]) -> None:
    """Raise SettingsError for a name that nothing reads, with the nearest that something does."""
    for name in sorted(names - known):
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
        msg = f"{origin}: unknown setting {name}; did you mean {nearest[0]}? Correct or delete it"
        raise SettingsError(msg)


def stated_settings(state: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return all settings that are given, with the prefix: the file's, overruled by the environment's."""
    path = settings_file(state)
    file = {name: value or "" for name, value in dotenv_values(path).items()} if path.exists() else {}
    known = known_settings()
    for name in file:
        if not name.startswith(PREFIX):
            msg = f"{path}: expected names that begin with {PREFIX}, received {name}"
            raise SettingsError(msg)
    refuse_unknown(str(path), set(file), known)
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    ours = {name: value for name, value in ours.items() if not name.startswith(ARGUMENT_PREFIX)}
    environment_only = frozenset(PREFIX + name for name in ENVIRONMENT_ONLY)
    refuse_unknown("environment", set(ours), known | environment_only)
    return file | {name: value for name, value in ours.items() if name not in environment_only}


def read_settings(state: Path, environ: Mapping[str, str]) -> LocalSettings:
    """Read and check the settings of `state`, making the file on first use; SettingsError names what is wrong."""
    ensure_settings_file(state)
    stated = stated_settings(state, environ)
    values = {name.removeprefix(PREFIX).lower(): value for name, value in stated.items()}
    try:
        settings = LocalSettings.model_validate(
            {name: value for name, value in values.items() if name in LocalSettings.model_fields}
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        msg = f"{settings_file(state)}: {name}: {first['msg']}, received {first.get('input')!r}"
        raise SettingsError(msg) from error
    _ = settings.addresses
    return settings


def set_setting(state: Path, name: str, value: str) -> bool:
    """Write one setting into the file, its comments kept; tell whether that changed anything."""
    path = ensure_settings_file(state)
    text = path.read_text(encoding="utf-8")
    line = f"{name}={value}"
    pattern = re.compile(rf"^#?{re.escape(name)}=.*$", re.MULTILINE)
    changed = pattern.sub(lambda _: line, text, count=1) if pattern.search(text) else f"{text.rstrip()}\n\n{line}\n"
    if changed == text:
        return False
    write_private(path, changed)
    return True
