"""Registry → disk → server: a version is checked, appears whole or not at all, and is loaded beside the old one."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import publishing_directory
from serving.protocol.errors import CallError, TransientCallError
from serving.rollout import candidate
from serving.rollout.errors import UnfitModelError
from serving.rollout.models_config import promoted_versions, read_models_config
from serving.rollout.registry import SHA256_TAG, RegisteredVersion
from serving.rollout.saved_models import check_checksum, check_signatures
from serving.rollout.verdict import require_promotion

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def publish(model: ServingModel, version: int) -> dict[str, object]:
    """Bring a version from the registry to AVAILABLE; done again, it changes nothing.

    Raises:
        RejectedError: The gates did not let it through.
        UnfitModelError: Its checksum or its signatures are wrong; nothing was published.
        CallError: It did not load; it is withdrawn, and what was served is served still.
    """
    with model.locked():
        registered = model.registry.version(model.name, version)
        require_promotion(registered)
        is_available = candidate.is_available(model, version)  # also: is there a server at all?
        bring_to_disk(model, registered)
        promoted = version in promoted_versions(read_models_config(model.places.models_config), model.name)
        if not (promoted and is_available):
            _load_or_withdraw(model, version)
    return {"model": model.name, "version": str(version)}


def _load_or_withdraw(model: ServingModel, version: int) -> None:
    try:
        candidate.load(model, version)
    except TransientCallError:
        raise  # no verdict on the version: the next try takes it up
    except CallError:
        candidate.withdraw(model, version)
        raise


def bring_to_disk(model: ServingModel, registered: RegisteredVersion) -> None:
    """Put a version's SavedModel under its name, checked; keep it if it lies there already.

    Raises:
        UnfitModelError: Checksum or signature are wrong.
    """
    path, expected = model.version_path(registered.version), registered.tag(SHA256_TAG)
    _sweep(model)
    if path.is_dir():
        try:
            check_checksum(path, expected)
        except UnfitModelError:
            log.warning("%s is damaged: fetching it anew", path)
            candidate.remove_version(path)
        else:
            check_signatures(path, model.signature)
            return
    with tempfile.TemporaryDirectory(prefix="download-", dir=_downloads(model)) as folder:
        downloaded = model.registry.download_saved_model(registered, Path(folder))
        check_checksum(downloaded, expected)
        check_signatures(downloaded, model.signature)
        with publishing_directory(path) as part:
            shutil.copytree(downloaded, part, dirs_exist_ok=True)
            check_checksum(part, expected)
    log.info("%s is published", path)


def _downloads(model: ServingModel) -> Path:
    path = model.places.root / "downloads" / model.name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _sweep(model: ServingModel) -> None:
    """Remove what a killed publication left: only this process, which holds the lock, could be using it."""
    for pattern, folder in ((".*", model.base_path), ("download-*", _downloads(model))):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def prune(model: ServingModel) -> list[int]:
    """Delete the oldest versions beyond those that are kept or served, and return them."""
    if not model.base_path.is_dir():
        return []
    served = promoted_versions(read_models_config(model.places.models_config), model.name)
    on_disk = sorted((int(path.name) for path in model.base_path.iterdir() if path.name.isdigit()), reverse=True)
    kept = {*on_disk[: model.settings.rollout_keep_versions], *served}
    gone = [version for version in on_disk if version not in kept]
    for version in gone:
        candidate.remove_version(model.version_path(version))
    return gone
