"""The champion, scored on the candidate's test rows, if the two can be compared."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from feature_repo.contracts.manifests import TrainingSet
from feature_repo.contracts.publishing import CorruptRecordError
from models import tracking
from models.saved_model_loader import SavedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.dataset import Dataset

log = logging.getLogger(__name__)
ALIAS = "champion"


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that the alias names, with its scores if its features are still computed the same way."""

    version: str
    run_id: str
    saved_model_sha256: str
    weights_sha256: str
    scores: dict[str, NDArray[Any]]
    """Split → scores; empty where the two cannot be compared."""
    incomparable: str
    """Why not; empty where they can."""
    retired_views: list[str]
    """Feature views that it was trained on and that are refreshed no more: the recommender cannot rank with it."""


def score_champion(
    client: mlflow.MlflowClient, name: str, dataset: Dataset, splits: tuple[str, ...]
) -> Champion | None:
    """Return the champion of the registered model `name` with its scores of `splits`; None before the first one.

    It is loaded from its own SavedModel and fed by name those columns that it knows.
    """
    try:
        version = client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise
    run_tags = client.get_run(version.run_id).data.tags
    with tempfile.TemporaryDirectory() as folder:
        saved_model = SavedModel(tracking.download_champion(f"models:/{name}/{version.version}", Path(folder)))
        manifest = mlflow.artifacts.download_artifacts(
            run_id=version.run_id, artifact_path="training_set.json", dst_path=folder
        )
        theirs = _training_set(Path(manifest))
        reason = _why_incomparable(theirs, set(saved_model.specs), dataset, version.version)
        scores = {} if reason else {split: saved_model.predict(dataset[split].features) for split in splits}
    return Champion(
        version=str(version.version),
        run_id=version.run_id,
        saved_model_sha256=run_tags.get(tracking.SAVED_MODEL_SHA256, ""),
        weights_sha256=run_tags.get(tracking.WEIGHTS_SHA256, ""),
        scores=scores,
        incomparable=reason,
        retired_views=sorted(set(theirs.views.values()) - set(dataset.record.views.values())) if theirs else [],
    )


def _training_set(manifest: Path) -> TrainingSet | None:
    try:
        return TrainingSet.read(manifest)
    except CorruptRecordError as error:
        log.warning("the champion's training set: %s", error)
        return None


def _why_incomparable(theirs: TrainingSet | None, inputs: set[str], dataset: Dataset, version: str) -> str:
    if theirs is None:
        return f"champion version {version}: its training_set.json cannot be read"
    if theirs.label_min_value != dataset.record.label_min_value:
        return (
            f"champion version {version} learned label value >= {theirs.label_min_value:g}, the candidate "
            f">= {dataset.record.label_min_value:g}: their scores answer different questions"
        )
    hashes = dataset.record.feature_hashes
    unknown = sorted(inputs - set(dataset.splits[next(iter(dataset.splits))].features))
    changed = sorted(
        name for name in inputs if name in theirs.feature_hashes and theirs.feature_hashes[name] != hashes.get(name)
    )
    if unknown or changed:
        return (
            f"champion version {version} cannot be compared: its inputs {sorted({*unknown, *changed})} are defined "
            "otherwise now; nothing protects against a regression in this run"
        )
    return ""
