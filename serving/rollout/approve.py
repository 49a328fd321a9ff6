"""Lets a version through that the gates have put on hold: a person has looked, and says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import RejectedError
from feature_repo.contracts.manifests import Decision
from serving.rollout import journal
from serving.rollout.registry import APPROVAL_TAG, DECISION_TAG
from serving.rollout.switching import at_work
from serving.rollout.verdict import gated_version

if TYPE_CHECKING:
    from serving.rollout.serving_model import ServingModel


def approve(model: ServingModel, version: int, name: str, reason: str) -> dict[str, object]:
    """Tag a version that is on hold as approved, and enter that into the history; a second time changes nothing.

    Args:
        model: Whose version it is.
        version: Its number in the registry.
        name: Who approves.
        reason: Why, for whoever asks later.

    Raises:
        RejectedError: The version is not on hold.
        UnknownVersionError: The registry has no such version, or no verdict on it.
    """
    with at_work(model):
        registered = gated_version(model, version)
        decision = registered.tag(DECISION_TAG)
        if decision != Decision.HOLD:
            msg = f"{model.name} version {version}: expected one on hold, the gates said {decision}; nothing to approve"
            raise RejectedError(msg)
        approval = registered.tags.get(APPROVAL_TAG)
        if approval is None:
            approval = f"{name}: {reason}"
            now = datetime.now(UTC).isoformat(timespec="seconds")
            kind = journal.Kind.APPROVAL
            journal.done(
                model, journal.Intention(kind, str(version), "", approval, "", now, registered.run_id, model.part)
            )
            model.registry.set_tag(model.name, version, APPROVAL_TAG, approval)
    return {"model": model.name, "version": str(version), "approved": approval}
