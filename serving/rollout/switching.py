"""Changes who serves: the one way there, whether forward or back.

Each step may be the last before a kill -9:

1. the intention is written down (`journal`)
2. models.config: the version and the one before it, labels `stable` and `previous`; a server started now serves both
3. the running server takes that configuration, every replica of it
4. `current.json`, the pointer: the recommender asks for the new version from here on
5. the registry's aliases, `previous` and then `champion`
6. `v<version>.json`, of a promotion: what a later rollback comes back to; the candidate's journal and old versions go
7. the intention goes into the history

Until 4 everybody gets the old version, which stays loaded throughout; after it everybody gets the new one. So the
pointer decides what becomes of a switch that was cut off: undone before 4, finished after it. Every command that takes
the model's lock does that first.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import JobError
from serving.rollout import candidate, journal
from serving.rollout.fetch import bring_to_disk
from serving.rollout.models_config import (
    PREVIOUS,
    STABLE,
    configured_versions,
    drop_versions,
    keep_loadable,
    labels_of,
    read_models_config,
    set_promoted,
    write_models_config,
)
from serving.rollout.registry import CHAMPION
from serving.rollout.registry import PREVIOUS as PREVIOUS_ALIAS
from serving.rollout.saved_models import lacking
from serving.rollout.version_folders import damage_of, prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_repo.contracts.manifests import Release
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


@contextmanager
def at_work(model: ServingModel) -> Iterator[str]:
    """Hold the model's lock, with whatever an earlier rollout left undone put right first.

    Yields what that was, for a person; empty if there was nothing.

    Raises:
        RolloutBusyError: Another rollout is at work.
        CorruptRecordError: A record is damaged; nothing was changed.
        TransientError: The server or the registry, which is needed to put it right, does not answer.
    """
    with model.locked():
        check_records(model)
        yield recover(model)


def check_records(model: ServingModel) -> None:
    """Read every record that a step may come upon, so that a damaged one stops it before it has changed anything.

    Raises:
        CorruptRecordError: One is damaged; the message names it, and what to do.
    """
    model.current_release()
    model.canary_release()
    candidate.in_journal(model)
    journal.pending(model)
    journal.history(model)
    read_models_config(model.places.models_config)


def switch(model: ServingModel, kind: journal.Kind, release: Release, key: str) -> dict[str, object]:
    """Bring `release` into force; the caller holds the lock.

    Raises:
        CallError: The server refused; what served before serves on.
        RegistryUnavailableError: The new version serves, its aliases follow with the next command.
    """
    bring_to_disk(model, int(release.version), release.run_id, release.saved_model_sha256)
    before = model.current_release()
    intention = journal.intend(model, kind, release, key)
    try:
        serve(model, release)
        model.server.check_unchanged()
    except (JobError, OSError):
        _undo(model, before)
        raise
    model.write_pointer(model.current_release_path, release)
    _finish(model, intention, release)
    return result(model, intention)


def result(model: ServingModel, intention: journal.Intention) -> dict[str, object]:
    """Return what a job prints of a switch."""
    return {"model": model.name, "version": intention.version, "previous_version": intention.previous_version}


def recover(model: ServingModel) -> str:
    """Finish or undo what a killed rollout left, and say which; empty if it left nothing. The caller holds the lock."""
    intention = journal.pending(model)
    if intention is None:
        return ""
    release = model.current_release()
    if release is not None and intention.is_in_force(release):
        _finish(model, intention, release)
        said = f"{model.name}: {intention} was cut off: finished it"
    else:
        serve(model, release)
        journal.drop(model)
        served = f"version {release.version} serves" if release is not None else "nothing serves yet"
        said = f"{model.name}: {intention} was cut off: undid it, {served}"
    log.warning("%s", said)
    return said


def serve(model: ServingModel, release: Release | None) -> None:
    """Make models.config and the running server serve `release` and the one before it; None: nothing but a canary.

    Raises:
        CallError: The server refused, or a version did not load.
    """
    labels = served_labels(model, release)
    with candidate.configuration_lock(model):
        leave_out_damaged(model)
        config = read_models_config(model.places.models_config)
        before = read_models_config(model.places.models_config)
        set_promoted(config, model.name, model.base_path, labels)
        # A server refuses labels of versions that are not AVAILABLE.
        wanted = labels_of(config, model.name).values()
        candidate.make_available(model, [one for one in wanted if not lacking(model.version_path(one))])
        keep_loadable(config)
        if config != before:
            write_models_config(model.places.models_config, config)
        candidate.reload_configured(model)


def leave_out_damaged(model: ServingModel) -> None:
    """Take what is damaged out of models.config; the caller holds the configuration's lock.

    A server that starts meanwhile, or that could not start for it, finds a configuration that loads.
    """
    config = read_models_config(model.places.models_config)
    before = read_models_config(model.places.models_config)
    versions = configured_versions(config, model.name)
    drop_versions(config, model.name, [version for version in versions if damage_of(model, version)])
    keep_loadable(config)
    if config != before:
        write_models_config(model.places.models_config, config)


def served_labels(model: ServingModel, release: Release | None) -> dict[str, int]:
    """Return label → version as `release` wants it; a version before it has no label if its files left, or changed."""
    if release is None:
        return {}
    labels = {STABLE: int(release.version)}
    if release.previous_version and not damage_of(model, int(release.previous_version)):
        labels[PREVIOUS] = int(release.previous_version)
    return labels


def move_aliases(model: ServingModel, release: Release) -> None:
    """Make the registry's aliases say what `release` says, as far as the registry has those models still.

    Raises:
        RegistryUnavailableError: MLflow does not answer.
    """
    wanted = wanted_aliases(model, release, lambda version: model.registry.find(model.name, version))
    for alias, version in wanted.items():
        if version is not None:
            model.registry.set_alias(model.name, alias, version)
        else:
            if alias == CHAMPION:
                log.warning("%s version %s is not in the registry: it has no champion", model.name, release.version)
            model.registry.delete_alias(model.name, alias)


def wanted_aliases(
    model: ServingModel, release: Release, find: Callable[[int], RegisteredVersion | None]
) -> dict[str, int | None]:
    """Return alias → version as `release` wants it, `champion` last; None where the registry has no such model.

    Neither a version that was deleted nor another model that has its number now may bear the alias.
    """
    wanted: dict[str, int | None] = {}
    for alias, one in ((PREVIOUS_ALIAS, model.release_before(release)), (CHAMPION, release)):
        registered = find(int(one.version)) if one is not None else None
        wanted[alias] = registered.version if registered and one and registered.is_of(one) else None
    return wanted


def _finish(model: ServingModel, intention: journal.Intention, release: Release) -> None:
    move_aliases(model, release)
    if intention.kind is journal.Kind.PROMOTION:
        model.write_pointer(model.release_path(int(release.version)), release)
    candidate.forget(model, int(release.version))
    prune(model, candidate.under_test(model))
    journal.done(model, intention)


def _undo(model: ServingModel, before: Release | None) -> None:
    """Put a switch back that failed; what cannot be put back now is left to the next command."""
    try:
        serve(model, before)
    except (JobError, OSError) as error:
        log.warning("%s: the server could not be put back, the next command does it: %s", model.name, error)
    else:
        journal.drop(model)
