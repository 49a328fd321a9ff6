"""The champion, or its spec fitted again, scored on the candidate's test rows, if the two can be compared."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from feature_repo.contracts.datasets import ITEM_ID, USER_ID
from feature_repo.contracts.features import declared
from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.manifests import TRANSFORMS_FILE, Part, Release, TrainingSet, champion_named
from feature_repo.contracts.objectives import PROBABILITY
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.places import MANIFEST, Namespace, Serving
from feature_repo.contracts.publishing import CorruptRecordError, read_json
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
from models.errors import CandidateError, DatasetError
from models.saved_model_loader import SavedModel

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.manifests import Refit
    from feature_repo.contracts.objectives import Objective
    from models.candidate_folder import CandidateFolder
    from models.dataset import Dataset

log = logging.getLogger(__name__)
ALIAS = "champion"


@dataclass(frozen=True, slots=True)
class Champion:
    """The version in force, with scores of its own, or of its spec fitted again, if these can be compared."""

    version: str
    run_id: str
    named: str
    """What the scores are of, for people."""
    saved_model_sha256: str
    weights_sha256: str
    scores: dict[str, NDArray[Any]]
    """Split → scores; empty where the two cannot be compared."""
    incomparable: str
    """Why not; empty where they can."""
    retired_views: list[str]
    """Feature views that it was trained on and that are refreshed no more: the recommender cannot rank with it."""
    objective: Objective
    """What the scores mean."""
    unregistered: bool
    """Whether the registry has it no longer, so that nobody can go back to it."""
    weights: Mapping[str, NDArray[Any]]
    """Name → values, of what the scores are of."""
    terms: Mapping[str, tuple[str, ...]]
    """Vocabulary → its terms, of what the scores are of; none where its training set is gone."""


@dataclass(frozen=True, slots=True)
class Found:
    """The champion before it is scored."""

    version: str
    run_id: str
    saved_model: Path | None
    """None where neither registry nor disk has it."""
    training_set_id: str = ""
    registered: bool = True
    views: Mapping[str, str] = field(default_factory=dict)
    """Feature group → feature view that it reads, where a release says so."""
    cutoff: str = ""
    """Of its training set, where a release says so."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """What is scored in the champion's name."""

    named: str
    saved_model: Path | None
    training_set: TrainingSet | None
    """What it has learned from, where that can be read."""


def score_champion(
    client: mlflow.MlflowClient, folder: CandidateFolder, dataset: Dataset, splits: tuple[str, ...]
) -> Champion | None:
    """Return the champion of a namespace with its scores of `splits`; None before the first one.

    Where the run has fitted the champion's spec again, the scores are of that fit. Else they are the champion's own: it
    is loaded from its own SavedModel and fed by name those columns that it knows.

    Raises:
        CandidateError: The fit is not what `refit` recorded.
        DatasetError: As of `why_incomparable`.
    """
    place = folder.namespace
    with tempfile.TemporaryDirectory() as scratch:
        found = find_champion(client, place, Path(scratch))
        if found is None:
            return None
        run_tags = _run_tags(client, found.run_id)
        theirs = training_set_of_champion(place, found, Path(scratch))
        refit = folder.refit_of(found.version, found.run_id)
        compared = _Compared(champion_named(found.version), found.saved_model, theirs)
        if refit is not None and refit.saved_model:
            compared = _fitted_again(folder, refit)
        saved_model = SavedModel(compared.saved_model) if compared.saved_model else None
        scores, objective, reason = _scored(compared, saved_model, dataset, splits)
        weights = saved_model.weights if saved_model else {}
        if reason and refit is not None and refit.impossible:
            reason = f"{compared.named} cannot be compared: {refit.why_not}"
        views = _views(found, theirs)
    return Champion(
        version=found.version,
        run_id=found.run_id,
        named=compared.named,
        saved_model_sha256=run_tags.get(tracking.SAVED_MODEL_SHA256, ""),
        weights_sha256=run_tags.get(tracking.WEIGHTS_SHA256, ""),
        scores=scores,
        incomparable=reason,
        retired_views=sorted(set(views.values()) - set(_refreshed(dataset.record).values())),
        objective=objective,
        unregistered=not found.registered,
        weights=weights,
        terms=_terms(place, compared.training_set),
    )


def _terms(place: Namespace, training_set: TrainingSet | None) -> Mapping[str, tuple[str, ...]]:
    """Return the vocabularies of a training set; none where it is gone."""
    if training_set is None:
        return {}
    path = place.training_sets / training_set.training_set_id / TRANSFORMS_FILE
    try:
        record: dict[str, Any] = read_json(path)
    except (CorruptRecordError, FileNotFoundError) as error:
        log.warning("the champion's vocabularies: %s", error)
        return {}
    return {name: tuple(terms) for name, terms in record.get("vocabularies", {}).items()}


def _fitted_again(folder: CandidateFolder, refit: Refit) -> _Compared:
    """Return the fit that stands in for the champion; CandidateError if it is not the one that was recorded."""
    if fault := refit.fault(folder.namespace.root):
        msg = f"{fault}; run `python -m models refit --run-key {folder.run_key}` again"
        raise CandidateError(msg)
    manifest = folder.namespace.training_sets / refit.training_set_id / MANIFEST
    return _Compared(refit.named, folder.namespace.root / refit.saved_model, TrainingSet.read(manifest))


def _scored(
    compared: _Compared, saved_model: SavedModel | None, dataset: Dataset, splits: tuple[str, ...]
) -> tuple[dict[str, NDArray[Any]], Objective, str]:
    """Return the scores of each split, what they mean, and why there are none; empty where there are."""
    objective = PROBABILITY
    if compared.saved_model is None or saved_model is None:
        return {}, objective, f"{compared.named}: neither the registry nor the disk has its SavedModel any longer"
    if (compared.saved_model / SIGNATURE_FILE).exists():  # it has none from before signatures were stored
        objective = read_signature(compared.saved_model).objective
    if reason := why_incomparable(compared.training_set, set(saved_model.specs), dataset, compared.named):
        return {}, objective, reason
    scores = {split: saved_model.predict(dataset[split].features) for split in splits}
    if not all(np.isfinite(values).all() for values in scores.values()):
        return {}, objective, f"{compared.named} cannot be compared: some of its scores are no numbers"
    return scores, objective, ""


def _views(found: Found, theirs: TrainingSet | None) -> Mapping[str, str]:
    """Return feature group → feature view that the champion itself reads, or may read."""
    if found.saved_model is not None and (found.saved_model / SIGNATURE_FILE).exists():
        return read_signature(found.saved_model).views
    return found.views or (theirs.views if theirs else {})


def find_champion(client: mlflow.MlflowClient, place: Namespace, folder: Path) -> Found | None:
    """Return the champion; None before the first one.

    It is the version in force, which users are answered by, whatever has become of its registration; where there is
    none, the one that the registry's alias names. What is downloaded lies in `folder`.
    """
    return _in_force(client, place, folder) or _by_alias(client, place, folder)


def _in_force(client: mlflow.MlflowClient, place: Namespace, folder: Path) -> Found | None:
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
    training_set_id, views, cutoff = (ranker.data[name] for name in ("training_set_id", "views", "cutoff"))
    return Found(ranker.version, ranker.run_id, saved_model, training_set_id, registered, views, cutoff)


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


def _by_alias(client: mlflow.MlflowClient, place: Namespace, folder: Path) -> Found | None:
    name = model_name(place.name, RANKING_MODEL)
    try:
        version = client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if tracking.missing(error):
            return None
        raise
    number = str(version.version)
    return Found(number, version.run_id, tracking.download_version(name, number, folder))


def _run_tags(client: mlflow.MlflowClient, run_id: str) -> dict[str, str]:
    try:
        return dict(client.get_run(run_id).data.tags)
    except MlflowException as error:
        if tracking.missing(error):
            log.warning("the champion's run %s is gone from MLflow", run_id)
            return {}
        raise


def training_set_of_champion(place: Namespace, found: Found, folder: Path) -> TrainingSet | None:
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


def why_incomparable(theirs: TrainingSet | None, inputs: set[str], dataset: Dataset, named: str) -> str:
    """Return why a champion cannot be compared on a data set's rows; empty if it can.

    Args:
        theirs: The training set that it learned from.
        inputs: Names of the columns that it takes.
        dataset: With all the features that this run's training set has.
        named: What it is, for people.

    Raises:
        DatasetError: It reads features that are computed as they were, and this run's training set could have, but
            lacks them. What channels say no set of another kind can have: then the two are not comparable.
    """
    if theirs is None:
        return f"{named}: its training_set.json cannot be read"
    if theirs.label_min_value != dataset.record.label_min_value:
        return (
            f"{named} learned label value >= {theirs.label_min_value:g}, the candidate "
            f">= {dataset.record.label_min_value:g}: their scores answer different questions"
        )
    if changed := changed_inputs(theirs, inputs, dataset.record):
        return (
            f"{named} cannot be compared: its inputs {changed} are defined otherwise now; nothing "
            "protects against a regression in this run"
        )
    absent = sorted(inputs - _stored(dataset.record))
    if pairs := [name for name in absent if is_pair_feature(name)]:
        return (
            f"{named} cannot be compared on rows: those of training set "
            f"{dataset.record.training_set_id}, of kind {dataset.record.kind}, say nothing of {len(pairs)} pair "
            f"features that it reads, such as {pairs[0]}"
        )
    if datetime.fromisoformat(theirs.valid_end) > datetime.fromisoformat(dataset.record.valid_end):
        return (
            f"{named} cannot be compared on rows: it has learned from events up to {theirs.valid_end}, and the test "
            f"rows begin at {dataset.record.valid_end}; `python -m models refit` fits its spec again, where that can be"
        )
    if absent:
        msg = (
            f"training set {dataset.record.training_set_id}: expected {absent}, which {named} "
            f"reads, it has the features of the service {dataset.record.feature_service} alone, so that the two cannot "
            "be compared; build one with KESTREL_RANKING_WINDOWS=true, or KESTREL_RANKING_SEQUENCES=true"
        )
        raise DatasetError(msg)
    return ""


def changed_inputs(theirs: TrainingSet, inputs: Collection[str], ours: TrainingSet) -> list[str]:
    """Return the names of inputs that are gone, or defined otherwise than when the champion learned."""
    hashes = feature_hashes(Schema.from_json(ours.schema))
    known = _stored(ours) | hashes.keys()
    return sorted(
        name
        for name in inputs
        if (name in theirs.feature_hashes and theirs.feature_hashes[name] != hashes.get(name)) or name not in known
    )


def _stored(record: TrainingSet) -> set[str]:
    """Return the names of the columns that rows of a training set have, as inputs."""
    return {USER_ID.name, ITEM_ID.name, REQUEST_TIME.name} | record.feature_hashes.keys()


def _refreshed(record: TrainingSet) -> dict[str, str]:
    """Return feature group → feature view as refreshes write it now: by the training set, where that has the group."""
    return declared(Schema.from_json(record.schema)).known_by_time.views | record.views
