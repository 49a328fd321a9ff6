"""Labels a loaded version `canary`, and lets the recommender send it a share of its requests; or ends that."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from serving.protocol.errors import CallError, TransientCallError
from serving.rollout import candidate
from serving.rollout.admission import admitted
from serving.rollout.composition import composed
from serving.rollout.errors import RolloutError
from serving.rollout.fetch import bring_to_disk
from serving.rollout.models_config import promoted_versions, read_models_config
from serving.rollout.registry import SHA256_TAG
from serving.rollout.release_records import part_of
from serving.rollout.switching import at_work
from serving.rollout.verdict import gated_version

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel


def canary(model: ServingModel, version: int) -> dict[str, object]:
    """Make `version` the canary; done again, or for the version in force, it changes nothing.

    Raises:
        RejectedError: The gates did not let it through.
        NumberTakenError: Another model serves under its number.
        CallError: The server refused it; it is withdrawn.
    """
    with at_work(model):
        registered = admitted(model, version)
        current = model.current()
        if current is not None and current.version == str(version):
            return {"model": model.name, "version": str(version), "canary": False}
        bring_to_disk(model, version, registered.run_id, registered.tag(SHA256_TAG))
        part, reason = part_of(model, registered)
        release = composed(model, {model.part: part}, reason)
        before = model.canary()
        if before is None or (before.version, before.run_id) != (part.version, part.run_id):
            _forget_earlier_comparison(model, version)
        try:
            candidate.label_canary(model, release)
        except TransientCallError:
            raise
        except CallError:
            candidate.withdraw(model, version)
            raise
    return {"model": model.name, "version": str(version), "canary": True}


def withdraw(model: ServingModel, version: int) -> dict[str, object]:
    """Take a version under test from the server and from the disk.

    Raises:
        RolloutError: It was promoted: others have to be promoted, or rolled back to, before it goes. Or there is no
            such version.
    """
    with at_work(model):
        if version in promoted_versions(read_models_config(model.places.models_config), model.name):
            msg = (
                f"{model.name}: expected a version under test, received version {version}, which is promoted; "
                "promote another version, or roll back to the one before, first"
            )
            raise RolloutError(msg)
        if not model.version_path(version).is_dir() and candidate.under_test(model) != version:
            gated_version(model, version)  # nothing is there to withdraw: is there such a version?
        candidate.withdraw(model, version)
    return {"model": model.name, "version": str(version)}


def _forget_earlier_comparison(model: ServingModel, version: int) -> None:
    model.comparison_path(version).unlink(missing_ok=True)
    shutil.rmtree(model.shadows_path(version), ignore_errors=True)
