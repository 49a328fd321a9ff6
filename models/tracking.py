"""The model plane's one door to MLflow: experiments, runs and artifacts."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from feature_repo.contracts.intervals import check_namespace
from feature_repo.contracts.mlflow_commands import remove_experiment, restore_experiment, restore_run
from models import mlflow_flavor
from models.errors import DeletedInMlflowError, TrackingRefusedError, TrackingUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feature_repo.contracts.signatures import Signature
    from models.dataset import Dataset

RUN_KEY, MODEL, TRAINING_SET = "kestrel.run_key", "kestrel.model", "kestrel.training_set_id"
"""MODEL is the spec's name."""
CHOSEN = "kestrel.chosen"
"""Whether the run's model won on the validation rows."""
SAVED_MODEL_SHA256, WEIGHTS_SHA256 = "kestrel.saved_model_sha256", "kestrel.weights_sha256"
COMMIT, LOCK_SHA256 = "mlflow.source.git.commit", "kestrel.lock_sha256"
"""The first is a tag that MLflow itself shows."""
ACTIVE, _GONE = "active", "gone for good"
_DIGEST_LENGTH = 36
_METRIC_BATCH = 900


def experiment_name(namespace: str) -> str:
    """Return the experiment of a namespace."""
    return f"kestrel/{check_namespace(namespace)}"


def connect(uri: str) -> mlflow.MlflowClient:
    """Return a client of the server at `uri`; TrackingUnavailableError if it does not answer."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient()
    with reaching(uri):
        client.search_experiments(max_results=1)
    return client


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn a lost or overloaded MLflow server into a transient error, and whatever else it refuses into a terminal one.

    Raises:
        TrackingUnavailableError: It does not answer, or not now.
        TrackingRefusedError: It refused a call.
    """
    try:
        yield
    except MlflowException as error:
        status = error.get_http_status_code()
        unreachable = "API request to" in str(error) and "failed with exception" in str(error)
        if unreachable or status in {429, 502, 503, 504}:
            msg = f"MLflow server {uri}: expected an answer, received {error}; is it up (`make status`)?"
            raise TrackingUnavailableError(msg) from error
        msg = f"MLflow server {uri}: refused a call: {error}; was something deleted or renamed in it meanwhile?"
        raise TrackingRefusedError(msg) from error


def experiment_id(client: mlflow.MlflowClient, namespace: str) -> str:
    """Return the id of a namespace's experiment, which is made if there is none.

    Raises:
        DeletedInMlflowError: It was deleted: until it is gone for good, MLflow makes no other of its name.
    """
    name = experiment_name(namespace)
    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Another job of the namespace was quicker.
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    if known.lifecycle_stage != ACTIVE:
        uri, number = mlflow.get_tracking_uri(), str(known.experiment_id)
        msg = (
            f"MLflow experiment {name}: expected an active one, it is {known.lifecycle_stage}; bring it back with its "
            f"runs by `{restore_experiment(uri, number)}`, or remove it for good by `{remove_experiment(uri, number)}` "
            "(on one machine the database is sqlite:///<state folder>/mlflow/mlflow.db), and a new one is made"
        )
        raise DeletedInMlflowError(msg)
    return str(known.experiment_id)


def check_run(client: mlflow.MlflowClient, run_id: str, run_key: str) -> None:
    """Make sure that a run can be logged to.

    Raises:
        DeletedInMlflowError: It was deleted, by itself or with its experiment.
    """
    try:
        stage = client.get_run(run_id).info.lifecycle_stage
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        stage = _GONE
    if stage != ACTIVE:
        back = (
            f"bring it back by `{restore_run(mlflow.get_tracking_uri(), run_id)}` (its experiment first, if that "
            "went), or "
        )
        msg = (
            f"MLflow run {run_id} of run key {run_key}: expected an active one, it is {stage}; "
            f"{'' if stage == _GONE else back}train with another run key"
        )
        raise DeletedInMlflowError(msg)


def runs_of(client: mlflow.MlflowClient, namespace: str, run_key: str, model: str) -> list[Run]:
    """Return the runs of one run key and model, the latest first."""
    return list(
        client.search_runs(
            [experiment_id(client, namespace)],
            f"tags.`{RUN_KEY}` = '{run_key}' and tags.`{MODEL}` = '{model}'",
            order_by=["attributes.start_time DESC"],
        )
    )


def replace_run(
    client: mlflow.MlflowClient, namespace: str, *, name: str, run_key: str, model: str, tags: Mapping[str, str]
) -> Run:
    """Start a run; what an earlier, broken attempt with the same run key left is deleted first."""
    for earlier in runs_of(client, namespace, run_key, model):
        delete_run(client, earlier)
    source = {"mlflow.source.name": "python -m models train", "mlflow.source.type": "JOB"}
    return client.create_run(
        experiment_id(client, namespace),
        run_name=name,
        tags={RUN_KEY: run_key, MODEL: model, **source, **tags},
    )


def delete_run(client: mlflow.MlflowClient, run: Run) -> None:
    """Delete a run and the models that it logged."""
    for output in run.outputs.model_outputs if run.outputs else []:
        client.delete_logged_model(output.model_id)
    client.delete_run(run.info.run_id)


def log_history(
    client: mlflow.MlflowClient,
    run_id: str,
    timestamp_ms: int,
    history: Mapping[str, list[float]],
    params: Mapping[str, object],
) -> None:
    """Log metrics by epoch (from 1) and parameters."""
    metrics = [
        Metric(name, float(value), timestamp_ms, epoch)
        for name, values in history.items()
        for epoch, value in enumerate(values, start=1)
    ]
    for start in range(0, len(metrics), _METRIC_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRIC_BATCH])
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])


def log_metrics(client: mlflow.MlflowClient, run_id: str, metrics: Mapping[str, float], timestamp_ms: int) -> None:
    """Log final metrics; those that are not finite are left out (MLflow's database refuses NaN)."""
    finite = {name: value for name, value in metrics.items() if value == value and abs(value) != float("inf")}  # noqa: PLR0124 - NaN
    client.log_batch(run_id, metrics=[Metric(name, float(value), timestamp_ms, 0) for name, value in finite.items()])


def artifact_link(client: mlflow.MlflowClient, run_id: str, path: str) -> str:
    """Return where MLflow's own pages show an artifact, relative to any of them."""
    experiment = client.get_run(run_id).info.experiment_id
    return f"#/experiments/{experiment}/runs/{run_id}/artifacts/{path}"


def set_tags(client: mlflow.MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def log_lineage(client: mlflow.MlflowClient, run_id: str, dataset: Dataset) -> None:
    """Log what the model learned from: the manifest as artifact `training_set.json`, and a dataset input."""
    record = dataset.record
    client.log_text(run_id, (dataset.directory / "manifest.json").read_text(encoding="utf-8"), "training_set.json")
    source = LocalArtifactDatasetSource(str(dataset.directory))
    lineage = MetaDataset(source=source, name=record.training_set_id, digest=_digest(record.checksums))
    with _active(run_id):
        mlflow.log_input(lineage, context="training", tags={"rows": str(record.rows), "cutoff": record.cutoff})


def _digest(checksums: Mapping[str, str]) -> str:
    return (checksums.get("train.parquet") or "unknown")[:_DIGEST_LENGTH]


def log_saved_model(run_id: str, name: str, saved_model: Path, signature: Signature, input_example: Any) -> str:
    """Log the SavedModel's directory as the run's model; return the id of the logged model."""
    with _active(run_id):
        info = Model.log(
            artifact_path=None,
            name=name,
            flavor=mlflow_flavor,
            run_id=run_id,
            saved_model=saved_model,
            signature=signature,
            input_example=input_example,
            validate_serving_input=False,
        )
    return str(info.model_id)


@contextmanager
def _active(run_id: str) -> Iterator[None]:
    """Make `run_id` the current run, and leave its status as it was found."""
    client = mlflow.MlflowClient()
    status = client.get_run(run_id).info.status
    # MLflow prints a link to the run, and standard output is for the job's result.
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        with mlflow.start_run(run_id=run_id):
            yield
    finally:
        sys.stdout = stdout
    client.update_run(run_id, status=status)


def download_version(name: str, version: str, folder: Path) -> Path:
    """Download a registered version's SavedModel below `folder` and return its directory."""
    downloaded = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(folder))
    return Path(downloaded) / mlflow_flavor.SAVED_MODEL


def missing(error: MlflowException) -> bool:
    """Tell whether MLflow says that what was asked for is not there."""
    return error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}
