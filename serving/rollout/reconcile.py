"""Makes server, configuration and registry agree with the pointer again, whatever came between them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import CorruptRecordError
from serving.rollout import candidate
from serving.rollout.agreement import candidate_is_lost, disagreements, losses, observe, rebuildable
from serving.rollout.errors import DisagreementError, LostModelError, UnfitModelError, UnknownVersionError
from serving.rollout.fetch import bring_to_disk
from serving.rollout.models_config import (
    canary_version,
    keep_loadable,
    read_models_config,
    set_canary,
    write_models_config,
)
from serving.rollout.release_records import release_of
from serving.rollout.switching import at_work, leave_out_damaged, move_aliases, serve
from serving.rollout.version_folders import damage_of, remove_version

if TYPE_CHECKING:
    from serving.rollout.agreement import Observed
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def reconcile(model: ServingModel) -> dict[str, object]:
    """Finish or undo what was cut off, and mend every disagreement; say what MLflow has lost and nothing mends.

    Raises:
        TransientError: The server or the registry does not answer.
        CorruptRecordError: A record is damaged that only a person may remove; nothing was changed.
        DisagreementError: Something is left that a person has to decide.
    """
    with at_work(model) as recovered:
        seen = observe(model)
        mended = disagreements(model, seen)
        if mended or seen.silent:
            irreparable = _mend(model, seen)
            seen = observe(model)
            left = disagreements(model, seen)
            if left:
                why = (
                    f"{irreparable}; there is nothing to go back to until the next promotion"
                    if irreparable
                    else left[0]
                )
                msg = f"{model.name}: expected every part to agree with the release in force, received: {why}"
                raise DisagreementError(msg)
        for fault in mended:
            log.warning("%s: %s: done", model.name, fault)
    lost = losses(model, seen)
    for loss in lost:
        log.warning("%s", loss)
    release = seen.release
    return {
        "model": model.name,
        "version": release.version if release is not None else None,
        "recovered": recovered,
        "mended": mended,
        "lost": lost,
    }


def _mend(model: ServingModel, seen: Observed) -> str:
    """Mend what can be, and return why the version before cannot be brought back; empty if it can, or there is none."""
    with candidate.configuration_lock(model):
        leave_out_damaged(model)  # before anything that needs server or registry
    _mend_canary(model, seen)
    if seen.release is not None:
        bring_to_disk(model, int(seen.release.version), seen.release.run_id, seen.release.saved_model_sha256)
        if model.fault_in_force(seen.release):
            model.write_pointer(model.release_path(int(seen.release.version)), seen.release)
    irreparable = _mend_before(model, seen)
    serve(model, seen.release)
    if seen.release is not None:
        move_aliases(model, seen.release)
    return irreparable


def _mend_before(model: ServingModel, seen: Observed) -> str:
    """Bring back record and folder of what there is to go back to; where that is lost, nothing beats another model."""
    before, registered = seen.before, rebuildable(model, seen)
    try:
        if before is None and seen.fault_before and registered is not None:
            before = release_of(model, registered, previous_version="")
            before.write(model.release_path(registered.version))
        if before is not None:
            bring_to_disk(model, int(before.version), before.run_id, before.saved_model_sha256)
    except (LostModelError, UnfitModelError, UnknownVersionError, CorruptRecordError) as error:
        log.warning("%s; there is no version to go back to", error)
        if before is not None:
            remove_version(model.version_path(int(before.version)))
        return str(error)
    return ""


def _mend_canary(model: ServingModel, seen: Observed) -> None:
    """End a canary of which not everybody knows, and a candidate that was promoted or is lost."""
    config = read_models_config(model.places.models_config)
    labelled = canary_version(config, model.name)
    pointed = int(seen.canary.version) if seen.canary is not None else None
    under_test = seen.under_test
    damaged = under_test is not None and damage_of(model, under_test)  # by the canary's release, while there is one
    if not labelled == pointed == under_test:
        model.canary_release_path.unlink(missing_ok=True)
        set_canary(config, model.name, model.base_path, None)
        keep_loadable(config)
        write_models_config(model.places.models_config, config)
    in_force = int(seen.release.version) if seen.release is not None else None
    if under_test is not None and (under_test == in_force or damaged):
        candidate.forget(model, under_test)
    elif under_test is not None and candidate_is_lost(seen):
        candidate.withdraw(model, under_test)
