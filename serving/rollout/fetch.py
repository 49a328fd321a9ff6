"""From the registry to the disk: a version is checked, appears whole or not at all, and is loaded as what it is."""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import PartKind
from feature_repo.contracts.publishing import publishing_directory
from serving.rollout import candidate
from serving.rollout.disk_space import room_for
from serving.rollout.errors import LostModelError
from serving.rollout.registry import SHA256_TAG
from serving.rollout.release_records import kind_of, signature_of
from serving.rollout.saved_models import check_checksum, check_signatures
from serving.rollout.version_folders import downloads, fault_of, set_aside, sweep
from serving.rollout.warmup import add_warmup

if TYPE_CHECKING:
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def bring_to_disk(model: ServingModel, version: int, run_id: str, sha256: str) -> None:
    """Put the SavedModel of a run under its version's number, checked; keep it, without the registry, if it lies there.

    A folder with other bytes stays until the right ones are there, and the server has let go of it: it loads them
    with the next reload.

    Raises:
        LostModelError: It has to be fetched, and the registry has it no longer.
        UnfitModelError: Checksum or signature are wrong.
        RegistryUnavailableError: It has to be fetched, and MLflow does not answer.
        TransientCallError: The server does not let go of what it has under the number.
    """
    path = model.version_path(version)
    sweep(model)
    fault = fault_of(path, sha256)
    if not fault:
        return
    log.info("%s: %s: fetching it", model.name, fault)
    registered = _registered(model, version, run_id, sha256, fault)
    with tempfile.TemporaryDirectory(prefix="download-", dir=downloads(model)) as folder, ExitStack() as swap:
        downloaded = model.registry.download_saved_model(registered, Path(folder))
        check_checksum(downloaded, sha256)
        if kind_of(registered) is PartKind.RANKER:
            check_signatures(downloaded, signature_of(model, registered))
        with room_for(str(path)), publishing_directory(path) as part:
            shutil.copytree(downloaded, part, dirs_exist_ok=True)
            add_warmup(model, registered, part)
            check_checksum(part, sha256)
            swap.enter_context(candidate.unloaded(model, version))
            swap.callback(shutil.rmtree, set_aside(path), ignore_errors=True)
    log.info("%s is published", path)


def _registered(model: ServingModel, version: int, run_id: str, sha256: str, fault: str) -> RegisteredVersion:
    registered = model.registry.find(model.name, version)
    if registered is not None and (registered.run_id, registered.tag(SHA256_TAG)) == (run_id, sha256):
        return registered
    now = f"run {registered.run_id} under this number" if registered is not None else "no such version"
    msg = (
        f"{model.name} version {version} of run {run_id} cannot be brought back: {fault}; the registry has {now}: "
        "promote another version, or roll back to one"
    )
    raise LostModelError(msg)
