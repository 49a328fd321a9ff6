"""One served model: its names, places, clients and lock."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.manifests import Release
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


@dataclass(frozen=True, slots=True)
class ServingModel:
    """What every step needs to know of the model that it moves."""

    namespace: str
    settings: Settings
    registry: Registry
    server: Replicas
    predictions: PredictClient
    kind: str = RANKING_MODEL

    @property
    def name(self) -> str:
        """The model's name in the registry and on the server."""
        return model_name(self.namespace, self.kind)

    @property
    def places(self) -> Serving:
        """The shared folder."""
        return Serving(self.settings.state)

    @property
    def base_path(self) -> Path:
        """The folder of the versions."""
        return self.places.model(self.namespace, self.kind)

    def version_path(self, version: int) -> Path:
        """The SavedModel of a version."""
        return self.base_path / str(version)

    def release_path(self, version: int) -> Path:
        """The Release of a version."""
        return self.places.releases(self.namespace, self.kind) / f"v{version}.json"

    @property
    def current_release_path(self) -> Path:
        """The Release in force."""
        return self.places.current_release(self.namespace, self.kind)

    def current_release(self) -> Release | None:
        """Return the Release in force, None before the first."""
        remedy = f"remove it, then {self.command('status')} names the version to publish and promote"
        return _read_release(self.current_release_path, remedy)

    def promoted_release(self, version: int) -> Release | None:
        """Return the Release with which `version` was promoted last, None if it never was."""
        remedy = (
            f"{self.command('reconcile')} writes it anew if it is what a rollback goes back to; if not, remove it, and "
            f"publish and promote version {version} again"
        )
        return _read_release(self.release_path(version), remedy)

    def fault_before(self, release: Release) -> str:
        """Return what is wrong with the record of the version before `release`; empty if nothing, or there is none."""
        return self._fault_of_record(int(release.previous_version)) if release.previous_version else ""

    def fault_in_force(self, release: Release) -> str:
        """Return what is wrong with the record that a later rollback to `release` reads; empty if nothing."""
        return self._fault_of_record(int(release.version))

    def _fault_of_record(self, version: int) -> str:
        try:
            return "" if self.promoted_release(version) is not None else f"{self.release_path(version)} is missing"
        except CorruptRecordError:
            return f"{self.release_path(version)} is damaged"

    def release_before(self, release: Release) -> Release | None:
        """Return the Release that `release` goes back to, None if there is none that can be read."""
        return self.readable_release(int(release.previous_version)) if release.previous_version else None

    def readable_release(self, version: int) -> Release | None:
        """Return the Release with which `version` was promoted last, None if there is none that can be read."""
        try:
            return self.promoted_release(version)
        except CorruptRecordError as error:
            log.warning("%s", error)
            return None

    def promoted_why(self, release: Release) -> str:
        """Return why the version of `release` was promoted, which a rollback to it leaves as it was.

        Where no record of that promotion can be read, it is what `release` says.
        """
        promoted = self.readable_release(int(release.version))
        return promoted.verdict if promoted is not None and promoted.run_id == release.run_id else release.verdict

    def command(self, name: str) -> str:
        """Return a command of the rollout, for a message."""
        return f"`python -m serving.rollout {name} --namespace {self.namespace}`"

    @property
    def meanwhile(self) -> str:
        """What users get while a new version is not let through, for a message."""
        return "no version serves yet" if self.current_release() is None else "the champion keeps serving"

    @property
    def canary_release_path(self) -> Path:
        """The Release of the canary, while there is one."""
        return self.places.canary_release(self.namespace, self.kind)

    def canary_release(self) -> Release | None:
        """Return the canary's Release, None if nothing is compared."""
        return _read_release(self.canary_release_path, f"remove it, then {self.command('reconcile')} ends the canary")

    def comparison_path(self, version: int) -> Path:
        """The report of the comparison of a version with the one that was stable then."""
        return self.places.releases(self.namespace, self.kind) / f"comparison-v{version}.json"

    def shadows_path(self, version: int) -> Path:
        """What the recommenders saw of a canary."""
        return self.places.shadows(self.namespace, self.kind) / f"v{version}"

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
        """Let nobody else roll this model out; the lock ends with the process, however it ends.

        Raises:
            RolloutBusyError: Somebody does.
        """
        with held(self.places.root / "locks" / f"{self.name}.lock", self.settings.rollout_lock_seconds, self.name):
            yield


def _read_release(path: Path, remedy: str) -> Release | None:
    """Return a Release, None if there is none; its versions are numbers.

    Raises:
        CorruptRecordError: It is no Release.
    """
    try:
        release = Release.read(path, remedy)
    except FileNotFoundError:
        return None
    for version in (release.version, release.previous_version or "1"):
        if not is_number(version):
            msg = f"{path}: expected versions such as 3, received {version!r}; {remedy}"
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
        msg = f"version {text[:20]!r}: expected a number of the registry such as 3; `models gate` prints it"
        raise UnknownVersionError(msg)
    return int(text)
