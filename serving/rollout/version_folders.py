"""Versions on disk: each comes from the registry, is checked, appears whole or not at all, and leaves the same way."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release
from feature_repo.contracts.publishing import publishing_directory, sync_directory
from serving.rollout.disk_space import room_for
from serving.rollout.errors import UnfitModelError
from serving.rollout.models_config import configured_versions, read_models_config
from serving.rollout.release_records import signature_of
from serving.rollout.saved_models import check_checksum, check_signatures, lacking
from serving.rollout.warmup import add_warmup

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def bring_to_disk(model: ServingModel, version: int, sha256: str) -> None:
    """Put a version's SavedModel under its name, checked; keep it, without asking the registry, if it lies there.

    Raises:
        UnfitModelError: Checksum or signature are wrong.
        RegistryUnavailableError: It has to be fetched, and MLflow does not answer.
    """
    path = model.version_path(version)
    _sweep(model)
    if path.is_dir():
        try:
            check_checksum(path, sha256)
        except UnfitModelError:
            # It stays until another is there: a server that has it in memory unloads it when its folder goes.
            log.warning("%s is damaged: fetching it anew", path)
        else:
            return
    registered = model.registry.version(model.name, version)
    with tempfile.TemporaryDirectory(prefix="download-", dir=_downloads(model)) as folder:
        downloaded = model.registry.download_saved_model(registered, Path(folder))
        check_checksum(downloaded, sha256)
        check_signatures(downloaded, signature_of(model, registered))
        remove_version(path)
        with room_for(str(path)), publishing_directory(path) as part:
            shutil.copytree(downloaded, part, dirs_exist_ok=True)
            add_warmup(model, registered, part)
            check_checksum(part, sha256)
    log.info("%s is published", path)


def damage_of(model: ServingModel, version: int) -> str:
    """Return what keeps a version on disk from being served: a part that is missing, or changed; empty if nothing.

    What it should be, its release says; without one, only what is missing is found.
    """
    path = model.version_path(version)
    release = _release(model, version)
    fault = lacking(path)
    if fault or release is None:
        return fault
    try:
        check_checksum(path, release.saved_model_sha256)
    except UnfitModelError:
        return f"the files in {path} are not those that were registered"
    return ""


def _release(model: ServingModel, version: int) -> Release | None:
    for path in (model.current_release_path, model.canary_release_path, model.release_path(version)):
        try:
            release = Release.read(path)
        except FileNotFoundError:
            continue
        if release.version == str(version):
            return release
    return None


def remove_version(path: Path) -> None:
    """Delete a version's folder; it leaves its name first, so that nobody loads half of it."""
    if not path.is_dir():
        return
    aside = path.with_name(f".{path.name}.withdrawn")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    sync_directory(path.parent)
    shutil.rmtree(aside)


def on_disk(model: ServingModel) -> list[int]:
    """Return the versions that lie on disk, newest first."""
    if not model.base_path.is_dir():
        return []
    return sorted((int(path.name) for path in model.base_path.iterdir() if path.name.isdigit()), reverse=True)


def prune(model: ServingModel) -> list[int]:
    """Delete the oldest versions beyond those that are kept or served, and return them."""
    served = configured_versions(read_models_config(model.places.models_config), model.name)
    found = on_disk(model)
    kept = {*found[: model.settings.rollout_keep_versions], *served}
    gone = [version for version in found if version not in kept]
    for version in gone:
        remove_version(model.version_path(version))
    return gone


def _downloads(model: ServingModel) -> Path:
    path = model.places.root / "downloads" / model.name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _sweep(model: ServingModel) -> None:
    """Remove what a killed publication left: only this process, which holds the lock, could be using it."""
    for pattern, folder in ((".*", model.base_path), ("download-*", _downloads(model))):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
