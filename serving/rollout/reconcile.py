"""Makes server, configuration and registry agree with the pointer again, whatever came between them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from serving.rollout import candidate
from serving.rollout.agreement import disagreements, observe
from serving.rollout.errors import DisagreementError
from serving.rollout.models_config import (
    canary_version,
    keep_loadable,
    read_models_config,
    set_canary,
    write_models_config,
)
from serving.rollout.registry import PREVIOUS
from serving.rollout.switching import at_work, leave_out_damaged, move_aliases, serve
from serving.rollout.version_folders import bring_to_disk, damage_of

if TYPE_CHECKING:
    from serving.rollout.agreement import Observed
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def reconcile(model: ServingModel) -> dict[str, object]:
    """Finish or undo what was cut off, and mend every disagreement.

    Raises:
        TransientError: The server or the registry does not answer.
        DisagreementError: Something is left that a person has to decide.
    """
    with at_work(model) as recovered:
        seen = observe(model)
        mended = disagreements(model, seen)
        if mended or seen.silent:
            _mend(model, seen)
            left = disagreements(model, observe(model))
            if left:
                msg = f"{model.name}: expected every part to agree with the release in force, received: {left[0]}"
                raise DisagreementError(msg)
        for fault in mended:
            log.warning("%s: %s: done", model.name, fault)
    release = seen.release
    return {
        "model": model.name,
        "version": release.version if release is not None else None,
        "recovered": recovered,
        "mended": mended,
    }


def _mend(model: ServingModel, seen: Observed) -> None:
    with candidate.configuration_lock(model):
        leave_out_damaged(model)  # before anything that needs server or registry
    _mend_canary(model, seen)
    if seen.release is not None:
        bring_to_disk(model, int(seen.release.version), seen.release.saved_model_sha256)
    serve(model, seen.release)
    if seen.release is not None:
        move_aliases(model, seen.release)
        if not seen.release.previous_version:
            model.registry.delete_alias(model.name, PREVIOUS)


def _mend_canary(model: ServingModel, seen: Observed) -> None:
    """End a canary of which not everybody knows, and a candidate whose folder is gone or that was promoted."""
    config = read_models_config(model.places.models_config)
    labelled = canary_version(config, model.name)
    pointed = int(seen.canary.version) if seen.canary is not None else None
    under_test = seen.candidate
    damaged = under_test is not None and damage_of(model, under_test)  # by the canary's release, while there is one
    if not labelled == pointed == under_test:
        model.canary_release_path.unlink(missing_ok=True)
        set_canary(config, model.name, model.base_path, None)
        keep_loadable(config)
        write_models_config(model.places.models_config, config)
    in_force = int(seen.release.version) if seen.release is not None else None
    if under_test is not None and (under_test == in_force or damaged):
        candidate.forget(model, under_test)
