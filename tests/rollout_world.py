"""Registered models that a rollout can be tried on: one MLflow server, and SavedModels told apart by their scores."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.protocol.client import PredictClient
from serving.protocol.replicas import Replicas
from serving.rollout import canary, compare, promote, publish, replay, verdict
from serving.rollout.registry import Registry
from serving.rollout.serving_model import ServingModel
from serving.rollout.settings import Settings
from tests.mlflow_server import mlflow_server
from tests.serving_world import (
    ModelServer,
    export_ranking,
    ranking_inputs,
    ranking_scores,
    register,
    score,
    write_golden,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow import MlflowClient

BIASES = {"first": 0.25, "second": -0.5, "third": 1.0}
"""Name → what the model adds to every score."""

PATIENT: dict[str, Any] = {
    "rollout_compare_latency_ms": 5000,
    "rollout_compare_p99_ms": 5000,
    "recommender_ranking_ms": 10_000,
}
"""Latencies that a busy host does not reach."""


class World:
    """One MLflow server and one set of SavedModels; a namespace of its own for each test."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.uri = uri
        self.models = {}
        self.golden = {}
        for name, bias in BIASES.items():
            self.models[name] = folder / "models" / name
            export_ranking(self.models[name], bias)
            self.golden[name] = folder / f"golden-{name}.json"
            write_golden(self.golden[name], bias)
        self.count = 0

    @property
    def client(self) -> MlflowClient:
        """What a person does at MLflow's page."""
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def namespace(self) -> str:
        self.count += 1
        return f"ns-{self.count}"

    def register(self, namespace: str, name: str, **differences: Any) -> int:
        golden = self.golden[differences.pop("golden", name)]
        saved_model = differences.pop("saved_model", self.models[name])
        return register(self.uri, self.folder / "runs", namespace, saved_model, golden, **differences)


@contextmanager
def rollout_world(folder: Path) -> Iterator[World]:
    """Give a world with an MLflow server that ends with the block."""
    with mlflow_server(folder / "mlflow") as uri:
        yield World(folder, uri)


@contextmanager
def serving_model(world: World, server: ModelServer, state: Path, namespace: str) -> Iterator[ServingModel]:
    """Give what every step of a rollout takes, with clients that are closed when the block ends."""
    settings = Settings(
        state=state,
        mlflow_uri=world.uri,
        model_server_grpc=server.address,
        rollout_lock_seconds=0.2,
        rollout_available_seconds=60,
        rollout_compare_requests=20,
        **PATIENT,
    )
    with Replicas(server.address, timeout_s=60) as admin, PredictClient(server.address) as predictions:
        yield ServingModel(namespace, settings, Registry(world.uri), admin, predictions)


def roll_out(model: ServingModel, version: int) -> dict[str, object]:
    verdict.verdict(model, version)
    publish.publish(model, version)
    replay.replay(model, version)
    canary.canary(model, version)
    compare.compare(model, version)
    return promote.promote(model, version)


def served_bias(server: ModelServer, model: ServingModel, **choice: Any) -> str:
    """Return which of the models the server answers with."""
    inputs = ranking_inputs(5)
    scores = score(server, model.name, inputs, **choice)
    (name,) = (name for name, bias in BIASES.items() if np.allclose(scores, ranking_scores(inputs, bias), atol=1e-5))
    return name
