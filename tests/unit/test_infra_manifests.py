"""infra/compose.yaml and infra/kubernetes/: valid, consistent with the code, and every check can fail."""

from __future__ import annotations

import copy
import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from google.protobuf import text_format

from feature_repo.contracts.orchestration import POOL, POOL_SLOTS
from infra.docker import entrypoint, prepare
from infra.kubernetes.task_images import PLANES, plane_image, task_policy
from infra.local import installation
from serving.model_server.flags import Flags, parse_flags
from serving.protocol.messages import ModelServerConfig
from serving.rollout.models_config import read_models_config, write_models_config
from tests import infra_manifests as manifests

if TYPE_CHECKING:
    from collections.abc import Callable

INFRA = manifests.INFRA
PROGRAMS = Path(sys.executable).parent


def compose_checks(document: dict[str, Any]) -> dict[str, Callable[[], list[str]]]:
    containers = list(manifests.compose_containers(document))
    return {
        "schema": lambda: manifests.schema_faults_of_compose(document),
        "images": lambda: manifests.unpinned_images(containers),
        "settings": lambda: manifests.unknown_settings(containers),
        "flags": lambda: manifests.flag_faults(containers),
        "extras": lambda: manifests.missing_extras(containers),
        "ports": lambda: manifests.public_ports(document),
        "secrets": lambda: manifests.literal_secrets(document),
        "names": lambda: manifests.dangling_in_compose(document),
        "addresses": lambda: manifests.unreachable_in_compose(document),
        "care": lambda: manifests.careless_services(document),
    }


def kubernetes_checks(documents: list[dict[str, Any]]) -> dict[str, Callable[[], list[str]]]:
    containers = list(manifests.kubernetes_containers(documents))
    return {
        "schema": lambda: manifests.schema_faults_of_kubernetes(documents),
        "images": lambda: manifests.unpinned_images(containers),
        "settings": lambda: manifests.unknown_settings(containers),
        "flags": lambda: manifests.flag_faults(containers),
        "secrets": lambda: manifests.secrets_in_kubernetes(documents),
        "names": lambda: manifests.dangling_in_kubernetes(documents),
        "care": lambda: manifests.careless_pods(documents),
    }


def found(checks: dict[str, Callable[[], list[str]]]) -> dict[str, list[str]]:
    return {name: faults for name, check in checks.items() if (faults := check())}


def change(document: Any, path: str, value: Any) -> None:
    """Set what `a/0/b` leads to; None takes it away; a list's `+` appends."""
    *way, last = path.split("/")
    for step in way:
        document = document[int(step)] if isinstance(document, list) else document[step]
    if isinstance(document, list):
        document.append(value) if last == "+" else document.__setitem__(int(last), value)
    elif value is None:
        del document[last]
    else:
        document[last] = value


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return manifests.compose()


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return manifests.kubernetes()


def test_compose_passes_every_check(compose):
    assert found(compose_checks(compose)) == {}


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        ("services/redis/imagee", "redis:7.4.2", "schema"),
        ("services/redis/ports/0", {"targets": 6379}, "schema"),
        ("services/redis/image", "redis:latest", "images"),
        ("services/tensorflow-serving/image", "tensorflow/serving", "images"),
        ("services/recommender/environment/KESTREL_REDIS", "redis://redis:6379", "settings"),
        ("services/tensorflow-serving/command/0", "--grpc_port=8500", "flags"),
        ("services/tensorflow-serving/command/+", "--drain_seconds=3", "flags"),
        ("services/tensorflow-serving/command/+", "--max_num_load_retries=few", "flags"),
        ("services/recommender/build/args/EXTRAS", "--extra rollout", "extras"),
        ("services/recommender/build/args/EXTRAS", "--extra recommender --extra nothing", "extras"),
        ("services/redis/ports/0", "6390:6379", "ports"),
        ("services/redis/ports/0", "0.0.0.0:6390:6379", "ports"),
        ("services/postgres/environment/POSTGRES_PASSWORD", "hunter2", "secrets"),
        ("services/recommender/environment/KESTREL_REDIS_URL", "redis://:hunter2@redis:6379/0", "secrets"),
        ("configs/redis/content", "requirepass hunter2\n", "secrets"),
        ("services/redis/volumes/0", "redes:/data", "names"),
        ("services/redis/configs/0/source", "redes", "names"),
        ("configs/alerts/file", "monitoring/alarms.yml", "names"),
        ("services/recommender/depends_on/postgre", {"condition": "service_started"}, "names"),
        ("services/redis/healthcheck", None, "names"),
        ("services/recommender/environment/KESTREL_MODEL_SERVER_GRPC", "tensorflow-serving:8502", "addresses"),
        ("services/tensorflow-serving/command/0", "--port=8600", "addresses"),
        ("services/mlflow/ports/0", "127.0.0.1:5000:5001", "addresses"),
        ("services/redis/deploy", None, "care"),
        ("services/redis/restart", "on-failure", "care"),
        ("services/recommender/healthcheck", None, "care"),
        ("services/recommender/cap_drop", None, "care"),
    ],
)
def test_a_changed_compose_file_is_found_out(compose, path, value, check):
    changed = copy.deepcopy(compose)
    change(changed, path, value)
    assert compose_checks(changed)[check]()


def test_kubernetes_passes_every_check(documents):
    assert found(kubernetes_checks(documents)) == {}


DEPLOYMENT = "Deployment/tensorflow-serving/spec/template/spec"
SERVER = f"{DEPLOYMENT}/containers/0"


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        (f"{SERVER}/livenes", {}, "schema"),
        ("HorizontalPodAutoscaler/recommender/spec/minReplicas", "two", "schema"),
        ("NetworkPolicy/recommender/spec/podSelector", None, "schema"),
        (f"{SERVER}/image", "tensorflow/serving:latest", "images"),
        ("ConfigMap/kestrel-settings/data/KESTREL_MLFLOW", "http://mlflow:5000", "settings"),
        (f"{SERVER}/args/+", "--model_config_file_poll_seconds=1", "flags"),
        (f"{SERVER}/env/+", {"name": "KESTREL_REDIS_URL", "value": "redis://:hunter2@redis:6379/0"}, "secrets"),
        ("ConfigMap/kestrel-settings/data/KESTREL_MLFLOW_URI", "http://me:hunter2@mlflow:5000", "secrets"),
        (f"{SERVER}/volumeMounts/0/name", "stat", "names"),
        (f"{SERVER}/readinessProbe/grpc/port", 8501 + 1, "names"),
        (f"{SERVER}/args/0", "--port=8600", "names"),
        (f"{DEPLOYMENT}/volumes/0/persistentVolumeClaim/claimName", "other", "names"),
        (f"{DEPLOYMENT}/volumes/1/configMap/name", "other", "names"),
        (f"{DEPLOYMENT}/serviceAccountName", "other", "names"),
        ("Service/recommender/spec/selector", {"app.kubernetes.io/name": "other"}, "names"),
        ("Service/recommender/spec/ports/0/targetPort", "grpc", "names"),
        ("HorizontalPodAutoscaler/recommender/spec/scaleTargetRef/name", "other", "names"),
        ("PodDisruptionBudget/recommender/spec/selector/matchLabels", {"app.kubernetes.io/name": "other"}, "names"),
        ("ConfigMap/kestrel-settings/data/KESTREL_MODEL_SERVER_GRPC", "tensorflow-serving:8501", "names"),
        (f"{DEPLOYMENT}/securityContext/runAsNonRoot", None, "care"),
        (f"{DEPLOYMENT}/automountServiceAccountToken", True, "care"),
        (f"{DEPLOYMENT}/terminationGracePeriodSeconds", 20, "care"),
        (f"{SERVER}/startupProbe", None, "care"),
        (f"{SERVER}/lifecycle", None, "care"),
        (f"{SERVER}/resources/limits", None, "care"),
        (f"{SERVER}/securityContext/readOnlyRootFilesystem", False, "care"),
        ("Deployment/recommender/spec/strategy/rollingUpdate/maxUnavailable", 1, "care"),
        ("Deployment/recommender/spec/replicas", 3, "care"),
    ],
)
def test_a_changed_manifest_is_found_out(documents, path, value, check):
    changed = copy.deepcopy(documents)
    kind, name, place = path.split("/", 2)
    change(manifests.of_kind(changed, kind)[name], place, value)
    assert kubernetes_checks(changed)[check]()


def test_a_secret_in_the_manifests_is_found_out(documents):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kestrel-secrets"}, "stringData": {"a": "b"}}
    assert manifests.secrets_in_kubernetes([*documents, secret])


def test_both_describe_the_same_server(compose, documents):
    """Compose and Kubernetes start tensorflow_model_server with the same flags and the same files."""
    (pod,) = (one for one in manifests.kubernetes_containers(documents) if one.name == "tensorflow-serving")
    (service,) = (one for one in manifests.compose_containers(compose) if one.name == "tensorflow-serving")
    assert pod.command == service.command
    assert pod.image == service.image
    data = manifests.of_kind(documents, "ConfigMap")["tensorflow-serving"]["data"]
    folder = INFRA / "docker" / "tensorflow-serving"
    assert data["monitoring.config"] == (folder / "monitoring.config").read_text()
    assert compose["configs"]["monitoring"]["file"] == "docker/tensorflow-serving/monitoring.config"


def test_the_server_may_have_as_many_calls_as_the_embedded_one_and_merges_none(compose):
    (service,) = (one for one in manifests.compose_containers(compose) if one.name == "tensorflow-serving")
    flags = parse_flags(service.command[1:])
    assert flags.grpc_max_threads == Flags().grpc_max_threads == 256
    assert not flags.enable_batching, "`one_user` cannot be merged, and the warm-up has it"


def test_the_files_of_the_server_parse_as_its_messages():
    # No wheel ships the two messages: the embedded server declares them.
    text_protos = pytest.importorskip("serving.model_server.text_protos")
    folder = INFRA / "docker" / "tensorflow-serving"
    monitoring = text_format.Parse((folder / "monitoring.config").read_text(), text_protos.MonitoringConfig())
    assert monitoring.prometheus_config.enable


def test_models_config_of_a_new_volume_is_what_the_rollout_writes(documents, tmp_path, monkeypatch):
    text = manifests.of_kind(documents, "ConfigMap")["tensorflow-serving"]["data"]["models.config"]
    config = text_format.Parse(text, ModelServerConfig())
    assert config.WhichOneof("config") == "model_config_list"
    write_models_config(tmp_path / "models.config", read_models_config(tmp_path / "none"))
    assert text == (tmp_path / "models.config").read_text()
    monkeypatch.setenv("KESTREL_STATE", str(tmp_path / "state"))
    prepare.state()
    written = tmp_path / "state" / "serving" / "models.config"
    assert written.read_text() == text
    written.write_text("kept")
    prepare.state()
    assert written.read_text() == "kept"


def test_the_first_models_config_is_put_on_the_volume_by_one_replica_of_many(documents, tmp_path):
    """The init container's own script, run twice at the same time."""
    pod = manifests.of_kind(documents, "Deployment")["tensorflow-serving"]["spec"]["template"]["spec"]
    script = pod["initContainers"][0]["command"][2]
    source = tmp_path / "models.config"
    source.write_text("model_config_list {\n}\n")
    script = script.replace("/etc/tensorflow-serving/models.config", str(source))
    script = script.replace("/var/lib/kestrel", str(tmp_path / "state"))
    started = [
        subprocess.Popen(["/bin/bash", "-ec", script], env={"HOSTNAME": f"pod-{number}", "PATH": "/usr/bin:/bin"})
        for number in range(2)
    ]
    assert [process.wait(30) for process in started] == [0, 0]
    folder = tmp_path / "state" / "serving"
    assert [path.name for path in folder.iterdir()] == ["models.config"]
    (folder / "models.config").write_text("promoted")
    assert (
        subprocess.run(
            ["/bin/bash", "-ec", script], env={"HOSTNAME": "pod-3", "PATH": "/usr/bin:/bin"}, check=False
        ).returncode
        == 0
    )
    assert (folder / "models.config").read_text() == "promoted"


def test_the_settings_given_to_each_service_are_accepted_by_its_plane(compose, documents, monkeypatch, tmp_path):
    from pipelines.settings import Settings as Pipelines
    from serving.recommender.settings import Settings as Recommender
    from serving.rollout.settings import Settings as Rollout

    containers = {one.name: one for one in manifests.compose_containers(compose)}
    pods = {one.name: one for one in manifests.kubernetes_containers(documents)}
    for model, one in (
        (Recommender, containers["recommender"]),
        (Recommender, pods["recommender"]),
        (Rollout, containers["airflow-scheduler"]),
        (Pipelines, containers["airflow-scheduler"]),
        (Pipelines, containers["stream"]),
        (Pipelines, pods["stream"]),
    ):
        with monkeypatch.context() as patch:
            for name, value in one.environment.items():
                patch.setenv(name, value or "redis://redis:6379/0")
            settings = model(_env_file=None)
        assert str(settings.state) == "/var/lib/kestrel"


def test_airflows_options_exist_and_are_those_of_one_machine(compose):
    import airflow

    (options,) = manifests.read_yaml(Path(airflow.__file__).parent / "config_templates" / "config.yml")
    known = {f"{section}__{option}".upper() for section, body in options.items() for option in body["options"]}
    given = {
        name.removeprefix("AIRFLOW__")
        for name in compose["services"]["airflow-scheduler"]["environment"]
        if name.startswith("AIRFLOW__")
    }
    # SimpleAuthManager's options belong to a provider-like module with a configuration of its own.
    assert {name for name in given - known if not name.startswith("CORE__SIMPLE_AUTH_MANAGER")} == set()
    source = (INFRA / "local" / "parts.py").read_text()
    assert [name for name in given if f'"{name}"' not in source] == []


def test_every_command_of_this_project_is_one_that_it_has(compose):
    containers = {one.name: one.command for one in manifests.compose_containers(compose)}
    checks = [service.get("healthcheck", {}).get("test", []) for service in compose["services"].values()]
    commands = [*containers.values(), *([part[1:] for part in checks if part[:1] == ["CMD"]])]
    modules = {tuple(command[2:4]) for command in commands if command[:2] == ["python", "-m"]}
    own = {pair for pair in modules if pair[0].startswith(("infra", "serving"))}
    assert {pair[0] for pair in own} == {"infra.docker.prepare", "infra.docker.answers", "serving.recommender"}
    assert {pair[1] for pair in own if pair[0] == "infra.docker.prepare"} <= set(prepare.STEPS)


@pytest.mark.filterwarnings("ignore")  # MLflow's own, at import
def test_mlflows_command_parses(compose):
    import mlflow.cli

    (command,) = (one.command for one in manifests.compose_containers(compose) if one.name == "mlflow")
    assert command[:3] == ["python", "-m", "mlflow"]
    server = mlflow.cli.cli.commands["server"]
    with server.make_context("server", list(command[4:])) as context:
        assert context.params["artifacts_destination"] == "/var/lib/mlflow/artifacts"
        assert "mlflow:5000" in context.params["allowed_hosts"].split(",")


@pytest.mark.filterwarnings("ignore")  # Airflow's own, while it builds its parser
def test_airflows_commands_parse(compose):
    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    commands = [
        one.command for one in manifests.compose_containers(compose) if one.command[:3] == ["python", "-m", "airflow"]
    ]
    assert {command[3] for command in commands} == {"api-server", "scheduler", "dag-processor"}
    for command in commands:
        parser.parse_args(command[3:])


@pytest.mark.parametrize(
    "change_of",
    [
        lambda text: text,
        lambda text: text.replace(":3.11.14-slim-bookworm", ""),
        lambda text: text.replace("--no-install-recommends", ""),
    ],
)
def test_hadolint(change_of, tmp_path):
    text = (INFRA / "docker" / "Dockerfile").read_text()
    changed = change_of(text)
    path = tmp_path / "Dockerfile"
    path.write_text(changed)
    done = subprocess.run([str(PROGRAMS / "hadolint"), str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (changed == text), done.stdout


def test_images_install_with_the_uv_of_one_machine_from_the_lock():
    text = (INFRA / "docker" / "Dockerfile").read_text()
    assert f"ARG UV_VERSION={installation.UV_VERSION}\n" in text
    assert text.count("uv sync --frozen --no-default-groups") == text.count("uv sync")


def test_nothing_secret_enters_an_image():
    ignore = (INFRA / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignore[1] == "*"
    allowed = {line.removeprefix("!").rstrip("/") for line in ignore if line.startswith("!")}
    assert not allowed & {".kestrel", ".git", ".venv", "."}
    assert "**/.env" in ignore[ignore.index("!infra/") :]


def test_the_environment_file_has_a_value_for_everything_that_compose_asks_for(tmp_path, monkeypatch):
    example = (INFRA / ".env.example").read_text()
    given = manifests.environment_file(example)
    assert {name for name, value in given.items() if not value} == set(prepare.random_values())
    filled = manifests.environment_file(prepare.filled(example, prepare.random_values()))
    assert all(filled.values())
    required = set(manifests._VARIABLE.findall((INFRA / "compose.yaml").read_text()))
    assert {name for name, kind, _ in required if kind != "-"} <= set(filled)
    monkeypatch.setattr(prepare, "ENVIRONMENT", tmp_path / ".env")
    prepare.environment()
    first = (tmp_path / ".env").read_text()
    prepare.environment()
    assert (tmp_path / ".env").read_text() == first
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_airflows_password_file(tmp_path, monkeypatch):
    path = tmp_path / "passwords.json"
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(path))
    monkeypatch.setenv("KESTREL_AIRFLOW_USER", "admin")
    monkeypatch.setenv("KESTREL_AIRFLOW_PASSWORD", "a password")
    assert prepare.main(["airflow"]) == 0
    assert yaml.safe_load(path.read_text()) == {"admin": "a password"}
    assert prepare.main(["nothing"]) == 2


@pytest.mark.filterwarnings("ignore")  # Airflow's own, while it builds its parser
def test_whoever_sets_airflow_up_makes_the_pool_of_the_dags_after_the_migration(compose, monkeypatch):
    from airflow.cli.cli_parser import get_parser

    (values,) = manifests.read_yaml(INFRA / "kubernetes" / "values" / "airflow.yaml")
    for command in (compose["services"]["airflow-prepare"]["command"], values["migrateDatabaseJob"]["args"]):
        assert re.search(r"airflow db migrate\s+&& exec python -m infra\.docker\.prepare pool", command[-1])
    executed = []
    monkeypatch.setattr(prepare.os, "execv", lambda *given: executed.append(given))
    assert prepare.main(["pool"]) == 0
    ((program, command),) = executed
    assert (program, command[1:3]) == (command[0], ["-m", "airflow"])
    pool = get_parser().parse_args(command[3:])
    assert (pool.pool, pool.slots) == (POOL, POOL_SLOTS)


def test_kustomizations_name_files_that_exist_and_leave_none_out():
    for path in (INFRA / "kubernetes").glob("*/kustomization.yaml"):
        (kustomization,) = manifests.read_yaml(path)
        named = {(path.parent / name).resolve() for name in kustomization["resources"]}
        assert all(one.exists() for one in named)
        assert set(path.parent.glob("*.yaml")) - {path} <= named


def test_each_job_runs_in_its_planes_image(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY", "registry.example/kestrel/orchestrator"
    )
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG", "0.1.0")
    task = SimpleNamespace(module="serving.rollout", executor_config={})
    task_policy(task)
    pod = task.executor_config["pod_override"]
    assert pod.spec.containers[0].image == "registry.example/kestrel/rollout:0.1.0"
    assert pod.metadata.labels == {"kestrel/plane": "rollout"}
    assert pod.spec.service_account_name is None
    other = SimpleNamespace(executor_config={})
    task_policy(other)
    assert other.executor_config == {}
    assert plane_image("orchestrator", "1", "data") == "data:1"


def test_a_job_of_the_data_plane_may_be_the_driver_of_executors_in_pods(monkeypatch, documents):
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY", "kestrel/orchestrator")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG", "0.1.0")
    task = SimpleNamespace(module="pipelines", executor_config={})
    task_policy(task)
    spec = task.executor_config["pod_override"].spec
    account = spec.service_account_name
    (binding,) = manifests.of_kind(documents, "RoleBinding").values()
    assert account in manifests.of_kind(documents, "ServiceAccount")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    (rule,) = manifests.of_kind(documents, "Role")[binding["roleRef"]["name"]]["rules"]
    assert rule["resources"] == ["pods", "configmaps"]
    assert spec.containers[0].env[0].value_from.field_ref.field_path == "status.podIP"


EXECUTOR_ENVIRONMENT = {
    "JAVA_HOME": "/java",
    "SPARK_JAVA_OPT_0": "-Dspark.one=1 2",
    "SPARK_JAVA_OPT_10": "-Dlast",
    "SPARK_JAVA_OPT_2": "-XX:+UseParallelGC",
    "SPARK_EXECUTOR_MEMORY": "1024m",
    "SPARK_EXECUTOR_CORES": "2",
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@10.0.0.9:7078",
    "SPARK_EXECUTOR_ID": "3",
    "SPARK_APPLICATION_ID": "spark-1",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.11",
    "SPARK_EXECUTOR_POD_NAME": "features-exec-3",
    "SPARK_RESOURCE_PROFILE_ID": "0",
}


def test_spark_s_word_starts_an_executor_and_every_other_command_runs_as_it_is():
    assert entrypoint.command(["python", "-m", "pipelines", "executor"], {})[-1] == "executor"
    java, *options = entrypoint.command(["executor"], EXECUTOR_ENVIRONMENT)
    assert java == "/java/bin/java"
    assert options[:5] == ["-Dspark.one=1 2", "-XX:+UseParallelGC", "-Dlast", "-Xms1024m", "-Xmx1024m"]
    named = dict(itertools.pairwise(options))
    assert named["--driver-url"] == EXECUTOR_ENVIRONMENT["SPARK_DRIVER_URL"]
    assert (named["--podName"], named["--hostname"]) == ("features-exec-3", "10.0.0.11")
    jars = [jar.name for jar in Path(named["-cp"].removesuffix("*")).glob("spark-kubernetes_*.jar")]
    assert jars
    with pytest.raises(KeyError, match="SPARK_DRIVER_URL"):
        entrypoint.command(["executor"], {"JAVA_HOME": "/java", "SPARK_EXECUTOR_MEMORY": "1g"})


def test_every_job_of_the_dags_has_a_plane():
    used = {
        name
        for path in (INFRA.parent / "dags").glob("*.py")
        for name in re.findall(r'module="([\w.]+)"', path.read_text())
    }
    assert used == set(PLANES)
    assert {f"--extra {plane}" for plane in PLANES.values()} <= set(
        re.findall(r"--extra [a-z-]+", (INFRA / "kubernetes" / "README.md").read_text())
    )
