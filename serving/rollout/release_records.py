"""Makes the Release of a registered version out of what its MLflow run recorded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.manifests import Release, TrainingSet, Verdict
from feature_repo.contracts.schemas import Schema
from feature_repo.contracts.signatures import ranking
from serving.rollout.errors import UnknownVersionError
from serving.rollout.registry import SHA256_TAG

if TYPE_CHECKING:
    from feature_repo.contracts.signatures import Signature
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

TRAINING_SET_ARTIFACT = "training_set.json"
VERDICT_ARTIFACT = "gates/verdict.json"


def signature_of(model: ServingModel, registered: RegisteredVersion) -> Signature:
    """Return what the version takes and returns, by the schema of the data set that it was trained on.

    Raises:
        UnknownVersionError: The run lacks its record of the training set.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-release-") as folder:
        return _signature(_training_set(model, registered, Path(folder)))


def release_of(model: ServingModel, registered: RegisteredVersion, previous_version: str) -> Release:
    """Return the Release of a version that follows `previous_version`.

    Raises:
        UnknownVersionError: The run lacks an artifact or has the verdict on another, or the version lacks its checksum.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-release-") as folder:
        training_set = _training_set(model, registered, Path(folder))
        verdict = Verdict.read(model.registry.download_run_file(registered.run_id, VERDICT_ARTIFACT, Path(folder)))
    if verdict.run_id != registered.run_id:
        msg = (
            f"{model.name} version {registered.version}, artifact {VERDICT_ARTIFACT}: expected the verdict on run "
            f"{registered.run_id}, received that on run {verdict.run_id}; gate it anew"
        )
        raise UnknownVersionError(msg)
    return Release(
        namespace=model.namespace,
        model=model.kind,
        version=str(registered.version),
        run_id=registered.run_id,
        saved_model_sha256=registered.tag(SHA256_TAG),
        feature_service=training_set.feature_service,
        feature_service_hash=training_set.feature_service_hash,
        views=training_set.views,
        inputs=[column.name for column in _signature(training_set).input_columns],
        training_set_id=training_set.training_set_id,
        train_end=training_set.train_end,
        cutoff=training_set.cutoff,
        item_embeddings=training_set.item_embeddings,
        item_embeddings_sha256=training_set.item_embeddings_sha256,
        verdict=verdict.reason,
        previous_version=previous_version,
    )


def previous_of(current: Release | None, version: int) -> str:
    """Return the version that a promotion of `version` replaces; of a repeated promotion, what the first replaced."""
    if current is None:
        return ""
    return current.previous_version if current.version == str(version) else current.version


def _training_set(model: ServingModel, registered: RegisteredVersion, folder: Path) -> TrainingSet:
    return TrainingSet.read(model.registry.download_run_file(registered.run_id, TRAINING_SET_ARTIFACT, folder))


def _signature(training_set: TrainingSet) -> Signature:
    return ranking(Schema.from_json(training_set.schema))
