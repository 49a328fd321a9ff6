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
        try:
            return Release.read(self.current_release_path)
        except FileNotFoundError:
            return None

    def promoted_release(self, version: int) -> Release | None:
        """Return the Release with which `version` was promoted last, None if it never was."""
        try:
            return Release.read(self.release_path(version))
        except FileNotFoundError:
            return None

    def release_before(self, release: Release) -> Release | None:
        """Return the Release that `release` goes back to, None if there is none that can be read."""
        try:
            return self.promoted_release(int(release.previous_version)) if release.previous_version else None
        except CorruptRecordError as error:
            log.warning("%s", error)
            return None

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
        try:
            return Release.read(self.canary_release_path)
        except FileNotFoundError:
            return None

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
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(VERSION_MAX)) and 0 < int(text) <= VERSION_MAX):
        msg = f"version {text[:20]!r}: expected a number of the registry such as 3; `models gate` prints it"
        raise UnknownVersionError(msg)
    return int(text)
