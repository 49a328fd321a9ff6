"""The champion, scored on the candidate's test rows, if the two can be compared."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.manifests import Part, Release, TrainingSet
from feature_repo.contracts.objectives import PROBABILITY
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.places import MANIFEST, Serving
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.schemas import Schema
from feature_repo.contracts.served_models import served_sha256
from feature_repo.contracts.signatures import (
    RANKING_MODEL,
    SIGNATURE_FILE,
    feature_hashes,
    is_pair_feature,
    read_signature,
)
from models import tracking
from models.errors import DatasetError
from models.saved_model_loader import SavedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.objectives import Objective
    from feature_repo.contracts.places import Namespace
    from models.dataset import Dataset

log = logging.getLogger(__name__)
ALIAS = "champion"


@dataclass(frozen=True, slots=True)
class Champion:
    """The version in force, with its scores if its features are still computed the same way."""

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
    objective: Objective
    """What its scores mean."""
    unregistered: bool
    """Whether the registry has it no longer, so that nobody can go back to it."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The champion before it is scored."""

    version: str
    run_id: str
    saved_model: Path | None
    """None where neither registry nor disk has it."""
    training_set_id: str = ""
    registered: bool = True
    views: Mapping[str, str] = field(default_factory=dict)
    """Feature group → feature view that it reads, where a release says so."""


def score_champion(
    client: mlflow.MlflowClient, place: Namespace, dataset: Dataset, splits: tuple[str, ...]
) -> Champion | None:
    """Return the champion of a namespace with its scores of `splits`; None before the first one.

    It is the version in force, which users are answered by, whatever has become of its registration; where there is
    none, the one that the registry's alias names. It is loaded from its own SavedModel and fed by name those columns
    that it knows.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = _in_force(client, place, Path(folder)) or _by_alias(client, place, Path(folder))
        if found is None:
            return None
        run_tags = _run_tags(client, found.run_id)
        theirs = _training_set(place, found, Path(folder))
        scores, objective = {}, PROBABILITY
        views = found.views or (theirs.views if theirs else {})
        reason = f"champion version {found.version}: neither the registry nor the disk has its SavedModel any longer"
        if found.saved_model is not None:
            saved_model = SavedModel(found.saved_model)
            if (found.saved_model / SIGNATURE_FILE).exists():  # it has none from before signatures were stored
                signature = read_signature(found.saved_model)
                objective, views = signature.objective, signature.views
            reason = why_incomparable(theirs, set(saved_model.specs), dataset, found.version)
            scores = {} if reason else {split: saved_model.predict(dataset[split].features) for split in splits}
            if not all(np.isfinite(values).all() for values in scores.values()):
                reason = f"champion version {found.version} cannot be compared: some of its scores are no numbers"
                scores = {}
    return Champion(
        version=found.version,
        run_id=found.run_id,
        saved_model_sha256=run_tags.get(tracking.SAVED_MODEL_SHA256, ""),
        weights_sha256=run_tags.get(tracking.WEIGHTS_SHA256, ""),
        scores=scores,
        incomparable=reason,
        retired_views=sorted(set(views.values()) - set(_refreshed(dataset.record).values())),
        objective=objective,
        unregistered=not found.registered,
    )


def _in_force(client: mlflow.MlflowClient, place: Namespace, folder: Path) -> _Found | None:
    """Find the version in force: on the disk that it is served from, or in the registry, if that is the same model."""
    serving = Serving(place.state)
    try:
        ranker = Release.read(serving.current_release(place.name)).ranker
    except FileNotFoundError:
        return None
    name = model_name(place.name, RANKING_MODEL)
    registered = _is_registered(client, name, ranker)
    path = serving.model(place.name, RANKING_MODEL) / ranker.version
    saved_model: Path | None = path
    if not path.is_dir() or served_sha256(path, ranker.checksum) != ranker.checksum:
        log.warning("%s is not what was promoted: looking in the registry", path)
        saved_model = tracking.download_version(name, ranker.version, folder) if registered else None
    training_set_id, views = ranker.data["training_set_id"], ranker.data["views"]
    return _Found(ranker.version, ranker.run_id, saved_model, training_set_id, registered, views)


def _is_registered(client: mlflow.MlflowClient, name: str, ranker: Part) -> bool:
    """Tell whether the registry has the very model that is in force, and not another one under its number."""
    try:
        version = client.get_model_version(name, ranker.version)
    except MlflowException as error:
        if tracking.missing(error):
            return False
        raise
    received = (version.run_id, version.tags.get(tracking.SAVED_MODEL_SHA256))
    return received == (ranker.run_id, ranker.checksum)


def _by_alias(client: mlflow.MlflowClient, place: Namespace, folder: Path) -> _Found | None:
    name = model_name(place.name, RANKING_MODEL)
    try:
        version = client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if tracking.missing(error):
            return None
        raise
    number = str(version.version)
    return _Found(number, version.run_id, tracking.download_version(name, number, folder))


def _run_tags(client: mlflow.MlflowClient, run_id: str) -> dict[str, str]:
    try:
        return dict(client.get_run(run_id).data.tags)
    except MlflowException as error:
        if tracking.missing(error):
            log.warning("the champion's run %s is gone from MLflow", run_id)
            return {}
        raise


def _training_set(place: Namespace, found: _Found, folder: Path) -> TrainingSet | None:
    """Return what the champion learned from: the run's record, or the training set's own where the run is gone."""
    try:
        manifest = Path(
            mlflow.artifacts.download_artifacts(
                run_id=found.run_id, artifact_path="training_set.json", dst_path=str(folder)
            )
        )
    except MlflowException as error:
        if not tracking.missing(error):
            raise
        log.warning("the champion's run has no training_set.json: %s", error)
        manifest = place.training_sets / found.training_set_id / MANIFEST
    try:
        return TrainingSet.read(manifest)
    except (CorruptRecordError, FileNotFoundError, NotADirectoryError) as error:
        log.warning("the champion's training set: %s", error)
        return None


def why_incomparable(theirs: TrainingSet | None, inputs: set[str], dataset: Dataset, version: str) -> str:
    """Return why a champion cannot be compared on a data set's rows; empty if it can.

    Args:
        theirs: The training set that it learned from.
        inputs: Names of the columns that it takes.
        dataset: With all the features that this run's training set has.
        version: The champion's.

    Raises:
        DatasetError: It reads features that are computed as they were, and this run's training set could have, but
            lacks them. What channels say no set of another kind can have: then the two are not comparable.
    """
    if theirs is None:
        return f"champion version {version}: its training_set.json cannot be read"
    if theirs.label_min_value != dataset.record.label_min_value:
        return (
            f"champion version {version} learned label value >= {theirs.label_min_value:g}, the candidate "
            f">= {dataset.record.label_min_value:g}: their scores answer different questions"
        )
    stored = {ITEM_ID.name, REQUEST_TIME.name} | dataset.record.feature_hashes.keys()
    hashes = feature_hashes(Schema.from_json(dataset.record.schema))
    changed = sorted(
        name
        for name in inputs
        if (name in theirs.feature_hashes and theirs.feature_hashes[name] != hashes.get(name))
        or name not in stored | hashes.keys()
    )
    if changed:
        return (
            f"champion version {version} cannot be compared: its inputs {changed} are defined otherwise now; nothing "
            "protects against a regression in this run"
        )
    absent = sorted(inputs - stored)
    if pairs := [name for name in absent if is_pair_feature(name)]:
        return (
            f"champion version {version} cannot be compared on rows: those of training set "
            f"{dataset.record.training_set_id}, of kind {dataset.record.kind}, say nothing of {len(pairs)} pair "
            f"features that it reads, such as {pairs[0]}"
        )
    if absent:
        msg = (
            f"training set {dataset.record.training_set_id}: expected {absent}, which champion version {version} "
            f"reads, it has the features of the service {dataset.record.feature_service} alone, so that the two cannot "
            "be compared; build one with KESTREL_RANKING_WINDOWS=true"
        )
        raise DatasetError(msg)
    return ""


def _refreshed(record: TrainingSet) -> dict[str, str]:
    """Return feature group → feature view as refreshes write it now: by the training set, where that has the group."""
    return declared(Schema.from_json(record.schema)).known_by_time.views | record.views
