"""Registry → disk → server: a version is checked, appears whole or not at all, and is loaded beside the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.protocol.errors import CallError, TransientCallError
from serving.rollout import candidate
from serving.rollout.models_config import promoted_versions, read_models_config
from serving.rollout.registry import SHA256_TAG
from serving.rollout.switching import at_work
from serving.rollout.verdict import require_promotion
from serving.rollout.version_folders import bring_to_disk

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel


def publish(model: ServingModel, version: int) -> dict[str, object]:
    """Bring a version from the registry to AVAILABLE; done again, it changes nothing.

    Raises:
        RejectedError: The gates did not let it through.
        UnfitModelError: Its checksum or its signatures are wrong; nothing was published.
        CallError: It did not load; it is withdrawn, and what was served is served still.
    """
    with at_work(model):
        registered = model.registry.version(model.name, version)
        require_promotion(registered)
        is_available = candidate.is_available(model, version)  # also: is there a server at all?
        bring_to_disk(model, version, registered.tag(SHA256_TAG))
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
