"""models.config: a ModelServerConfig in protobuf text format → checked entries, one per model."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.model_server.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

PLATFORM = "tensorflow"


class PolicyKind(Enum):
    """Which of the versions on disk are served."""

    LATEST = "latest"
    ALL = "all"
    SPECIFIC = "specific"


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The newest `count` versions, all of them, or those named."""

    kind: PolicyKind = PolicyKind.LATEST
    count: int = 1
    versions: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the configuration."""

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


Entries = dict[str, ModelEntry]


def single_model(name: str, base_path: str) -> model_server_config_pb2.ModelServerConfig:
    """Return the configuration that `--model_name` and `--model_base_path` stand for."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    return config


def read_config_file(path: Path) -> model_server_config_pb2.ModelServerConfig | None:
    """Return the configuration in `path`; None while there is no such file, an empty one while it is empty.

    Raises:
        ServingError: The file is no ModelServerConfig in text format; the message names file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"Cannot read model config file {path}: {error}"
        raise invalid(msg) from error
    try:
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        msg = f"Invalid protobuf file: '{path}': expected a ModelServerConfig in text format: {error}"
        raise invalid(msg) from error


def entries_of(config: model_server_config_pb2.ModelServerConfig, current: Mapping[str, ModelEntry]) -> Entries:
    """Check a configuration against itself and against what is served, and return its models by name.

    Raises:
        ServingError: INVALID_ARGUMENT; nothing of the configuration is to be used.
    """
    entries: Entries = {}
    for model in config.model_config_list.config:
        if not model.name:
            msg = f"Illegal to list a model without a name in config list; base_path is {model.base_path}"
            raise invalid(msg)
        if model.name in entries:
            msg = f"Illegal to list model {model.name} multiple times in config list"
            raise invalid(msg)
        _check_platform(model, model.name in current)
        entries[model.name] = ModelEntry(
            model.name, _base_path(model), _policy(model), MappingProxyType(dict(model.version_labels))
        )
    return entries


def _check_platform(model: model_server_config_pb2.ModelConfig, served: bool) -> None:  # noqa: FBT001 - private, one call
    if model.model_type and model.model_platform:
        msg = (
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform, "
            f"model name is {model.name}"
        )
        raise invalid(msg)
    if not model.model_type and not model.model_platform:
        msg = (
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
        raise invalid(msg)
    platform = model.model_platform or (PLATFORM if model.model_type == model_server_config_pb2.TENSORFLOW else "other")
    if platform == PLATFORM:
        return
    if served:
        msg = (
            f"Illegal to change a model's platform. For model {model.name} platform was {PLATFORM} and new platform "
            f"requested is {platform}"
        )
        raise invalid(msg)
    msg = f"Model {model.name} requests unsupported platform {platform}"
    raise invalid(msg)


def _base_path(model: model_server_config_pb2.ModelConfig) -> Path:
    path = Path(model.base_path)
    if not path.is_absolute():
        msg = f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
        raise invalid(msg)
    return path


def _policy(model: model_server_config_pb2.ModelConfig) -> VersionPolicy:
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(PolicyKind.ALL)
        case "specific":
            if not policy.specific.versions:
                msg = f"No specific versions requested for servable {model.name}."
                raise invalid(msg)
            return VersionPolicy(PolicyKind.SPECIFIC, versions=frozenset(policy.specific.versions))
        case "latest":
            return VersionPolicy(PolicyKind.LATEST, count=max(1, policy.latest.num_versions))
    return VersionPolicy()
