"""One name, two model servers: a version is served by both or by neither, and one that lags is caught up with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from feature_repo.contracts.places import Serving
from serving.protocol import replicas
from serving.protocol.client import ModelClient, PredictClient
from serving.protocol.errors import TransientCallError
from serving.protocol.messages import ModelServerConfig
from serving.protocol.replicas import Replicas
from serving.rollout import canary, compare, promote, publish, reconcile, replay, rollback, status
from serving.rollout.models_config import STABLE
from serving.rollout.registry import Registry
from serving.rollout.serving_model import ServingModel
from serving.rollout.settings import Settings
from tests.rollout_world import BIASES, World, rollout_world
from tests.serving_world import ModelServer, ranking_inputs, ranking_scores, score, states

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with rollout_world(tmp_path_factory.mktemp("replicas")) as made:
        yield made


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[ModelServer, ModelServer]]:
    config = Serving(tmp_path).models_config
    with ModelServer(tmp_path / "one", config) as one, ModelServer(tmp_path / "two", config) as two:
        yield one, two


@pytest.fixture
def model(world: World, servers: tuple[ModelServer, ModelServer], tmp_path: Path) -> Iterator[ServingModel]:
    address = ",".join(server.address for server in servers)
    settings = Settings(state=tmp_path, mlflow_uri=world.uri, model_server_grpc=address)
    with Replicas(address, timeout_s=60) as admin, PredictClient(address) as predictions:
        yield ServingModel(world.namespace(), settings, Registry(world.uri), admin, predictions)


def served_by(server: ModelServer, model: ServingModel) -> str:
    inputs = ranking_inputs(5)
    scores = score(server, model.name, inputs, label=STABLE)
    return next(name for name, bias in BIASES.items() if np.allclose(scores, ranking_scores(inputs, bias), atol=1e-5))


def test_every_replica_serves_what_is_promoted_and_goes_back(
    world: World, servers: tuple[ModelServer, ModelServer], model: ServingModel
) -> None:
    first, second = (world.register(model.namespace, name) for name in ("first", "second"))
    for version in (first, second):
        for step in (publish.publish, replay.replay, canary.canary, compare.compare, promote.promote):
            step(model, version)
    assert [served_by(server, model) for server in servers] == ["second", "second"]
    assert status.status(model)["agree"]
    rollback.rollback(model)
    assert [served_by(server, model) for server in servers] == ["first", "first"]
    assert status.status(model)["agree"]


def test_a_replica_that_came_in_between_is_brought_up_to_date(
    world: World, servers: tuple[ModelServer, ModelServer], model: ServingModel
) -> None:
    version = world.register(model.namespace, "first")
    publish.publish(model, version)
    late = servers[1]
    late.end()
    late.start()  # it reads models.config, which does not name a version under test
    assert states(late, model.name) == {}
    (found,) = model.server.model_status(model.name)
    assert found.state == "AVAILABLE on 1, unknown on 1 of 2 replicas"
    promote.promote(model, version)
    assert [served_by(server, model) for server in servers] == ["first", "first"]


def test_a_replica_that_serves_something_else_is_found_and_mended(
    world: World, servers: tuple[ModelServer, ModelServer], model: ServingModel
) -> None:
    version = world.register(model.namespace, "first")
    publish.publish(model, version)
    promote.promote(model, version)
    empty = ModelServerConfig()
    empty.model_config_list.SetInParent()
    with ModelClient(servers[1].address, timeout_s=60) as lagging:
        lagging.reload_config(empty)
    found = status.status(model)
    assert not found["agree"]
    assert "reconcile" in str(found["problems"])
    reconcile.reconcile(model)
    assert status.status(model)["agree"]
    assert served_by(servers[1], model) == "first"


def test_nothing_is_switched_while_replicas_come_and_go(
    world: World,
    servers: tuple[ModelServer, ModelServer],
    model: ServingModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (world.register(model.namespace, name) for name in ("first", "second"))
    publish.publish(model, first)
    promote.promote(model, first)
    publish.publish(model, second)
    monkeypatch.setattr(replicas, "resolve", lambda address: (*address.split(","), "127.0.0.1:9"))
    with pytest.raises(TransientCallError, match="its replicas changed meanwhile"):
        promote.promote(model, second)
    assert [served_by(server, model) for server in servers] == ["first", "first"]
    assert str(first) == str(status.status(model)["version"])
    monkeypatch.undo()
    promote.promote(model, second)
    assert [served_by(server, model) for server in servers] == ["second", "second"]


def test_a_name_that_stands_for_nothing_is_worth_another_try() -> None:
    with pytest.raises(TransientCallError, match=r"nowhere\.invalid"):
        Replicas("nowhere.invalid:8500")
