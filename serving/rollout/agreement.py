"""Whether pointer, models.config, running server, registry and disk agree. The pointer is the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.protocol.errors import CallError
from serving.rollout import candidate, journal
from serving.rollout.errors import RegistryUnavailableError
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
from serving.rollout.switching import served_labels
from serving.rollout.version_folders import damage_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feature_repo.contracts.manifests import Release
    from serving.protocol.client import VersionStatus
    from serving.rollout.serving_model import ServingModel


@dataclass(frozen=True, slots=True)
class Observed:
    """What each part says; None where a part does not answer, with its words in `silent`."""

    release: Release | None
    pending: journal.Intention | None
    candidate: int | None
    canary: Release | None
    configured: frozenset[int]
    labels: Mapping[str, int]
    server: tuple[VersionStatus, ...] | None
    server_labels: Mapping[str, int] | None
    aliases: Mapping[str, int] | None
    silent: list[str] = field(default_factory=list)

    @property
    def available(self) -> frozenset[int]:
        """The versions that the running server answers for."""
        return frozenset(one.version for one in self.server or () if one.state == "AVAILABLE")


def observe(model: ServingModel) -> Observed:
    """Ask every part; one that does not answer is noted."""
    config = read_models_config(model.places.models_config)
    silent: list[str] = []
    server: tuple[VersionStatus, ...] | None = None
    server_labels: dict[str, int] | None = None
    aliases: dict[str, int] | None = None
    try:
        server = model.server.model_status(model.name)
        found = {label: model.server.labelled_version(model.name, label) for label in (STABLE, PREVIOUS, CANARY)}
        server_labels = {label: version for label, version in found.items() if version is not None}
    except CallError as error:
        silent.append(str(error))
    try:
        aliases = model.registry.aliases(model.name)
    except RegistryUnavailableError as error:
        silent.append(str(error))
    return Observed(
        model.current_release(),
        journal.pending(model),
        candidate.under_test(model),
        model.canary_release(),
        configured_versions(config, model.name),
        labels_of(config, model.name),
        server,
        server_labels,
        aliases,
        silent,
    )


def disagreements(model: ServingModel, seen: Observed) -> list[str]:
    """Return every disagreement in a sentence that ends with the command that mends it."""
    mend = f"`python -m serving.rollout reconcile --namespace {model.namespace}` mends it"
    found = [f"{fault}; {mend}" for fault in _faults(model, seen)]
    champion = (seen.aliases or {}).get(CHAMPION)
    if seen.release is None and champion is not None:
        # No pointer, no truth: somebody has to decide.
        found.append(
            f"no release is in force, the registry's champion is {champion}; `python -m serving.rollout publish "
            f"--namespace {model.namespace} --version {champion}`, then `promote`, brings it back"
        )
    return found


def _faults(model: ServingModel, seen: Observed) -> Iterator[str]:
    force = f"version {seen.release.version}" if seen.release is not None else "none"
    force = f"the release in force is {force}"
    if seen.pending is not None:
        yield f"{seen.pending} has not come to its end (it is at work, or was cut off)"
    labels = served_labels(model, seen.release)
    in_force = {int(seen.release.version)} if seen.release is not None else set()
    for version in sorted(seen.configured | in_force):
        damage = damage_of(model, version)
        if damage:
            yield f"{force}, version {version} would not load: {damage}"
    yield from _canary_faults(seen)
    wanted = labels | ({CANARY: seen.labels[CANARY]} if CANARY in seen.labels else {})
    if (dict(seen.labels), set(seen.configured)) != (wanted, set(wanted.values())):
        yield f"{force}, models.config has versions {sorted(seen.configured)} with labels {dict(seen.labels)}"
    if seen.server is not None:
        expected = {*wanted.values()} if seen.candidate is None else {*wanted.values(), seen.candidate}
        if set(seen.available) != expected:
            yield f"{force}, the server has {sorted(seen.available)} AVAILABLE instead of {sorted(expected)}"
        elif seen.server_labels is not None and dict(seen.server_labels) != wanted:
            yield f"{force}, the running server has the labels {dict(seen.server_labels)} instead of {wanted}"
    if seen.aliases is not None and seen.release is not None:
        yield from _alias_faults(seen.release, seen.aliases, force)


def _canary_faults(seen: Observed) -> Iterator[str]:
    labelled = seen.labels.get(CANARY)
    pointed = int(seen.canary.version) if seen.canary is not None else None
    if (labelled, pointed) != (None, None) and not labelled == pointed == seen.candidate:
        yield (
            f"models.config labels {labelled} canary, the recommender is told of {pointed}, the version under test is "
            f"{seen.candidate}"
        )


def _alias_faults(release: Release, aliases: Mapping[str, int], force: str) -> Iterator[str]:
    if aliases.get(CHAMPION) != int(release.version):
        yield f"{force}, the registry's {CHAMPION} is {aliases.get(CHAMPION)}"
    before = int(release.previous_version) if release.previous_version else None
    if aliases.get(PREVIOUS_ALIAS) != before:
        found = aliases.get(PREVIOUS_ALIAS)
        yield f"the version before the release in force is {before}, the registry's previous is {found}"
