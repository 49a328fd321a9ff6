"""What the gates decided about a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import RejectedError
from feature_repo.contracts.manifests import Decision
from serving.rollout.registry import DECISION_TAG, REASON_TAG, RegisteredVersion

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel


def verdict(model: ServingModel, version: int) -> dict[str, object]:
    """Return the version if the gates let it through.

    Raises:
        RejectedError: They did not; the message is their reason.
        UnknownVersionError: The registry has no such version, or no verdict on it.
    """
    registered = model.registry.version(model.name, version)
    require_promotion(model, registered)
    return {"model": model.name, "version": str(version), "decision": Decision.PROMOTE.value}


def require_promotion(model: ServingModel, registered: RegisteredVersion) -> None:
    """Refuse a version that the gates did not let through.

    Raises:
        RejectedError: They did not; the message is their reason.
    """
    decision = registered.tag(DECISION_TAG)
    if decision != Decision.PROMOTE:
        reason = registered.tags.get(REASON_TAG, "no reason was recorded")
        msg = f"{registered.model} version {registered.version}: {decision}: {reason}; {model.meanwhile}"
        raise RejectedError(msg)
