"""Versions on disk: each leaves its name before it goes, and only what nobody needs goes. `fetch` brings them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import sync_directory
from serving.rollout.errors import UnfitModelError
from serving.rollout.models_config import configured_versions, read_models_config
from serving.rollout.saved_models import check_checksum, lacking

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.manifests import Part
    from serving.rollout.serving_model import ServingModel


def damage_of(model: ServingModel, version: int) -> str:
    """Return what keeps a version on disk from being served: a part that is missing, or changed; empty if nothing.

    What it should be, its release says; without one, only what is missing is found.
    """
    path, part = model.version_path(version), _part(model, version)
    return lacking(path) if part is None else fault_of(path, part.checksum)


def fault_of(path: Path, sha256: str) -> str:
    """Return what is wrong with a version's folder; empty if it holds the SavedModel with that checksum, whole."""
    if fault := lacking(path):
        return fault
    try:
        check_checksum(path, sha256)
    except UnfitModelError:
        return f"the files in {path} are not those that were registered"
    return ""


def _part(model: ServingModel, version: int) -> Part | None:
    """Return the part by which a version is in force, under test, or what there is to go back to."""
    found = (model.current(), model.canary(), model.before())
    return next((one for one in found if one is not None and int(one.version) == version), None)


def remove_version(path: Path) -> None:
    """Delete a version's folder; it leaves its name first, so that nobody loads half of it."""
    if path.is_dir():
        shutil.rmtree(set_aside(path))


def set_aside(path: Path) -> Path:
    """Take a version's folder, if there is one, from its name; return where it is then."""
    aside = path.with_name(f".{path.name}.withdrawn")
    shutil.rmtree(aside, ignore_errors=True)
    if path.is_dir():
        path.rename(aside)
        sync_directory(path.parent)
    return aside


def on_disk(model: ServingModel) -> list[int]:
    """Return the versions that lie on disk, newest first."""
    if not model.base_path.is_dir():
        return []
    return sorted((int(path.name) for path in model.base_path.iterdir() if path.name.isdigit()), reverse=True)


def prune(model: ServingModel, under_test: int | None) -> list[int]:
    """Delete the oldest versions beyond those that are kept, served or under test, and return them."""
    served = configured_versions(read_models_config(model.places.models_config), model.name)
    found = on_disk(model)
    kept = {*found[: model.settings.rollout_keep_versions], *served, under_test}
    gone = [version for version in found if version not in kept]
    for version in gone:
        remove_version(model.version_path(version))
    return gone


def downloads(model: ServingModel) -> Path:
    """Return the folder, of the same file system, into which versions are downloaded."""
    path = model.places.root / "downloads" / model.name
    path.mkdir(parents=True, exist_ok=True)
    return path


def sweep(model: ServingModel) -> None:
    """Remove what a killed publication left: only this process, which holds the lock, could be using it."""
    for pattern, folder in ((".*", model.base_path), ("download-*", downloads(model))):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
