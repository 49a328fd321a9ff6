"""The parts of the stack: how each is started, where it listens, and how one sees that it is healthy."""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.features import declared
from feature_repo.contracts.places import REPOSITORY, Serving
from feature_repo.contracts.publishing import write_private
from feature_repo.contracts.schemas import MOVIELENS
from infra.local.health import airflow_component, http_answers, model_server_answers, redis_answers, stream_job_works
from infra.local.processes import marker_environment
from infra.local.settings import PREFIX, Address, LocalSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.local.places import Places
    from infra.local.toolchain import Toolchain

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
NO_MODELS = "model_config_list {\n}\n"
"""What the model server is configured with before the first promotion."""


@dataclass(frozen=True, slots=True)
class Part:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    addresses: tuple[Address, ...]
    """What it listens on. A part that listens nowhere belongs to the address in `belongs_to`."""
    ailment: Callable[[], str | None]
    """None when the part is healthy, else what is wrong."""
    url: str
    """Where a person or a client finds it."""
    stop_s: int = 15
    """How long it may take to end, in seconds."""


def _secret(path_value: dict[str, str], name: str, make: Callable[[], str]) -> str:
    return path_value.setdefault(name, make())


def airflow_secrets(places: Places) -> dict[str, str]:
    """Return Airflow's keys, made once: of tokens for its execution API, of its web sessions, of stored connections."""
    import base64  # noqa: PLC0415 - needed once in a stack's life

    path = places.airflow / "secrets.json"
    if path.exists():
        kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    made = {
        "jwt": secrets.token_urlsafe(96),
        "session": secrets.token_urlsafe(48),
        "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    write_private(path, json.dumps(made))
    return made


def write_airflow_password(places: Places, settings: LocalSettings) -> str:
    """Write the file that Airflow's simple authentication reads, and return its path."""
    path = places.airflow / "passwords.json"
    text = json.dumps({settings.airflow_user: settings.airflow_password}) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)
    return str(path)


def airflow_database(places: Places) -> str:
    """Return the URI of Airflow's database."""
    return f"sqlite:///{places.airflow / 'airflow.db'}"


def airflow_environment(places: Places, settings: LocalSettings) -> dict[str, str]:
    """Return Airflow's configuration, as environment variables."""
    keys = airflow_secrets(places)
    address = settings.addresses["airflow_uri"]
    uri = settings.airflow_uri.rstrip("/")
    options = {
        "CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "CORE__PLUGINS_FOLDER": str(REPOSITORY / "dags" / "plugins"),
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_user}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": write_airflow_password(places, settings),
        "CORE__EXECUTION_API_SERVER_URL": f"{uri}/execution/",
        "CORE__FERNET_KEY": keys["fernet"],
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "API_AUTH__JWT_SECRET": keys["jwt"],
        "API__SECRET_KEY": keys["session"],
        "API__BASE_URL": uri,
        "API__HOST": address.host,
        "API__PORT": str(address.port),
        "API__WORKERS": "1",
        "DATABASE__SQL_ALCHEMY_CONN": airflow_database(places),
        "LOGGING__BASE_LOG_FOLDER": str(places.airflow / "logs"),
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "120",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {"AIRFLOW_HOME": str(places.airflow)} | {f"AIRFLOW__{name}": value for name, value in options.items()}


def common_environment(
    places: Places, stated: Mapping[str, str], toolchain: Toolchain, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return what every process of the stack gets: the settings, the tools, and the marker that it is found by.

    The caller's own PATH is left out, or a call from another terminal would restart everything. So is the namespace:
    jobs are told theirs by argument, and only the recommender reads the setting. A demo on another data set so restarts
    the recommender and nothing else.
    """
    settings = {name: value for name, value in stated.items() if name != f"{PREFIX}NAMESPACE"}
    loopback = "127.0.0.1,localhost,::1"
    no_proxy = ",".join(filter(None, (environ.get("NO_PROXY") or environ.get("no_proxy"), loopback)))
    return (
        settings
        | {f"{PREFIX}STATE": str(places.state)}
        | toolchain.environment({"PATH": SYSTEM_PATH})
        | marker_environment(places.state)
        | {"NO_PROXY": no_proxy, "no_proxy": no_proxy}
        | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    )


def _redis(places: Places, settings: LocalSettings, toolchain: Toolchain) -> Part:
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - here only

    address = settings.addresses["redis_url"]
    password = unquote(urlsplit(settings.redis_url).password or "")
    config = places.redis / "redis.conf"
    options = {
        "bind": address.host,
        "port": str(address.port),
        "dir": json.dumps(str(places.redis), ensure_ascii=False),
        "appendonly": "yes",
        # Redis answers when it is on the disk: with "everysec" a killed one may lose what it has answered (0072).
        "appendfsync": "always",
        "save": '""',
        "set-proc-title": "no",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    if password:
        options["requirepass"] = json.dumps(password, ensure_ascii=False)
    text = "".join(f"{name} {value}\n" for name, value in options.items())
    if not config.exists() or config.read_text(encoding="utf-8") != text:
        write_private(config, text)
    return Part(
        name="redis",
        command=(str(toolchain.redis_server), str(config)),
        environment={},
        addresses=(address,),
        ailment=lambda: redis_answers(settings.redis_url),
        url=f"redis://{address}",
    )


def _mlflow(places: Places, settings: LocalSettings) -> Part:
    address = settings.addresses["mlflow_uri"]
    uri = settings.mlflow_uri.rstrip("/")
    places.mlflow.mkdir(parents=True, exist_ok=True)
    return Part(
        name="mlflow",
        command=(
            *(sys.executable, "-m", "mlflow", "server", "--host", address.host, "--port", str(address.port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{places.mlflow / 'mlflow.db'}"),
            *("--artifacts-destination", str(places.mlflow / "artifacts")),
        ),
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        addresses=(address,),
        ailment=lambda: http_answers(f"{uri}/health"),
        url=uri,
    )


def _airflow(places: Places, settings: LocalSettings) -> tuple[Part, ...]:
    address = settings.addresses["airflow_uri"]
    uri = settings.airflow_uri.rstrip("/")
    environment = airflow_environment(places, settings)
    api_server = Part(
        name="airflow-api-server",
        command=(
            *(sys.executable, "-m", "airflow", "api-server"),
            *("--host", address.host, "--port", str(address.port), "--workers", "1"),
        ),
        environment=environment,
        addresses=(address,),
        ailment=lambda: airflow_component(uri, "metadatabase"),
        url=uri,
    )
    scheduler = Part(
        name="airflow-scheduler",
        command=(sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs"),
        environment=environment,
        addresses=(),
        ailment=lambda: airflow_component(uri, "scheduler"),
        url="",
        stop_s=20,
    )
    dag_processor = Part(
        name="airflow-dag-processor",
        command=(sys.executable, "-m", "airflow", "dag-processor"),
        environment=environment,
        addresses=(),
        ailment=lambda: airflow_component(uri, "dag_processor"),
        url="",
    )
    return api_server, scheduler, dag_processor


_MONITORING = REPOSITORY / "infra" / "docker" / "tensorflow-serving" / "monitoring.config"
"""The containers' own: the same page of figures here as there."""


def _model_server(places: Places, settings: LocalSettings) -> Part:
    grpc, rest = settings.addresses["model_server_grpc"], settings.addresses["model_server_rest"]
    config = Serving(places.state).models_config
    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        part = config.with_name(f".{config.name}.part")
        part.write_text(NO_MODELS, encoding="utf-8")
        part.replace(config)
    return Part(
        name="model-server",
        command=(
            *(sys.executable, "-m", "serving.model_server"),
            *(f"--port={grpc.port}", f"--rest_api_port={rest.port}", f"--model_config_file={config}"),
            "--model_config_file_poll_wait_seconds=0",
            f"--monitoring_config_file={_MONITORING}",
        ),
        environment={},
        addresses=(grpc, rest),
        ailment=lambda: model_server_answers(grpc, settings.model_server_rest.rstrip("/")),
        url=settings.model_server_rest.rstrip("/"),
    )


def _stream(settings: LocalSettings) -> Part:
    return Part(
        name="stream",
        command=(sys.executable, "-m", "pipelines", "stream", "--namespace", settings.namespace),
        environment={f"{PREFIX}FEATURE_VIEWS": _feature_views()},
        addresses=(),
        ailment=lambda: stream_job_works(settings.redis_url, settings.namespace),
        url="",
    )


def _feature_views() -> str:
    """Return the views of one schema, for parts that derive features by the code that they started with.

    Rendered with them, such a part starts anew when that code changes.
    """
    return ",".join(group.view_name for group in declared(MOVIELENS).groups)


def _recommender(settings: LocalSettings) -> Part:
    address = settings.addresses["recommender_uri"]
    uri = settings.recommender_uri.rstrip("/")
    return Part(
        name="recommender",
        command=(sys.executable, "-m", "serving.recommender"),
        environment={f"{PREFIX}NAMESPACE": settings.namespace, f"{PREFIX}FEATURE_VIEWS": _feature_views()},
        addresses=(address,),
        ailment=lambda: http_answers(f"{uri}/health"),
        url=uri,
    )


def local_parts(places: Places, settings: LocalSettings, toolchain: Toolchain) -> dict[str, Part]:
    """Return the parts that run on this machine, in the order of their start. Their files are made on the way."""
    local = {name for name, address in settings.addresses.items() if address.is_loopback}
    parts: list[Part] = []
    if "redis_url" in local:
        parts.append(_redis(places, settings, toolchain))
    if "airflow_uri" in local:
        parts.extend(_airflow(places, settings))
    if "mlflow_uri" in local:
        parts.append(_mlflow(places, settings))
    if {"model_server_grpc", "model_server_rest"} <= local:
        parts.append(_model_server(places, settings))
    if "recommender_uri" in local:
        parts.append(_recommender(settings))
        parts.append(_stream(settings))
    return {part.name: part for part in parts}
