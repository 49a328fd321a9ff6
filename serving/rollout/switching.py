"""Changes who serves: the one way there, whether forward or back.

Each step may be the last before a kill -9:

1. the intention is written down (`journal`)
2. models.config: of every part that is a model the version of the release and that of the one before it, labels
   `stable` and `previous`; a server started now serves both
3. the running server takes that configuration, every replica of it
4. `current.json`, the pointer: the recommender asks for the new versions from here on
5. the registry's aliases, `previous` and then `champion`, of each of these models
6. `v<number>.json`, of a promotion: what a later rollback comes back to; candidates' journals and old versions go
7. the intention goes into the history

Until 4 everybody gets the old release, whose models stay loaded throughout; after it everybody gets the new one,
whichever parts differ. So the pointer decides what becomes of a switch that was cut off: undone before 4, finished
after it. Every command that takes the namespace's lock does that first.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.manifests import FILE_KINDS
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.rollout import candidate, journal
from serving.rollout.fetch import bring_to_disk
from serving.rollout.file_parts import check_files
from serving.rollout.models_config import (
    PREVIOUS,
    STABLE,
    configured_parts,
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
from serving.rollout.serving_model import served_parts
from serving.rollout.version_folders import damage_of, prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from feature_repo.contracts.manifests import Release
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)


@contextmanager
def at_work(model: ServingModel) -> Iterator[str]:
    """Hold the namespace's lock, with whatever an earlier rollout left undone put right first.

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
    for one in members(model):
        one.canary_release()
        candidate.in_journal(one)
    journal.pending(model)
    journal.history(model)
    read_models_config(model.places.models_config)


def switch(model: ServingModel, kind: journal.Kind, release: Release, key: str) -> dict[str, object]:
    """Bring `release` into force; the caller holds the lock.

    Raises:
        CallError: The server refused; what served before serves on.
        RegistryUnavailableError: The new version serves, its aliases follow with the next command.
    """
    check_files(model, release)
    for part in served_parts(release.parts):
        bring_to_disk(model.of(part.name), int(part.version), part.run_id, part.checksum)
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
    said: dict[str, object] = {
        "model": model.name,
        "version": intention.version,
        "previous_version": intention.previous_version,
    }
    return said | ({"release": intention.release, "parts": intention.parts} if intention.parts else {})


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
        served = f"version {release.ranker.version} serves" if release is not None else "nothing serves yet"
        said = f"{model.name}: {intention} was cut off: undid it, {served}"
    log.warning("%s", said)
    return said


def serve(model: ServingModel, release: Release | None) -> None:
    """Make models.config and the running server serve `release` and the one before it; None: nothing but a canary.

    Raises:
        CallError: The server refused, or a version did not load.
    """
    models = members(model, release)
    labels = [served_labels(one, release) for one in models]
    with candidate.configuration_lock(model):
        leave_out_damaged(models)
        config = read_models_config(model.places.models_config)
        before = read_models_config(model.places.models_config)
        for one, own in zip(models, labels, strict=True):
            set_promoted(config, one.name, one.base_path, own)
        # A server refuses labels of versions that are not AVAILABLE.
        candidate.make_available([(one, _loadable(one, labels_of(config, one.name).values())) for one in models])
        keep_loadable(config)
        if config != before:
            write_models_config(model.places.models_config, config)
        candidate.reload_configured(models)


def _loadable(model: ServingModel, versions: Iterable[int]) -> list[int]:
    return [version for version in versions if not lacking(model.version_path(version))]


def members(model: ServingModel, release: Release | None = None) -> list[ServingModel]:
    """Return every served model of the namespace, the ranker first.

    Those are the models of `release` and of the one in force, with the ones before them, and whatever models.config
    names or is under test.
    """
    config = read_models_config(model.places.models_config)
    names = {model.part, *candidate.names(model), *configured_parts(config, model.namespace)}
    for one in filter(None, (release, model.current_release())):
        for part in (*one.parts.values(), *one.previous_parts.values()):
            names = names - {part.name} if part.kind in FILE_KINDS else names | {part.name}
    return [model.of(name) for name in sorted(names, key=lambda name: (name != RANKING_MODEL, name))]


def leave_out_damaged(models: Sequence[ServingModel]) -> None:
    """Take what is damaged of some models out of models.config; the caller holds the configuration's lock.

    A server that starts meanwhile, or that could not start for it, finds a configuration that loads.
    """
    path = models[0].places.models_config
    config, before = read_models_config(path), read_models_config(path)
    for model in models:
        versions = configured_versions(config, model.name)
        drop_versions(config, model.name, [version for version in versions if damage_of(model, version)])
    keep_loadable(config)
    if config != before:
        write_models_config(path, config)


def served_labels(model: ServingModel, release: Release | None) -> dict[str, int]:
    """Return label → version as `release` wants it; a version before it has no label if its files left, or changed.

    A release that keeps the part has both labels on one version: both tell of whole releases.
    """
    if release is None:
        return {}
    part, before = (parts.get(model.part) for parts in (release.parts, release.previous_parts))
    labels = {STABLE: int(part.version)} if part is not None else {}
    if before is not None and not damage_of(model, int(before.version)):
        labels[PREVIOUS] = int(before.version)
    return labels


def move_aliases(model: ServingModel, release: Release) -> None:
    """Make the registry's aliases of a model say what `release` says, as far as the registry has its versions still.

    Raises:
        RegistryUnavailableError: MLflow does not answer.
    """
    wanted = wanted_aliases(model, release, lambda version: model.registry.find(model.name, version))
    for alias, version in wanted.items():
        if version is not None:
            model.registry.set_alias(model.name, alias, version)
        else:
            if alias == CHAMPION:
                log.warning("%s: what is in force is not in the registry: it has no champion", model.name)
            model.registry.delete_alias(model.name, alias)


def wanted_aliases(
    model: ServingModel, release: Release, find: Callable[[int], RegisteredVersion | None]
) -> dict[str, int | None]:
    """Return alias → version as `release` wants it, `champion` last; None where the registry has no such model.

    Neither a version that was deleted nor another model that has its number now may bear the alias.
    """
    wanted: dict[str, int | None] = {}
    for alias, parts in ((PREVIOUS_ALIAS, release.previous_parts), (CHAMPION, release.parts)):
        one = parts.get(model.part)
        registered = find(int(one.version)) if one is not None else None
        wanted[alias] = registered.version if registered and one and registered.is_of(one) else None
    return wanted


def _finish(model: ServingModel, intention: journal.Intention, release: Release) -> None:
    models = members(model, release)
    for one in models:
        move_aliases(one, release)
    if intention.kind is journal.Kind.PROMOTION:
        model.write_pointer(model.release_path(release.number), release)
    for one in models:
        if one.part in release.parts:
            candidate.forget(one, int(release.parts[one.part].version))
        prune(one, candidate.under_test(one))
    journal.done(model, intention)


def _undo(model: ServingModel, before: Release | None) -> None:
    """Put a switch back that failed; what cannot be put back now is left to the next command."""
    try:
        serve(model, before)
    except (JobError, OSError) as error:
        log.warning("%s: the server could not be put back, the next command does it: %s", model.name, error)
    else:
        journal.drop(model)
