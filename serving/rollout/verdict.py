"""What the gates decided of a version, read from the registry's tags, and whether it counts still."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import RejectedError
from feature_repo.contracts.manifests import Decision
from feature_repo.contracts.served_models import CHAMPION_RUN_TAG, CHAMPION_VERSION_TAG
from serving.rollout.errors import UnknownVersionError
from serving.rollout.file_parts import file_versions
from serving.rollout.registry import APPROVAL_TAG, CHAMPION, DECISION_TAG, REASON_TAG, RegisteredVersion

if TYPE_CHECKING:
    from feature_repo.contracts.manifests import Part
    from serving.rollout.serving_model import ServingModel


def verdict(model: ServingModel, version: int) -> dict[str, object]:
    """Return the version if the gates let it through, beside the champion that it would replace.

    Raises:
        RejectedError: They did not, and the message is their reason; or they compared it with another champion.
        UnknownVersionError: The registry has no such version, or no verdict on it.
    """
    registered = gated_version(model, version)
    require_promotion(model, registered)
    require_comparison(model, registered)
    return {"model": model.name, "version": str(version), "decision": Decision.PROMOTE.value}


def gated_version(model: ServingModel, version: int) -> RegisteredVersion:
    """Return a version that the registry has; no gate judges a file, and no server loads it.

    Raises:
        UnknownVersionError: The registry has no such version, or the part is a file.
    """
    if files := file_versions(model):
        msg = (
            f"part {model.part}: expected a model of the registry, received a file, of which {[*files]} are published; "
            f"it needs none of the steps of a model: {model.command('promote', f'--version {max(files)}')}"
        )
        raise UnknownVersionError(msg)
    return model.registry.version(model.name, version)


def require_promotion(model: ServingModel, registered: RegisteredVersion) -> None:
    """Refuse a version that the gates did not let through, nor put on hold for a person who has approved it.

    Raises:
        RejectedError: They did not; the message is their reason.
    """
    decision = registered.tag(DECISION_TAG)
    if decision == Decision.PROMOTE or (decision == Decision.HOLD and APPROVAL_TAG in registered.tags):
        return
    reason = registered.tags.get(REASON_TAG, f"{decision}, and no reason was recorded").rstrip(".")
    approve = model.command("approve", f'--version {registered.version} --name "who" --reason "why"')
    remedy = (
        f"who has looked lets it through: {approve}, then trigger model_rollout"
        if decision == Decision.HOLD
        else "train again with more data or another config"
    )
    staying = "" if "the champion stays" in reason else f"; {model.meanwhile}"
    msg = f"{registered.model} version {registered.version}: {reason}{staying}; {remedy}"
    raise RejectedError(msg)


def require_comparison(model: ServingModel, registered: RegisteredVersion) -> None:
    """Refuse a version that would replace a champion with which the gates never compared it.

    Raises:
        RejectedError: It would.
    """
    if unmet := unmet_champion(model, registered):
        promote = model.command("promote", f'--version {registered.version} --despite-champion "the reason"')
        msg = (
            f"{registered.model} version {registered.version}: {unmet}; compare them with "
            f"{models_command(model, registered, 'evaluate')} and {models_command(model, registered, 'gate')}, or "
            f"trigger model_training. To promote it all the same: {promote}"
        )
        raise RejectedError(msg)


def unmet_champion(model: ServingModel, registered: RegisteredVersion) -> str:
    """Return with whom the gates compared a version instead of the champion that it would replace.

    Empty if it was that champion, if there is none to replace, if the version is the champion itself, and if it was
    gated before the champion was recorded.
    """
    judged = registered.tags.get(CHAMPION_RUN_TAG)
    champion = _champion(model) if judged is not None else None
    if champion is None or champion.run_id in {judged, registered.run_id}:
        return ""
    version = registered.tags.get(CHAMPION_VERSION_TAG)
    met = f"version {version} of run {judged}" if judged else "no champion, for there was none"
    return f"the gates compared it with {met}, and the champion is version {champion.version} of run {champion.run_id}"


def models_command(model: ServingModel, registered: RegisteredVersion, name: str) -> str:
    """Return a command of the model plane on the run of a version, for a message."""
    tags = {name: registered.tags.get(f"kestrel.{name}", "...") for name in ("training_set_id", "run_key")}
    return (
        f"`python -m models {name} --namespace {model.namespace} --training-set {tags['training_set_id']} --run-key "
        f"{tags['run_key']}`"
    )


def _champion(model: ServingModel) -> Part | RegisteredVersion | None:
    """Return what is in force; where there is nothing, what the alias names: so `models evaluate` has it, too."""
    current = model.current()
    if current is not None:
        return current
    alias = model.registry.aliases(model.name).get(CHAMPION)
    return model.registry.find(model.name, alias) if alias is not None else None
