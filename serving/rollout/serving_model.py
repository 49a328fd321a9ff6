"""One served model of a namespace's releases: its names, places, clients, and the lock of the whole namespace."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.manifests import MODEL_KINDS, Part, Release
from feature_repo.contracts.places import Serving
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.served_models import VERSION_MAX
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.rollout.errors import RolloutBusyError, UnknownVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serving.protocol.client import PredictClient
    from serving.protocol.replicas import Replicas
    from serving.rollout.registry import Registry
    from serving.rollout.settings import Settings

log = logging.getLogger(__name__)

_OF_ALL_PARTS = frozenset({"reconcile", "status"})
"""Commands that are about the whole release, whichever part asks for them."""


@dataclass(frozen=True, slots=True)
class ServingModel:
    """What every step needs to know of the part that it moves, and of the releases that the part belongs to."""

    namespace: str
    settings: Settings
    registry: Registry
    server: Replicas
    predictions: PredictClient
    part: str = RANKING_MODEL

    @property
    def name(self) -> str:
        """The model's name in the registry and on the server."""
        return model_name(self.namespace, self.part)

    def of(self, part: str) -> Self:
        """Return the same of another part of the namespace."""
        return dataclasses.replace(self, part=part)

    @property
    def places(self) -> Serving:
        """The shared folder."""
        return Serving(self.settings.state)

    @property
    def base_path(self) -> Path:
        """The folder of the versions."""
        return self.places.model(self.namespace, self.part)

    def version_path(self, version: int) -> Path:
        """The SavedModel of a version."""
        return self.base_path / str(version)

    def release_path(self, number: int) -> Path:
        """The Release with a number."""
        return self.places.releases(self.namespace) / f"v{number}.json"

    @property
    def current_release_path(self) -> Path:
        """The Release in force."""
        return self.places.current_release(self.namespace)

    def current_release(self) -> Release | None:
        """Return the Release in force, None before the first."""
        remedy = f"remove it, then {self.command('status')} names the version to publish and promote"
        release = _read_release(self.current_release_path, remedy)
        if release is not None and release.previous and not release.previous_parts:
            # Before there were parts, a release named the one before it by its number alone.
            before = self.readable_release(release.previous)
            return dataclasses.replace(release, previous_parts=before.parts) if before is not None else release
        return release

    def current(self) -> Part | None:
        """Return the part as the release in force has it, None if it has none."""
        release = self.current_release()
        return release.parts.get(self.part) if release is not None else None

    def before(self) -> Part | None:
        """Return the part as the release before the one in force has it, None if it has none."""
        release = self.current_release()
        return release.previous_parts.get(self.part) if release is not None else None

    def promoted_release(self, number: int) -> Release | None:
        """Return the Release that was promoted under `number`, None if none was."""
        remedy = (
            f"{self.command('reconcile')} writes it anew if it is in force or what a rollback goes back to; if not, "
            "remove it, and publish and promote its version again"
        )
        return _read_release(self.release_path(number), remedy)

    def release_numbers(self) -> list[int]:
        """Return the numbers of all releases that were promoted, newest first, whether they can be read or not."""
        found = (path.stem.removeprefix("v") for path in self.places.releases(self.namespace).glob("v*.json"))
        return sorted((int(number) for number in found if is_number(number)), reverse=True)

    def fault_of_record(self, number: int) -> str:
        """Return what is wrong with the record of a promotion; empty if nothing."""
        try:
            return "" if self.promoted_release(number) is not None else f"{self.release_path(number)} is missing"
        except CorruptRecordError:
            return f"{self.release_path(number)} is damaged"

    def readable_release(self, number: int) -> Release | None:
        """Return the Release that was promoted under `number`, None if there is none that can be read."""
        try:
            return self.promoted_release(number)
        except CorruptRecordError as error:
            log.warning("%s", error)
            return None

    def promoted_why(self, release: Release) -> str:
        """Return why `release` was promoted, which a rollback to it leaves as it was.

        Where no record of that promotion can be read, it is what `release` says.
        """
        promoted = self.readable_release(release.number)
        return promoted.why if promoted is not None and promoted.parts == release.parts else release.why

    def command(self, name: str, options: str = "") -> str:
        """Return a command of the rollout with its other options, for a message."""
        part = "" if self.part == RANKING_MODEL or name in _OF_ALL_PARTS else f" --part {self.part}"
        return f"`python -m serving.rollout {name} --namespace {self.namespace}{part}{options and f' {options}'}`"

    @property
    def meanwhile(self) -> str:
        """What users get while a new version is not let through, for a message."""
        return "no version serves yet" if self.current() is None else "the champion keeps serving"

    @property
    def canary_release_path(self) -> Path:
        """The Release of the canary, while there is one."""
        return self.places.canary_release(self.namespace, self.part)

    def canary_release(self) -> Release | None:
        """Return the canary's Release, None if nothing is compared."""
        return _read_release(self.canary_release_path, f"remove it, then {self.command('reconcile')} ends the canary")

    def canary(self) -> Part | None:
        """Return the part that is compared with the one in force, None if none is."""
        release = self.canary_release()
        return release.parts.get(self.part) if release is not None else None

    def comparison_path(self, version: int) -> Path:
        """The report of the comparison of a version with the one that was stable then."""
        part = "" if self.part == RANKING_MODEL else f"{self.part}-"
        return self.places.releases(self.namespace) / f"comparison-{part}v{version}.json"

    def shadows_path(self, version: int) -> Path:
        """What the recommenders saw of a canary."""
        return self.places.shadows(self.namespace, self.part) / f"v{version}"

    def write_pointer(self, path: Path, release: Release) -> None:
        """Point to a Release; a pointer that says so already keeps its date, which tells since when."""
        try:
            if Release.read(path) == release:
                return
        except (FileNotFoundError, CorruptRecordError):
            pass
        release.write(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else roll anything of this namespace out; the lock ends with the process, however it ends.

        Raises:
            RolloutBusyError: Somebody does.
        """
        path = self.places.root / "locks" / f"{self.namespace}.lock"
        with held(path, self.settings.rollout_lock_seconds, self.namespace):
            yield


def served_parts(parts: dict[str, Part]) -> list[Part]:
    """Return those that a model server serves."""
    return [part for part in parts.values() if part.kind in MODEL_KINDS]


def _read_release(path: Path, remedy: str) -> Release | None:
    """Return a Release, None if there is none; the versions of its parts are numbers.

    Raises:
        CorruptRecordError: It is no Release.
    """
    try:
        release = Release.read(path, remedy)
    except FileNotFoundError:
        return None
    for part in (*release.parts.values(), *release.previous_parts.values()):
        if not is_number(part.version):
            msg = f"{path}: expected versions such as 3, received {part.version!r}; {remedy}"
            raise CorruptRecordError(msg)
    return release


def is_number(text: str) -> bool:
    """Tell whether `text` is a version's number, as the registry counts."""
    short = len(text) <= len(str(VERSION_MAX))  # Python refuses to read thousands of digits
    return text.isascii() and text.isdigit() and short and 0 < int(text) <= VERSION_MAX


@contextmanager
def held(path: Path, timeout_s: float, what: str) -> Iterator[None]:
    """Hold a lock file.

    Raises:
        RolloutBusyError: Another process holds it for longer than `timeout_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=timeout_s):
            yield
    except Timeout as error:
        msg = f"{what}: another rollout holds {path}; one at a time, try again when it has ended"
        raise RolloutBusyError(msg) from error


def version_number(text: str) -> int:
    """Return a registry version as the number that names its folder.

    Raises:
        UnknownVersionError: It is no whole number above 0, or one that no registry gives.
    """
    if not is_number(text):
        msg = (
            f"version {text[:20]!r}: expected a number of the registry such as 3; `models gate` prints it, and "
            "`publish-file` that of a file"
        )
        raise UnknownVersionError(msg)
    return int(text)
