"""The server configurations that cases run against, and the models each one must have loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Setup:
    """One server configuration."""

    doc: str
    config: str
    """A ModelServerConfig in text format; ``{ROOT}`` stands for the folder of the models."""
    ready: dict[str, list[int]]
    """Model name to the versions that are AVAILABLE before the first case is sent."""
    flags: tuple[str, ...] = ()
    """Flags beyond ports and configuration file; ``{MONITORING_FILE}`` is filled in."""


def _model(name: str, extra: str = "") -> str:
    return f'  config {{ name: "{name}" base_path: "{{ROOT}}/{name}" model_platform: "tensorflow"{extra} }}\n'


_OTHERS = _model("ranker") + _model("multi_output_bytes")
_BASIC = "model_config_list {\n" + _model("half_plus_two") + _OTHERS + "}\n"
_TWO_VERSIONS = " model_version_policy { specific { versions: 1 versions: 2 } }"
_LABELS = (
    ' version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    ' version_labels { key: "with-dash_1.0" value: 2 }'
)
_TWO_LABELLED = _model("half_plus_two", _TWO_VERSIONS + _LABELS)
_READY = {"half_plus_two": [2], "ranker": [1], "multi_output_bytes": [1]}

MONITORING_CONFIG = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'

SETUPS: dict[str, Setup] = {
    "basic": Setup("every model, newest version only, no further flag", _BASIC, _READY),
    "labels": Setup(
        "half_plus_two with versions 1 and 2 loaded, labels stable=1 and canary=2",
        "model_config_list {\n" + _TWO_LABELLED + _OTHERS + "}\n",
        {**_READY, "half_plus_two": [1, 2]},
        ("--allow_version_labels_for_unavailable_models=true",),
    ),
    "health": Setup(
        "basic with the gRPC health service",
        _BASIC,
        _READY,
        ("--enable_grpc_healthcheck_service=true",),
    ),
    "monitoring": Setup(
        "basic with the Prometheus page",
        _BASIC,
        _READY,
        ("--monitoring_config_file={MONITORING_FILE}",),
    ),
}


def config_text(setup: Setup, models: Path) -> str:
    """Return the setup's configuration with the absolute folder of the models filled in."""
    return setup.config.replace("{ROOT}", str(models.resolve()))
