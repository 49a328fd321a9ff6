"""Whether pointer, models.config, running server, registry and disk agree. The pointer is the truth.

What the registry no longer has is no disagreement: nothing brings it back, and what serves serves on from the disk. It
is said (`losses`), and no alias is given to a namesake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from feature_repo.contracts.mlflow_commands import restore_experiment, restore_run
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.protocol.errors import CallError
from serving.rollout import candidate, journal
from serving.rollout.errors import RegistryUnavailableError
from serving.rollout.file_parts import file_faults
from serving.rollout.models_config import (
    CANARY,
    PREVIOUS,
    STABLE,
    configured_versions,
    labels_of,
    read_models_config,
)
from serving.rollout.registry import CHAMPION
from serving.rollout.registry import PREVIOUS as PREVIOUS_ALIAS
from serving.rollout.switching import served_labels, wanted_aliases
from serving.rollout.version_folders import damage_of, fault_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feature_repo.contracts.manifests import Part, Release
    from serving.protocol.client import VersionStatus
    from serving.rollout.candidate import Candidate
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

_INSTEAD = "promote another version, or roll back to one"


@dataclass(frozen=True, slots=True)
class Observed:
    """What each part says; None where a part does not answer, with its words in `silent`."""

    release: Release | None
    pending: journal.Intention | None
    current: Part | None
    """The model as the release has it; None if it has none."""
    before: Part | None
    """The model as the release before has it."""
    candidate: Candidate | None
    canary: Part | None
    configured: frozenset[int]
    labels: Mapping[str, int]
    server: tuple[VersionStatus, ...] | None
    server_labels: Mapping[str, int] | None
    aliases: Mapping[str, int] | None
    registered: Mapping[int, RegisteredVersion | None]
    """Of the versions in force, before it and under test, what the registry has under their numbers."""
    run_stages: Mapping[str, str]
    """Of the runs of those in force and before it: `active`, `deleted`, or nothing for one that is gone for good."""
    deleted_experiments: Mapping[str, str]
    """Of the same runs → the experiment, where it was deleted; empty where not."""
    silent: list[str] = field(default_factory=list)

    @property
    def under_test(self) -> int | None:
        """The number of the version under test."""
        return self.candidate.version if self.candidate is not None else None

    @property
    def available(self) -> frozenset[int]:
        """The versions that the running server answers for."""
        return frozenset(one.version for one in self.server or () if one.state == "AVAILABLE")


def observe(model: ServingModel) -> Observed:
    """Ask every part; one that does not answer is noted.

    Raises:
        CorruptRecordError: A record is damaged; the message names it, and what to do.
    """
    config = read_models_config(model.places.models_config)
    silent: list[str] = []
    server: tuple[VersionStatus, ...] | None = None
    server_labels: dict[str, int] | None = None
    aliases: dict[str, int] | None = None
    registered: dict[int, RegisteredVersion | None] = {}
    run_stages: dict[str, str] = {}
    deleted_experiments: dict[str, str] = {}
    release, tested = model.current_release(), candidate.in_journal(model)
    current, before = model.current(), model.before()
    released = [one for one in (current, before) if one is not None]
    try:
        server = model.server.model_status(model.name)
        found = {label: model.server.labelled_version(model.name, label) for label in (STABLE, PREVIOUS, CANARY)}
        server_labels = {label: version for label, version in found.items() if version is not None}
    except CallError as error:
        silent.append(str(error))
    try:
        numbers = {int(one.version) for one in released} | ({tested.version} if tested is not None else set())
        registered = {number: model.registry.find(model.name, number) for number in sorted(numbers)}
        run_stages = {one.run_id: model.registry.run_stage(one.run_id) for one in released}
        deleted_experiments = {one.run_id: model.registry.deleted_experiment(one.run_id) for one in released}
        aliases = model.registry.aliases(model.name)
    except RegistryUnavailableError as error:
        silent.append(str(error))
    return Observed(
        release,
        journal.pending(model),
        current,
        before,
        tested,
        model.canary(),
        configured_versions(config, model.name),
        labels_of(config, model.name),
        server,
        server_labels,
        aliases,
        registered,
        run_stages,
        deleted_experiments,
        silent,
    )


def losses(model: ServingModel, seen: Observed) -> list[str]:
    """Return what MLflow no longer has of the models that serve: a sentence each, with what follows from it."""
    if seen.aliases is None:
        return []
    found: list[str] = []
    for part, role, alias in (
        (seen.current, "is in force", CHAMPION),
        (seen.before if seen.before != seen.current else None, "is the one before", PREVIOUS_ALIAS),
    ):
        if part is not None:
            found += _losses(model, seen, part, role, alias)
    return found


def _recoverable(seen: Observed, part: Part) -> bool:
    """Tell whether the registry has the model that `part` is, as far as one knows."""
    registered = seen.registered.get(int(part.version))
    return seen.aliases is None or (registered is not None and registered.is_of(part))


def _losses(model: ServingModel, seen: Observed, part: Part, role: str, alias: str) -> Iterator[str]:
    what = f"{model.name} version {part.version} of run {part.run_id}, which {role}"
    registered = seen.registered.get(int(part.version))
    if registered is None or not registered.is_of(part):
        now = "is" if registered is None else f"(its number is run {registered.run_id}'s now) is"
        path = model.version_path(int(part.version))
        if not (damage := fault_of(path, part.checksum)):
            follows = f"it serves on from {path}, and no version is the {alias} until the next promotion"
        elif alias == CHAMPION:
            follows = f"{damage}, so that it cannot be brought back; {_INSTEAD}"
        else:
            follows = f"{damage}, so that there is nothing to go back to until the next promotion"
        yield f"{what}, {now} no longer in the registry: {follows}"
    uri = model.settings.mlflow_uri
    if experiment := seen.deleted_experiments.get(part.run_id):
        back = f"`{restore_experiment(uri, experiment)}` brings it back with its runs"
        yield f"{what}: the run's experiment is deleted in MLflow, so that nothing can be trained; {back}"
        return
    match seen.run_stages.get(part.run_id):
        case "active":
            return
        case "deleted":
            yield f"{what}: the run is deleted in MLflow; `{restore_run(uri, part.run_id)}` brings it back"
        case _:
            yield f"{what}: the run is gone from MLflow for good, with its records"


def disagreements(model: ServingModel, seen: Observed) -> list[str]:
    """Return every disagreement of one model in a sentence that ends with what mends it."""
    mend = f"{model.command('reconcile')} mends it"
    part = seen.current
    if part is not None and not _recoverable(seen, part) and damage_of(model, int(part.version)):
        mend = f"version {part.version} cannot be brought back, for the registry has it no longer: {_INSTEAD}"
    found = [f"{fault}; {mend}" for fault in _faults(model, seen)]
    champion = (seen.aliases or {}).get(CHAMPION)
    if seen.release is None and champion is not None:
        # No pointer, no truth: somebody has to decide.
        found.append(
            f"no release is in force, the registry's champion is {champion}; "
            f"{model.command('publish', f'--version {champion}')}, then `promote`, brings it back"
        )
    return found


def release_disagreements(model: ServingModel, seen: Observed) -> list[str]:
    """Return every disagreement about the release as a whole in a sentence that ends with what mends it."""
    mend = f"{model.command('reconcile')} mends it"
    found = []
    if seen.pending is not None:
        found.append(f"{seen.pending} has not come to its end (it is at work, or was cut off); {mend}")
    faults = ((number, model.fault_of_record(number)) for number in _recorded(seen.release))
    records = [
        f"release {one}: {fault}, the record that a later rollback reads; {mend}" for one, fault in faults if fault
    ]
    return [*found, *records, *(file_faults(model, seen.release) if seen.release is not None else [])]


def _recorded(release: Release | None) -> list[int]:
    """Return the numbers of the releases of which the pointer could write the records anew."""
    if release is None:
        return []
    return [release.number, release.previous] if release.previous and release.previous_parts else [release.number]


def _faults(model: ServingModel, seen: Observed) -> Iterator[str]:
    force = f"version {seen.current.version}" if seen.current is not None else "none"
    force = f"the release in force is {force}" + (f" of {model.part}" if model.part != RANKING_MODEL else "")
    labels = served_labels(model, seen.release)
    yield from _folder_faults(model, seen, force)
    yield from _canary_faults(seen)
    yield from _candidate_faults(seen)
    wanted = labels | ({CANARY: seen.labels[CANARY]} if CANARY in seen.labels else {})
    if (dict(seen.labels), set(seen.configured)) != (wanted, set(wanted.values())):
        yield f"{force}, models.config has versions {sorted(seen.configured)} with labels {dict(seen.labels)}"
    if seen.server is not None:
        expected = {*wanted.values()} if seen.candidate is None else {*wanted.values(), seen.candidate.version}
        if set(seen.available) != expected:
            yield f"{force}, the server has {sorted(seen.available)} AVAILABLE instead of {sorted(expected)}"
        elif seen.server_labels is not None and dict(seen.server_labels) != wanted:
            yield f"{force}, the running server has the labels {dict(seen.server_labels)} instead of {wanted}"
    if seen.aliases is not None and seen.release is not None:
        yield from _alias_faults(model, seen, seen.release, seen.aliases)


def _folder_faults(model: ServingModel, seen: Observed, force: str) -> Iterator[str]:
    in_force = {int(seen.current.version)} if seen.current is not None else set()
    for version in sorted(seen.configured | in_force):
        if damage := damage_of(model, version):
            yield f"{force}, version {version} would not load: {damage}"
    if seen.before is not None and int(seen.before.version) not in seen.configured:
        yield from _faults_before(model, seen, seen.before)


def _faults_before(model: ServingModel, seen: Observed, before: Part) -> Iterator[str]:
    version = int(before.version)
    if not (damage := damage_of(model, version)):
        return
    if _recoverable(seen, before):
        yield f"the version before is {version}, its folder is not what was promoted: {damage}"
    elif model.version_path(version).is_dir():  # without a folder it is one of the losses
        yield f"the version before is {version}, its folder, which nothing brings back, has to go: {damage}"


def candidate_is_lost(seen: Observed) -> bool:
    """Tell whether the registry no longer has the version under test: nothing can come of it."""
    if seen.candidate is None or seen.aliases is None:
        return False
    registered = seen.registered.get(seen.candidate.version)
    return registered is None or not seen.candidate.is_of(registered)


def _candidate_faults(seen: Observed) -> Iterator[str]:
    if seen.candidate is not None and candidate_is_lost(seen):
        of = f" of run {seen.candidate.run_id}" if seen.candidate.run_id else ""
        yield f"version {seen.candidate.version}{of} is under test, and no longer in the registry"


def _canary_faults(seen: Observed) -> Iterator[str]:
    labelled = seen.labels.get(CANARY)
    pointed = int(seen.canary.version) if seen.canary is not None else None
    if (labelled, pointed) != (None, None) and not labelled == pointed == seen.under_test:
        yield (
            f"models.config labels {labelled} canary, the recommender is told of {pointed}, the version under test is "
            f"{seen.under_test}"
        )


def _alias_faults(model: ServingModel, seen: Observed, release: Release, aliases: Mapping[str, int]) -> Iterator[str]:
    for alias, version in wanted_aliases(model, release, seen.registered.get).items():
        found = aliases.get(alias)
        if found != version:
            expected = f"version {version}" if version is not None else "none"
            whose = "in force" if alias == CHAMPION else "before the release in force"
            yield f"the registry's version {whose} is {expected}, its alias {alias} names {found}"
