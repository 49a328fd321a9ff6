"""The job `train`: training set → SavedModel, its figures on the validation rows, and an MLflow run."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from feature_repo.contracts.memory import memory
from feature_repo.contracts.objectives import Metric
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import publishing_directory, tree_sha256, write_json
from feature_repo.contracts.signatures import SIGNATURE_ARTIFACT
from models import tracking
from models.candidate_folder import CandidateFolder, check_same_spec, training_set_of
from models.code_version import code_version
from models.dataset import TRAIN, VALID, Dataset, Split, describe, find_training_set, read_dataset
from models.errors import BuildError, SpecError, UnknownFeatureError
from models.evaluation import metrics
from models.evaluation.embedding_health import embedding_health
from models.evaluation.plots import calibration_figure, roc_figure
from models.export import export, weights_sha256
from models.saved_model_loader import SavedModel
from models.training.fit import Fitted, fit
from models.training.memory import check_memory

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.inputs import Columns
    from models.ranking.base import RankingConfig, RankingModel
    from models.settings import Settings
    from models.specs.spec import Spec

log = logging.getLogger(__name__)
_EXAMPLE_ROWS = 3


def train(
    settings: Settings, namespace_name: str, training_set_id: str, spec: Spec, run_key: str, *, lists_id: str = ""
) -> dict[str, object]:
    """Train one spec, unless this run key already has it; return the ids of run and SavedModel.

    Test rows are neither read nor scored: nobody knows yet whether this one is chosen. A spec of `rows: lists` is not
    trained where there is no training set of that kind, and the result says why.

    Args:
        settings: The model plane's.
        namespace_name: The data set's.
        training_set_id: The training set of kind RANKING.
        spec: What is trained.
        run_key: Names the training run.
        lists_id: The training set of kind LISTS; empty where there is none.

    Raises:
        LockedError: Another job trains it.
        TooLittleMemoryError, NotNowEnoughMemoryError: It would be killed for want of memory.
    """
    namespace = Namespace(settings.state, namespace_name)
    folder = CandidateFolder(namespace, run_key)
    own = training_set_of(spec, training_set_id, lists_id)
    if not own:
        why = "it learns from lists, of which there is no training set: the log is too short to ask questions"
        log.info("%s is not trained: %s", spec.name, why)
        return {"name": spec.name, "trained": False, "why": why}
    directory = find_training_set(namespace, own)
    with folder.held(spec.name):
        record = _trained(settings, folder, directory, spec)
    return {
        "name": spec.name,
        "trained": True,
        "saved_model": str(folder.saved_model(spec.name)),
        "training_set": own,
        "role": spec.role.value,
        "competes": spec.may_be_champion,
        **{name: record[name] for name in ("model", "run_id", "saved_model_sha256", "weights_sha256")},
    }


def _trained(settings: Settings, folder: CandidateFolder, directory: Path, spec: Spec) -> dict[str, Any]:
    """Return `run.json` of the spec, trained now unless it has been; the caller holds its part of the folder."""
    client = tracking.connect(settings.mlflow_uri)
    with tracking.reaching(settings.mlflow_uri):
        if folder.model(spec.name).exists():
            record = folder.run_of(spec.name, directory.name)
            check_same_spec(folder.run_key, record, spec.record())
            tracking.check_run(client, record["run_id"], folder.run_key)
            return record
        # One that was deleted is known before the fit, not after it.
        tracking.experiment_id(client, folder.namespace.name)
    check_memory(directory, spec.features, memory())
    dataset = read_dataset(directory, (TRAIN, VALID), spec.features, spec.learned, spec.rows)
    log.info("training set %s: %s", directory.name, describe(dataset))
    model = spec.model()
    started = time.monotonic()
    fitted = fit_spec(spec, model, dataset, settings.seed)
    seconds = time.monotonic() - started
    log.info("fitted %s in %.1f s: %s", spec.name, seconds, dict(fitted.params))
    with tracking.reaching(settings.mlflow_uri), publishing_directory(folder.model(spec.name)) as place:
        export(fitted, dataset.signature, place / "saved_model")
        valid = dataset[VALID]
        scores = metrics.check_finite(
            SavedModel(place / "saved_model").predict(valid.features), f"the exported {spec.name}, split {VALID}"
        )
        figures = metrics.of_scores(valid, scores, spec.learned.metrics, settings.ece_bins)
        record = {
            "model": spec.name,
            "spec": spec.record(),
            "run_key": folder.run_key,
            "training_set_id": directory.name,
            "saved_model_sha256": tree_sha256(place / "saved_model"),
            "weights_sha256": weights_sha256(fitted.scorer),
            "embeddings": embedding_health(fitted, dataset[TRAIN].features, dataset.signature, dataset.transforms),
            "code": code_version(),
            "seed": settings.seed,
            "fit_seconds": round(seconds, 2),
            "valid": {name: value if np.isfinite(value) else None for name, value in figures.items()},
        }
        run_id, model_id = _track(
            client,
            settings=settings,
            namespace=folder.namespace.name,
            dataset=dataset,
            spec=spec,
            model=model,
            fitted=fitted,
            place=place,
            scores=scores,
            record=record,
        )
        record |= {"run_id": run_id, "model_id": model_id}
        write_json(place / "run.json", record)
    return record


def fit_spec(spec: Spec, model: RankingModel[RankingConfig], dataset: Dataset, seed: int) -> Fitted:
    """Return the spec's model, fitted; SpecError names the spec whose config and features give none."""
    try:
        return fit(model, dataset, seed)
    except (BuildError, UnknownFeatureError) as error:
        msg = f"spec {spec.name!r}: {error}"
        raise SpecError(msg) from error


def example_frame(split: Split, columns: tuple[str, ...], rows: int = _EXAMPLE_ROWS) -> Any:
    """Return the last rows of a split as a data frame, lists as lists: what `predict` takes."""
    import pandas as pd  # noqa: PLC0415 - the data frame is for MLflow alone

    return pd.DataFrame({name: list(_plain(split.features, name, rows)) for name in columns}).astype(
        {name: split.features[name].dtype for name in columns if split.features[name].ndim == 1}
    )


def _plain(features: Columns, name: str, rows: int) -> list[Any]:
    values: list[Any] = features[name][-rows:].tolist()
    return values


def _track(
    client: Any,
    *,
    settings: Settings,
    namespace: str,
    dataset: Dataset,
    spec: Spec,
    model: RankingModel[RankingConfig],
    fitted: Fitted,
    place: Path,
    scores: NDArray[Any],
    record: dict[str, Any],
) -> tuple[str, str]:
    """Log everything to one MLflow run, and mark it finished last: return the ids of run and logged model."""
    training_set = dataset.record
    run = tracking.replace_run(
        client,
        namespace,
        name=f"{spec.name} {training_set.cutoff[:10]}",
        run_key=record["run_key"],
        model=spec.name,
        tags={
            tracking.TRAINING_SET: training_set.training_set_id,
            tracking.SAVED_MODEL_SHA256: record["saved_model_sha256"],
            tracking.WEIGHTS_SHA256: record["weights_sha256"],
            tracking.COMMIT: record["code"]["commit"],
            tracking.LOCK_SHA256: record["code"]["lock_sha256"],
            "kestrel.namespace": namespace,
            "kestrel.cutoff": training_set.cutoff,
            "kestrel.feature_service": f"{training_set.feature_service}@{training_set.feature_service_hash}",
            "kestrel.class": spec.class_name,
            "kestrel.objective": spec.objective,
            "kestrel.rows": spec.rows.value,
            "kestrel.role": spec.role.value,
            "kestrel.may_be_champion": str(spec.may_be_champion).lower(),
        },
    )
    run_id, started = run.info.run_id, run.info.start_time
    tracking.log_history(client, run_id, started, fitted.history, _params(spec, model, dataset, settings, fitted))
    tracking.log_lineage(client, run_id, dataset)
    valid = dataset[VALID]
    final = {f"{VALID}_{metric}": value for metric, value in record["valid"].items() if value is not None}
    tracking.log_metrics(client, run_id, final | {"fit_seconds": record["fit_seconds"]}, started)
    curves = {spec.name: scores}
    figures = {}
    if Metric.AUC in spec.learned.metrics:
        figures["plots/validation_roc.png"] = roc_figure("validation", valid.labels, curves)
    if spec.learned.probability:
        fit_of = calibration_figure("validation", valid.labels, curves, settings.ece_bins)
        figures["plots/validation_calibration.png"] = fit_of
    for path, figure in figures.items():
        client.log_figure(run_id, figure, path)
        plt.close(figure)
    client.log_text(run_id, json.dumps(record["spec"], indent=2), "spec.json")
    client.log_text(run_id, json.dumps(dataset.signature.to_json(), indent=2), SIGNATURE_ARTIFACT)
    example = example_frame(valid, tuple(column.name for column in dataset.signature.input_columns))
    model_id = tracking.log_saved_model(run_id, spec.name, place / "saved_model", dataset.signature, example)
    client.set_terminated(run_id, "FINISHED")
    return run_id, model_id


def _params(
    spec: Spec, model: RankingModel[RankingConfig], dataset: Dataset, settings: Settings, fitted: Fitted
) -> dict[str, object]:
    config = model.config.model_dump(mode="json")
    return {
        "spec": spec.name,
        "model": model.name,
        **{name: value for name, value in config.items() if name != "fit"},
        "on_demand": model.read_on_demand(fitted.encoded),
        **config.get("fit", {}),
        "seed": settings.seed,
        **fitted.params,
        "weights": fitted.scorer.count_params(),
        "train_end": dataset.record.train_end,
        "valid_end": dataset.record.valid_end,
        "label_min_value": dataset.record.label_min_value,
        **{f"rows_{name}": rows for name, rows in dataset.record.rows.items()},
    }
