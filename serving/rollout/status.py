"""What is served, since when, why, and whether server, pointer and registry agree."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from serving.protocol.errors import CallError
from serving.rollout.errors import RegistryUnavailableError
from serving.rollout.models_config import STABLE, model_entry, promoted_versions, read_models_config
from serving.rollout.registry import CHAMPION

if TYPE_CHECKING:
    from serving.protocol.client import VersionStatus
    from serving.rollout.serving_model import ServingModel


def status(model: ServingModel) -> dict[str, object]:
    """Describe the model's release, server and registry; a part that does not answer is one of the problems."""
    problems: list[str] = []
    release = model.current_release()
    config = read_models_config(model.places.models_config)
    entry = model_entry(config, model.name)
    labels = dict(entry.version_labels) if entry is not None else {}
    try:
        versions: tuple[VersionStatus, ...] = model.server.model_status(model.name)
    except CallError as error:
        versions = ()
        problems.append(str(error))
    try:
        aliases = model.registry.aliases(model.name)
    except RegistryUnavailableError as error:
        aliases = {}
        problems.append(str(error))
    version = int(release.version) if release is not None else None
    available = sorted(one.version for one in versions if one.state == "AVAILABLE")
    if not problems:
        problems += _disagreements(version, available, labels.get(STABLE), aliases.get(CHAMPION))
    return {
        "model": model.name,
        "version": release.version if release is not None else None,
        "run_id": release.run_id if release is not None else None,
        "since": _since(model) if release is not None else None,
        "why": release.verdict if release is not None else None,
        "previous_version": release.previous_version if release is not None else None,
        "configured": sorted(promoted_versions(config, model.name)),
        "labels": labels,
        "server": [asdict(one) for one in versions],
        "aliases": aliases,
        "agree": not problems,
        "problems": problems,
    }


def _disagreements(version: int | None, available: list[int], stable: int | None, champion: int | None) -> list[str]:
    remedy = "promote it again, or roll back"
    found = []
    if version is not None and version not in available:
        found.append(f"the release in force is {version}, the server has {available} AVAILABLE; {remedy}")
    if version != stable:
        found.append(f"the release in force is {version}, models.config labels {stable} stable; {remedy}")
    if version != champion:
        found.append(f"the release in force is {version}, the registry's champion is {champion}; {remedy}")
    return found


def _since(model: ServingModel) -> str:
    return datetime.fromtimestamp(model.current_release_path.stat().st_mtime, UTC).isoformat(timespec="seconds")
