"""Which registered version a rollout may take up under its number.

A number names a folder, a label and a Release, and a model server loads it once. But the registry gives numbers anew:
a registered model that was deleted and made again counts its versions from 1. So two versions are the same if run and
checksum are, whatever their numbers (docs/decisions/0100).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from serving.rollout import candidate
from serving.rollout.errors import NumberTakenError
from serving.rollout.verdict import gated_version, models_command, require_promotion

if TYPE_CHECKING:
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


def admitted(model: ServingModel, version: int) -> RegisteredVersion:
    """Return a registered version that may be rolled out; the caller holds the lock.

    A version under test that had its number before is withdrawn: nobody was served by it.

    Raises:
        RejectedError: The gates did not let it through.
        NumberTakenError: Another model serves under its number.
        UnknownVersionError: The registry has no such version.
    """
    registered = gated_version(model, version)
    require_promotion(model, registered)
    require_number(model, registered)
    before = candidate.in_journal(model)
    if before is not None and before.version == version and not before.is_of(registered):
        log.warning("%s version %d: run %s had the number under test before", model.name, version, before.run_id)
        candidate.withdraw(model, version)
    return registered


def require_number(model: ServingModel, registered: RegisteredVersion) -> None:
    """Refuse a version under whose number another model is in force, or is the one to go back to.

    Raises:
        NumberTakenError: Such a model serves.
    """
    for part, role in ((model.current(), "is in force"), (model.before(), "is the one to go back to")):
        if part is not None and part.version == str(registered.version) and not registered.is_of(part):
            msg = (
                f"{model.name} version {part.version}: expected run {part.run_id}, which {role}, found run "
                f"{registered.run_id} in the registry, which was begun anew; give it a number of its own with "
                f"{models_command(model, registered, 'gate')}, and roll that out"
            )
            raise NumberTakenError(msg)
