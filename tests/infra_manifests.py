"""The manifests of infra/ as data, and what is checked of them. Each check returns the faults that it found."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate
import yaml

from feature_repo.contracts.places import REPOSITORY
from infra.docker.prepare import filled, random_values
from infra.local.settings import ENVIRONMENT_ONLY, PREFIX, known_settings
from serving.model_server.flags import parse_flags

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

INFRA = REPOSITORY / "infra"
BASE = INFRA / "kubernetes" / "base"
KUBERNETES_VERSIONS = ("1.32.0", "1.37.0")
"""The oldest and the newest that the manifests are held against."""
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def read_yaml(path: Any) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    (document,) = read_yaml(INFRA / name)
    return document


def kubernetes() -> list[dict[str, Any]]:
    (kustomization,) = read_yaml(BASE / "kustomization.yaml")
    return [document for name in kustomization["resources"] for document in read_yaml(BASE / name)]


def environment_file(text: str) -> dict[str, str]:
    lines = [line.partition("=") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in lines}


@functools.cache
def example_environment() -> dict[str, str]:
    return environment_file(filled((INFRA / ".env.example").read_text(encoding="utf-8"), random_values()))


def interpolated(value: Any) -> str:
    """Write a value as Compose does: `${NAME}` from the environment file, `:-` with a default, `:?` required."""

    def replace(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        found = example_environment().get(name)
        if found is None and kind != "-":
            msg = f"${{{name}}}: not in .env.example"
            raise KeyError(msg)
        return found if found is not None else rest

    return _VARIABLE.sub(replace, str(value))


@dataclasses.dataclass(frozen=True)
class Container:
    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    extras: frozenset[str] | None = None
    """Of pyproject.toml; None for an image that is not built here."""


def compose_containers(document: Mapping[str, Any]) -> Iterator[Container]:
    for name, service in document["services"].items():
        build = service.get("build")
        extras = frozenset(re.findall(r"--extra (\S+)", build["args"]["EXTRAS"])) if build else None
        command = [*service.get("entrypoint", []), *service.get("command", [])]
        environment = {key: interpolated(value) for key, value in service.get("environment", {}).items()}
        yield Container(name, service.get("image", ""), [interpolated(part) for part in command], environment, extras)


def deployments(documents: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    return (document for document in documents if document["kind"] == "Deployment")


def of_kind(documents: Iterable[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def kubernetes_containers(documents: Sequence[Mapping[str, Any]]) -> Iterator[Container]:
    settings = of_kind(documents, "ConfigMap")
    for deployment in deployments(documents):
        pod = deployment["spec"]["template"]["spec"]
        for one in (*pod.get("initContainers", []), *pod["containers"]):
            environment = {entry["name"]: entry.get("value", "") for entry in one.get("env", [])}
            for source in one.get("envFrom", []):
                environment |= settings[source["configMapRef"]["name"]]["data"]
            yield Container(one["name"], one["image"], [*one.get("command", []), *one.get("args", [])], environment)


def schema_faults_of_compose(document: Mapping[str, Any]) -> list[str]:
    text = (files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def schema_faults_of_kubernetes(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    faults = []
    for document in documents:
        for version in KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                faults.append(f"{document.get('kind')} {document['metadata'].get('name')}, {version}: {error!r}")
    return faults


def unpinned_images(containers: Iterable[Container]) -> list[str]:
    pinned = re.compile(r"^[a-z0-9./_-]+:v?\d+\.\d+(\.\d+)?[a-z0-9.-]*$")
    return [f"{one.name}: {one.image!r}" for one in containers if not pinned.match(one.image)]


def unknown_settings(containers: Iterable[Container]) -> list[str]:
    known = known_settings() | {PREFIX + name for name in ENVIRONMENT_ONLY}
    return [
        f"{one.name}: {name}"
        for one in containers
        for name in one.environment
        if name.startswith(PREFIX) and name not in known
    ]


def flag_faults(containers: Iterable[Container]) -> list[str]:
    """Hold the real server's flags against those of the embedded one: they are to be the same."""
    faults = []
    for one in containers:
        if one.command[:1] != ["tensorflow_model_server"]:
            continue
        arguments = one.command[1:]
        own = {"--bind_address", "--request_threads", "--rest_api_max_body_bytes", "--drain_seconds"}
        faults += [
            f"{one.name}: {part}: a flag of the embedded server only"
            for part in arguments
            if own & {part.partition("=")[0]}
        ]
        try:
            parse_flags(arguments)
        except SystemExit:
            faults.append(f"{one.name}: {arguments}")
    return faults


def missing_extras(containers: Iterable[Container]) -> list[str]:
    """Tell which images lack the extra of what runs in them, or name one that does not exist."""
    needed = {
        "serving.recommender": {"recommender"},
        "pipelines": {"data"},
        "mlflow": {"rollout", "postgresql"},
        "airflow": {"orchestrator", "postgresql"},
    }
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = set(project["optional-dependencies"])
    faults = []
    for one in containers:
        if one.extras is None:
            continue
        module = one.command[2] if one.command[:2] == ["python", "-m"] else ""
        lacking = needed.get(module, set()) - one.extras
        unknown = one.extras - known
        faults += [f"{one.name}: {extra}" for extra in sorted(lacking | unknown)]
    return faults


def public_ports(document: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {port}"
        for name, service in document["services"].items()
        for port in service.get("ports", [])
        if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", str(port))
    ]


def literal_secrets(document: Mapping[str, Any]) -> list[str]:
    """Tell which secrets of a Compose file stand in it instead of coming from the environment file."""
    faults = []
    for name, service in document["services"].items():
        for key, value in service.get("environment", {}).items():
            bare = _VARIABLE.sub("", str(value))
            has_login = re.search(r"://[^/]*:[^/@{}]+@", bare)
            named = re.search(r"PASSWORD$|SECRET|FERNET_KEY|_AUTH$", key) and not _VARIABLE.search(str(value))
            if has_login or named:
                faults.append(f"{name}: {key}")
    for name, config in document.get("configs", {}).items():
        faults += [
            f"config {name}: {line}"
            for line in str(config.get("content", "")).splitlines()
            if re.match(r"(requirepass|masterauth)\b", line.strip()) and not _VARIABLE.search(line)
        ]
    return faults


def secrets_in_kubernetes(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    documents = list(documents)
    faults = [f"Secret {name}" for name in of_kind(documents, "Secret")]
    for one in kubernetes_containers(documents):
        faults += [
            f"{one.name}: {key}"
            for key, value in one.environment.items()
            if value and (re.search(r"PASSWORD|SECRET|TOKEN|REDIS_URL", key) or re.search(r"://[^/]*:[^/@]+@", value))
        ]
    return faults


def dangling_in_compose(document: Mapping[str, Any]) -> list[str]:
    """Tell which volume, config, service or file is named and not there, and what is there and not named."""
    services, volumes, configs = document["services"], document.get("volumes", {}), document.get("configs", {})
    used_volumes, used_configs, faults = set(), set(), []
    for name, service in services.items():
        for mount in service.get("volumes", []):
            if isinstance(mount, str):
                used_volumes.add(mount.partition(":")[0])
        used_configs |= {config["source"] for config in service.get("configs", [])}
        for other, condition in service.get("depends_on", {}).items():
            if other not in services:
                faults.append(f"{name} depends on {other}")
            elif condition["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                faults.append(f"{name} waits for the health of {other}")
    faults += [f"volume {name}" for name in used_volumes ^ set(volumes)]
    faults += [f"config {name}" for name in used_configs ^ set(configs)]
    faults += [
        f"{config['file']} is missing"
        for config in configs.values()
        if "file" in config and not (INFRA / config["file"]).is_file()
    ]
    return faults


def unreachable_in_compose(document: Mapping[str, Any]) -> list[str]:
    """Tell which `host:port` of another container nobody listens on."""
    listening = {"redis": 6379, "postgres": 5432, "mlflow": 5000, "airflow-api-server": 8080}
    listening |= {"prometheus": 9090, "recommender": 8000}
    server = next(one for one in compose_containers(document) if one.name == "tensorflow-serving")
    ports = {part for part in server.command if re.match(r"--(port|rest_api_port)=", part)}
    listening_on = {(host, port) for host, port in listening.items() if host in document["services"]}
    listening_on |= {("tensorflow-serving", int(part.partition("=")[2])) for part in ports}
    faults = []
    for one in compose_containers(document):
        for key, value in one.environment.items():
            # What a port ends with tells it from a password that begins with a digit.
            for host, port in re.findall(r"(?:^|[@/])([a-z][a-z-]*):(\d+)(?=[/?,]|$)", value):
                if (host, int(port)) not in listening_on:
                    faults.append(f"{one.name}: {key}: {host}:{port}")
    for name, service in document["services"].items():
        for port in service.get("ports", []):
            inside = int(str(port).rpartition(":")[2])
            if (name, inside) not in listening_on | {("grafana", 3000)}:
                faults.append(f"{name}: {port}")
    return faults


def careless_services(document: Mapping[str, Any]) -> list[str]:
    """Tell which services lack a limit, a restart policy, a health check or a dropped privilege."""
    faults = []
    for name, service in document["services"].items():
        once = service.get("restart") == "no"
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        wanted = {
            "limits": {"cpus", "memory"} <= limits.keys(),
            "restart": service.get("restart") in {"no", "unless-stopped"},
            "healthcheck": once or "healthcheck" in service,
            "cap_drop": service.get("cap_drop") == ["ALL"],
            "no-new-privileges": "no-new-privileges:true" in service.get("security_opt", []),
        }
        faults += [f"{name}: {what}" for what, is_there in wanted.items() if not is_there]
    return faults


def careless_pods(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Tell where a deployment falls short of the restricted profile, of probes, or of draining."""
    faults = []
    for deployment in deployments(documents):
        name, pod = deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]
        pod_context = pod.get("securityContext", {})
        rolling = deployment["spec"]["strategy"].get("rollingUpdate", {})
        wanted = {
            "runAsNonRoot": pod_context.get("runAsNonRoot") is True and pod_context.get("runAsUser", 0) > 0,
            "seccomp": pod_context.get("seccompProfile") == {"type": "RuntimeDefault"},
            "no token": pod.get("automountServiceAccountToken") is False,
            "maxUnavailable": rolling.get("maxUnavailable") == 0,
            "replicas": "replicas" not in deployment["spec"],
        }
        for one in pod["containers"]:
            wanted |= {probe: probe in one for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
            sleep = one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            # What has no port has no connections to drain.
            wanted["drains"] = "ports" not in one or 5 <= sleep < pod.get("terminationGracePeriodSeconds", 30) - 5
        for one in (*pod["containers"], *pod.get("initContainers", [])):
            context = one.get("securityContext", {})
            wanted[f"{one['name']} locked"] = (
                context.get("readOnlyRootFilesystem") is True
                and context.get("allowPrivilegeEscalation") is False
                and context.get("capabilities") == {"drop": ["ALL"]}
            )
            resources = one.get("resources", {})
            wanted[f"{one['name']} resources"] = (
                "memory" in resources.get("limits", {}) and {"cpu", "memory"} <= resources.get("requests", {}).keys()
            )
        faults += [f"{name}: {what}" for what, is_there in wanted.items() if not is_there]
    return faults


def dangling_in_kubernetes(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tell which name refers to nothing: volumes, config maps, ports, selectors, targets."""
    pods = {one["metadata"]["name"]: one["spec"]["template"] for one in deployments(documents)}
    faults = [fault for name, pod in pods.items() for fault in dangling_in_pod(name, pod["spec"], documents)]
    for name, service in of_kind(documents, "Service").items():
        faults += dangling_in_service(name, service["spec"], pods.values())
    for kind, of in (("HorizontalPodAutoscaler", "scaleTargetRef"), ("PodDisruptionBudget", "selector")):
        for name, document in of_kind(documents, kind).items():
            target = document["spec"][of]
            labels = target.get("matchLabels", {})
            if target.get("name", labels.get("app.kubernetes.io/name")) not in pods:
                faults.append(f"{kind} {name}: {target}")
    settings, services = of_kind(documents, "ConfigMap")["kestrel-settings"]["data"], of_kind(documents, "Service")
    host, _, port = settings["KESTREL_MODEL_SERVER_GRPC"].partition(":")
    if host not in services or int(port) not in {one["port"] for one in services[host]["spec"]["ports"]}:
        faults.append(f"KESTREL_MODEL_SERVER_GRPC: {host}:{port} is no service")
    return faults


def dangling_in_pod(name: str, pod: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[str]:
    sources = {
        "configMap": ("name", of_kind(documents, "ConfigMap")),
        "persistentVolumeClaim": ("claimName", of_kind(documents, "PersistentVolumeClaim")),
    }
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    faults = [
        f"{name}: {kind} {volume[kind][key]}"
        for volume in volumes.values()
        for kind, (key, known) in sources.items()
        if kind in volume and volume[kind][key] not in known
    ]
    if pod["serviceAccountName"] not in of_kind(documents, "ServiceAccount"):
        faults.append(f"{name}: service account {pod['serviceAccountName']}")
    for one in (*pod["containers"], *pod.get("initContainers", [])):
        mounts = {mount["name"] for mount in one.get("volumeMounts", [])}
        faults += [f"{name}/{one['name']}: volume {mount}" for mount in mounts - volumes.keys()]
        faults += [f"{name}/{one['name']}: {fault}" for fault in unfit_ports(one)]
    return faults


def unfit_ports(container: Mapping[str, Any]) -> list[str]:
    """Tell which probe asks a port that the container does not state, and which port it listens on unstated."""
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    asked = {
        probe: (check.get("httpGet") or check["grpc"])["port"]
        for probe, check in container.items()
        if probe.endswith("Probe") and "exec" not in check
    }
    faults = [
        f"{probe} asks port {port}" for probe, port in asked.items() if port not in {*ports.keys(), *ports.values()}
    ]
    flags = (re.fullmatch(r"--(?:port|rest_api_port)=(\d+)", part) for part in container.get("args", []))
    given = {int(flag[1]) for flag in flags if flag}
    return [*faults, f"listens on {given}, states {ports}"] if given and given != set(ports.values()) else faults


def dangling_in_service(name: str, service: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> list[str]:
    chosen = [pod for pod in pods if service["selector"].items() <= pod["metadata"]["labels"].items()]
    if len(chosen) != 1:
        return [f"service {name}: selects {len(chosen)} deployments"]
    names = {port["name"] for one in chosen[0]["spec"]["containers"] for port in one["ports"]}
    return [f"service {name}: port {port}" for port in service["ports"] if port["targetPort"] not in names]
