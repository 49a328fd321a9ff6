"""Copies of one ranker as versions of a registered model, logged as the model plane logs its runs."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.manifests import Decision
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.rollout.registry import DECISION_TAG, REASON_TAG, SHA256_TAG

if TYPE_CHECKING:
    from pathlib import Path

    from infra.bench.ranker import Ranker


def register_copies(uri: str, ranker: Ranker, work: Path, count: int) -> list[int]:
    """Register `count` versions of the ranker in the registry at `uri`, all fit to be promoted."""
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    name = model_name(ranker.release.namespace, RANKING_MODEL)
    experiment = client.create_experiment(ranker.release.namespace)
    run = client.create_run(experiment)
    ranker.copy_run(work, run.info.run_id)
    client.log_artifacts(run.info.run_id, str(work))
    client.log_artifacts(run.info.run_id, str(ranker.saved_model), "model/saved_model")
    client.set_terminated(run.info.run_id)
    client.create_registered_model(name)
    tags = {
        DECISION_TAG: Decision.PROMOTE.value,
        REASON_TAG: "a copy, for the benchmark",
        SHA256_TAG: ranker.release.ranker.checksum,
    }
    versions = []
    for _ in range(count):
        version = client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
        for tag, value in tags.items():
            client.set_model_version_tag(name, version.version, tag, value)
        versions.append(int(version.version))
    return versions
