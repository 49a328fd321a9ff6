"""Makes server, configuration and registry agree with the pointer again, whatever came between them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release
from serving.rollout import candidate
from serving.rollout.agreement import candidate_is_lost, disagreements, losses, observe, release_disagreements
from serving.rollout.errors import DisagreementError, LostModelError, UnfitModelError, UnknownVersionError
from serving.rollout.fetch import bring_to_disk
from serving.rollout.models_config import (
    canary_version,
    keep_loadable,
    read_models_config,
    set_canary,
    write_models_config,
)
from serving.rollout.serving_model import served_parts
from serving.rollout.switching import at_work, leave_out_damaged, members, move_aliases, serve
from serving.rollout.version_folders import damage_of, remove_version

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        seen = _observed(model)
        mended = _disagreements(model, seen)
        if mended or any(one.silent for _, one in seen):
            irreparable = _mend(model, seen)
            seen = _observed(model)
            left = _disagreements(model, seen)
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
    lost = [loss for one, own in seen for loss in losses(one, own)]
    for loss in lost:
        log.warning("%s", loss)
    part = model.current()
    return {
        "model": model.name,
        "version": part.version if part is not None else None,
        "recovered": recovered,
        "mended": mended,
        "lost": lost,
    }


def _observed(model: ServingModel) -> list[tuple[ServingModel, Observed]]:
    return [(one, observe(one)) for one in members(model)]


def _disagreements(model: ServingModel, seen: Sequence[tuple[ServingModel, Observed]]) -> list[str]:
    found = [fault for one, own in seen for fault in disagreements(one, own)]
    return [*release_disagreements(model, seen[0][1]), *found]


def _mend(model: ServingModel, seen: Sequence[tuple[ServingModel, Observed]]) -> str:
    """Mend what can be, and return why a version before cannot be brought back; empty if each can, or there is none."""
    models, release = [one for one, _ in seen], model.current_release()
    with candidate.configuration_lock(model):
        leave_out_damaged(models)  # before anything that needs server or registry
    for one, own in seen:
        _mend_canary(one, own)
    if release is not None:
        _bring_back(model, release)
    irreparable = "; ".join(filter(None, [_mend_before(one, own) for one, own in seen]))
    serve(model, release)
    if release is not None:
        for one in models:
            move_aliases(one, release)
    return irreparable


def _bring_back(model: ServingModel, release: Release) -> None:
    """Bring back what a release in force is made of, and the records that later rollbacks read."""
    for part in served_parts(release.parts):
        bring_to_disk(model.of(part.name), int(part.version), part.run_id, part.checksum)
    if model.fault_of_record(release.number):
        model.write_pointer(model.release_path(release.number), release)
    if release.previous and release.previous_parts and model.fault_of_record(release.previous):
        why = f"not known any longer: the record was lost, and made anew of release {release.number}"
        before = Release(model.namespace, release.previous, release.previous_parts, 0, {}, why)
        before.write(model.release_path(before.number))


def _mend_before(model: ServingModel, seen: Observed) -> str:
    """Bring back the folder of what there is to go back to; where that is lost, nothing beats another model."""
    before = seen.before
    try:
        if before is not None:
            bring_to_disk(model, int(before.version), before.run_id, before.checksum)
    except (LostModelError, UnfitModelError, UnknownVersionError) as error:
        log.warning("%s; there is no version to go back to", error)
        if before is not None and before != seen.current:
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
    in_force = int(seen.current.version) if seen.current is not None else None
    if under_test is not None and (under_test == in_force or damaged):
        candidate.forget(model, under_test)
    elif under_test is not None and candidate_is_lost(seen):
        candidate.withdraw(model, under_test)
