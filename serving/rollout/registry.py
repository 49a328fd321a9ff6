"""MLflow's model registry: the one module that talks to it."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import FULL_DISK
from serving.rollout.disk_space import full_disk
from serving.rollout.errors import RegistryUnavailableError, UnknownVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

    from feature_repo.contracts.manifests import Part

CHAMPION, PREVIOUS, CANDIDATE = "champion", "previous", "candidate"
DECISION_TAG, REASON_TAG, SHA256_TAG = "kestrel.decision", "kestrel.reason", "kestrel.saved_model_sha256"
APPROVAL_TAG = "kestrel.approval"
"""Of a version on hold: who approved it, and why."""
SAVED_MODEL = "saved_model"

# A server that is away is the orchestrator's matter: it tries again in a minute.
_CLIENT_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"})


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version of the registry. Its number alone does not tell who it is: see `is_of`."""

    model: str
    version: int
    run_id: str
    tags: Mapping[str, str]

    def tag(self, name: str) -> str:
        """Return a tag's value.

        Raises:
            UnknownVersionError: The version does not have it.
        """
        try:
            return self.tags[name]
        except KeyError:
            msg = (
                f"{self.model} version {self.version}: expected the tag {name}, found {sorted(self.tags)}; register "
                "it with `python -m models gate`"
            )
            raise UnknownVersionError(msg) from None

    def is_of(self, part: Part) -> bool:
        """Tell whether it is the model that `part` is: the same run, and the same bytes.

        A registered model that was deleted and made anew counts its versions from 1 again.
        """
        return (self.run_id, self.tags.get(SHA256_TAG)) == (part.run_id, part.checksum)


class Registry:
    """A client of the MLflow server at `uri`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        for name, value in _CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)

    @cached_property
    def _client(self) -> MlflowClient:
        """Made when it is first needed: a rollback moves the served version before MLflow has even been imported."""
        from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def version(self, model: str, version: int) -> RegisteredVersion:
        """Return a version of a model.

        Raises:
            UnknownVersionError: There is none.
            RegistryUnavailableError: MLflow does not answer.
        """
        with self._errors(f"{model} version {version}"):
            found = self._client.get_model_version(model, str(version))
        return RegisteredVersion(model, version, str(found.run_id or ""), dict(found.tags))

    def find(self, model: str, version: int) -> RegisteredVersion | None:
        """Return a version of a model, None if there is none (any longer).

        Raises:
            RegistryUnavailableError: MLflow does not answer.
        """
        try:
            return self.version(model, version)
        except UnknownVersionError:
            return None

    def run_stage(self, run_id: str) -> str:
        """Return the lifecycle stage of a run, `active` or `deleted`; nothing for one that is gone for good."""
        try:
            with self._errors(f"run {run_id}"):
                return str(self._client.get_run(run_id).info.lifecycle_stage)
        except UnknownVersionError:
            return ""

    def deleted_experiment(self, run_id: str) -> str:
        """Return the id of a run's experiment if that was deleted, and nothing if not, or the run is gone for good."""
        try:
            with self._errors(f"run {run_id}"):
                experiment = self._client.get_experiment(self._client.get_run(run_id).info.experiment_id)
        except UnknownVersionError:
            return ""
        return "" if experiment.lifecycle_stage == "active" else str(experiment.experiment_id)

    def aliases(self, model: str) -> dict[str, int]:
        """Return alias → version; none for a model that is not registered."""
        try:
            with self._errors(model):
                found = self._client.get_registered_model(model)
        except UnknownVersionError:
            return {}
        return {alias: int(version) for alias, version in found.aliases.items()}

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Point an alias to a version."""
        with self._errors(f"{model} alias {alias}"):
            self._client.set_registered_model_alias(model, alias, str(version))

    def delete_alias(self, model: str, alias: str) -> None:
        """Take an alias away; one that is not there, as of a model that was deleted, stays away."""
        with suppress(UnknownVersionError), self._errors(f"{model} alias {alias}"):
            self._client.delete_registered_model_alias(model, alias)

    def set_tag(self, model: str, version: int, name: str, value: str) -> None:
        """Tag a version."""
        with self._errors(f"{model} version {version} tag {name}"):
            self._client.set_model_version_tag(model, str(version), name, value)

    def keep_record(self, run_id: str, artifact: str, record: Mapping[str, object]) -> None:
        """Keep `record` as a JSON artifact of a run, in place of the one that was there."""
        with self._errors(f"run {run_id}, artifact {artifact}"):
            self._client.log_dict(run_id, dict(record), artifact)

    def download_saved_model(self, registered: RegisteredVersion, folder: Path) -> Path:
        """Bring a version's SavedModel into `folder` and return where it lies.

        Raises:
            UnknownVersionError: The version has none.
        """
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - takes seconds

        what = f"{registered.model} version {registered.version}"
        with self._errors(what):
            # A models:/ address would be looked up in the process-wide registry, which may be another one.
            source = self._client.get_model_version_download_uri(registered.model, str(registered.version))
            downloaded = Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=self._uri))
        path = downloaded / SAVED_MODEL
        if not path.is_dir():
            found = sorted(child.name for child in downloaded.iterdir())
            msg = f"{what}: expected a folder {SAVED_MODEL}/ among its artifacts, found {found}; register it anew"
            raise UnknownVersionError(msg)
        return path

    def download_run_file(self, run_id: str, artifact: str, folder: Path) -> Path:
        """Bring one file of a run into `folder` and return where it lies.

        Raises:
            UnknownVersionError: The run has no such artifact.
        """
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - takes seconds

        with self._errors(f"run {run_id}, artifact {artifact}"):
            path = download_artifacts(
                run_id=run_id, artifact_path=artifact, dst_path=str(folder), tracking_uri=self._uri
            )
        return Path(path)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds
        from requests.exceptions import RequestException  # noqa: PLC0415 - comes with MLflow

        try:
            yield
        except MlflowException as error:
            if any(os.strerror(number) in str(error) for number in FULL_DISK):
                raise full_disk(what, error) from error
            if error.error_code in _MISSING:
                msg = (
                    f"MLflow {self._uri}: {what}: not found: {error.message}; versions are registered by the task gate "
                    "of model_training, and MLflow's page of the model lists them"
                )
                raise UnknownVersionError(msg) from error
            msg = f"MLflow {self._uri}: {what}: {error.message}; is it running? KESTREL_MLFLOW_URI names its address"
            raise RegistryUnavailableError(msg) from error
        except (RequestException, ConnectionError) as error:
            msg = f"MLflow {self._uri}: {what}: {error}; is it running? KESTREL_MLFLOW_URI names its address"
            raise RegistryUnavailableError(msg) from error
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                msg = f"MLflow {self._uri}: {what}: not found: {error}"
                raise UnknownVersionError(msg) from error
            raise
