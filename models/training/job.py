"""The job `train`: training set → SavedModel, test scores and an MLflow run."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import publishing_directory, tree_sha256, write_json
from models import tracking
from models.candidate_folder import CandidateFolder
from models.dataset import TEST, TEST_AS_OF_REFRESH, Dataset, Split, describe, find_training_set, read_dataset
from models.evaluation import metrics
from models.evaluation.plots import calibration_figure, roc_figure
from models.export import export, weights_sha256
from models.ranking.catalogue import ranking_model
from models.saved_model_loader import SavedModel
from models.training.fit import Fitted, fit
from models.training.memory import check_memory, memory

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.inputs import Columns
    from models.ranking.base import RankingConfig, RankingModel
    from models.settings import Settings

log = logging.getLogger(__name__)
_EXAMPLE_ROWS = 3


def train(
    settings: Settings,
    namespace_name: str,
    training_set_id: str,
    model_name: str,
    run_key: str,
    *,
    config: RankingConfig | None = None,
) -> dict[str, object]:
    """Train one model, unless this run key already has it; return the ids of run and SavedModel.

    Raises:
        LockedError: Another job trains it.
        TooLittleMemoryError, NotNowEnoughMemoryError: It would be killed for want of memory.
    """
    model_class = ranking_model(model_name)
    namespace = Namespace(settings.state, namespace_name)
    folder = CandidateFolder(namespace, run_key)
    directory = find_training_set(namespace, training_set_id)
    model = model_class(config or model_class.config_class())
    with folder.held(model_name):
        return _result(_trained(settings, folder, directory, model))


def _trained(
    settings: Settings, folder: CandidateFolder, directory: Path, model: RankingModel[RankingConfig]
) -> dict[str, Any]:
    """Return `run.json` of the model, trained now unless it has been; the caller holds its part of the folder."""
    client = tracking.connect(settings.mlflow_uri)
    with tracking.reaching(settings.mlflow_uri):
        if folder.model(model.name).exists():
            record = folder.run_of(model.name, directory.name)
            tracking.check_run(client, record["run_id"], folder.run_key)
            return record
        # One that was deleted is known before the fit, not after it.
        tracking.experiment_id(client, folder.namespace.name)
    check_memory(directory, memory())
    dataset = read_dataset(directory)
    log.info("training set %s: %s", directory.name, describe(dataset))
    fitted = fit(model, dataset, settings.seed)
    with tracking.reaching(settings.mlflow_uri), publishing_directory(folder.model(model.name)) as place:
        export(fitted, dataset.signature, place / "saved_model")
        scores = _score(SavedModel(place / "saved_model"), dataset)
        with (place / "test_scores.npz").open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **scores)
        record = {
            "model": model.name,
            "run_key": folder.run_key,
            "training_set_id": directory.name,
            "saved_model_sha256": tree_sha256(place / "saved_model"),
            "weights_sha256": weights_sha256(fitted.scorer),
            "config": model.config.model_dump(mode="json"),
            "seed": settings.seed,
            "fit_seconds": round(fitted.seconds, 2),
        }
        run_id, model_id = _track(
            client,
            settings=settings,
            namespace=folder.namespace.name,
            dataset=dataset,
            model=model,
            fitted=fitted,
            place=place,
            scores=scores,
            record=record,
        )
        record |= {"run_id": run_id, "model_id": model_id}
        write_json(place / "run.json", record)
    return record


def _result(record: dict[str, Any]) -> dict[str, object]:
    return {name: record[name] for name in ("model", "run_id", "saved_model_sha256", "weights_sha256")}


def _score(saved_model: SavedModel, dataset: Dataset) -> dict[str, NDArray[Any]]:
    return {
        name: metrics.check_finite(saved_model.predict(dataset[name].features), f"the exported model, split {name}")
        for name in (TEST, TEST_AS_OF_REFRESH)
    }


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
    model: RankingModel[RankingConfig],
    fitted: Fitted,
    place: Path,
    scores: dict[str, NDArray[Any]],
    record: dict[str, Any],
) -> tuple[str, str]:
    """Log everything to one MLflow run, and mark it finished last: return the ids of run and logged model."""
    training_set = dataset.record
    run = tracking.replace_run(
        client,
        namespace,
        name=f"{model.name} {training_set.cutoff[:10]}",
        run_key=record["run_key"],
        model=model.name,
        tags={
            tracking.TRAINING_SET: training_set.training_set_id,
            tracking.SAVED_MODEL_SHA256: record["saved_model_sha256"],
            tracking.WEIGHTS_SHA256: record["weights_sha256"],
            "kestrel.namespace": namespace,
            "kestrel.cutoff": training_set.cutoff,
            "kestrel.feature_service": f"{training_set.feature_service}@{training_set.feature_service_hash}",
            "kestrel.may_be_champion": str(model.may_be_champion).lower(),
        },
    )
    run_id, started = run.info.run_id, run.info.start_time
    tracking.log_history(client, run_id, started, fitted.history, _params(model, dataset, settings, fitted))
    tracking.log_lineage(client, run_id, dataset)
    labels = dataset[TEST].labels
    final = {
        f"{name}_{metric}": value
        for name in (TEST, TEST_AS_OF_REFRESH)
        for metric, value in _metrics(dataset[name], scores[name], settings.ece_bins).items()
    }
    tracking.log_metrics(client, run_id, final | {"fit_seconds": fitted.seconds}, started)
    figures = {
        "plots/roc.png": roc_figure(labels, {model.name: scores[TEST]}),
        "plots/calibration.png": calibration_figure(labels, {model.name: scores[TEST]}, settings.ece_bins),
    }
    for path, figure in figures.items():
        client.log_figure(run_id, figure, path)
        plt.close(figure)
    client.log_text(run_id, json.dumps(record["config"], indent=2), "config.json")
    example = example_frame(dataset[TEST], tuple(column.name for column in dataset.signature.input_columns))
    model_id = tracking.log_saved_model(run_id, model.name, place / "saved_model", dataset.signature, example)
    client.set_terminated(run_id, "FINISHED")
    return run_id, model_id


def _metrics(split: Split, scores: NDArray[Any], bins: int) -> dict[str, float]:
    return {
        "auc": metrics.auc(split.labels, scores),
        "gauc": metrics.gauc(split.labels, scores, split.users),
        "log_loss": metrics.log_loss(split.labels, scores),
        "ece": metrics.calibration(split.labels, scores, bins).expected_calibration_error,
    }


def _params(
    model: RankingModel[RankingConfig], dataset: Dataset, settings: Settings, fitted: Fitted
) -> dict[str, object]:
    config = model.config.model_dump(mode="json")
    return {
        "model": model.name,
        **{name: value for name, value in config.items() if name != "fit"},
        **config["fit"],
        "seed": settings.seed,
        "best_epoch": fitted.best_epoch + 1,
        "weights": fitted.scorer.count_params(),
        "train_end": dataset.record.train_end,
        "valid_end": dataset.record.valid_end,
        "label_min_value": dataset.record.label_min_value,
        **{f"rows_{name}": split.rows for name, split in dataset.splits.items()},
    }
