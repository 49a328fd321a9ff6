"""Versions whose number says nothing any longer: deleted in MLflow, or given anew to another model."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from feature_repo.contracts.jobs import RejectedError
from feature_repo.contracts.manifests import Decision
from feature_repo.contracts.places import Serving
from feature_repo.contracts.publishing import read_json, write_json
from serving.rollout import (
    canary,
    candidate,
    compare,
    journal,
    promote,
    publish,
    reconcile,
    replay,
    rollback,
    status,
    switching,
    verdict,
)
from serving.rollout.errors import LostModelError, NumberTakenError, RolloutError, UnknownVersionError
from serving.rollout.models_config import labels_of, read_models_config
from tests.rollout_world import World, roll_out, rollout_world, served_bias, serving_model
from tests.serving_world import ModelServer, states, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow import MlflowClient

    from serving.rollout.serving_model import ServingModel


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with rollout_world(tmp_path_factory.mktemp("namesakes")) as made:
        yield made


@pytest.fixture(scope="module")
def client(world: World) -> MlflowClient:
    return world.client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    state = tmp_path_factory.mktemp("state")
    with ModelServer(state, Serving(state).models_config) as running:
        yield running


@pytest.fixture
def model(world: World, server: ModelServer) -> Iterator[ServingModel]:
    with ExitStack() as clients:
        yield clients.enter_context(serving_model(world, server, server.config.parent.parent, world.namespace()))


def served(server: ModelServer, model: ServingModel) -> str:
    """Return which model is served, having checked that the parts agree, as far as MLflow has them still."""
    report = status.status(model)
    assert report["agree"] is True, report["problems"]
    return served_bias(server, model, label="stable")


def register_anew(world: World, client: MlflowClient, model: ServingModel, name: str, **differences: Decision) -> int:
    """Delete the registered model and register another: its versions count from 1 again."""
    client.delete_registered_model(model.name)
    return world.register(model.namespace, name, **differences)


def test_a_rejected_version_that_got_the_number_in_force_never_becomes_champion(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    first = world.register(model.namespace, "first")
    roll_out(model, first)
    again = register_anew(world, client, model, "second", decision=Decision.REJECT)
    assert again == first
    (lost,) = status.status(model)["lost"]  # type: ignore[misc] # a list
    assert "(its number is run" in lost
    assert reconcile.reconcile(model)["lost"] == [lost]
    assert model.registry.aliases(model.name) == {}
    client.set_registered_model_alias(model.name, "champion", str(again))
    assert status.status(model)["agree"] is False
    (mended,) = reconcile.reconcile(model)["mended"]  # type: ignore[misc] # as above
    assert "its alias champion names 1" in mended
    assert model.registry.aliases(model.name) == {}
    assert served(server, model) == "first"


@pytest.mark.parametrize(
    "step",
    [publish.publish, replay.replay, canary.canary, compare.compare, promote.promote],
    ids=lambda step: step.__name__,
)
def test_no_step_takes_up_a_version_under_whose_number_another_model_serves(
    world: World,
    client: MlflowClient,
    server: ModelServer,
    model: ServingModel,
    step: Callable[[ServingModel, int], object],
) -> None:
    roll_out(model, world.register(model.namespace, "first"))
    again = register_anew(world, client, model, "second")
    with pytest.raises(
        NumberTakenError, match=r"expected run \w+, which is in force, found run .*`python -m models gate"
    ):
        step(model, again)
    assert served(server, model) == "first"


def test_what_a_rollback_goes_back_to_is_not_overwritten_and_comes_back_without_the_registry(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    again = register_anew(world, client, model, "third")
    assert again == first
    with pytest.raises(NumberTakenError, match="is the one to go back to"):
        publish.publish(model, again)
    assert rollback.rollback(model)["version"] == str(first)
    assert model.registry.aliases(model.name) == {}, "the registry's version 1 is another model"
    assert served(server, model) == "first"


def test_a_version_under_test_gives_way_to_the_one_that_got_its_number(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    canary.canary(model, second)
    register_anew(world, client, model, "second")
    again = world.register(model.namespace, "third")
    assert again == second
    with pytest.raises(RolloutError, match="the canary, found run"):
        compare.compare(model, again)
    publish.publish(model, again)
    assert served_bias(server, model, version=again) == "third"
    assert model.canary_release() is None, "the canary was the other one"
    assert labels_of(read_models_config(model.places.models_config), model.name) == {"stable": first}
    assert served(server, model) == "first"
    roll_out(model, again)
    assert served(server, model) == "third"
    assert model.registry.aliases(model.name) == {"champion": again}, "the one before is no longer in the registry"
    rollback.rollback(model)
    assert served(server, model) == "first"


def test_an_old_folder_makes_room_and_is_no_target_of_a_rollback_any_longer(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    names = ("first", "second", "first")
    versions = [world.register(model.namespace, name) for name in names]
    for version in versions:
        roll_out(model, version)
    again = register_anew(world, client, model, "third")
    assert again == versions[0]
    publish.publish(model, again)
    assert served_bias(server, model, version=again) == "third"
    with pytest.raises(LostModelError, match=r"cannot be brought back: .*; the registry has run \w+ under this number"):
        rollback.rollback(model, to=again)
    assert served_bias(server, model, version=again) == "third"
    rollback.rollback(model)
    assert candidate.under_test(model) == again
    assert model.version_path(again).is_dir(), "what is under test is not pruned, however low its number"
    assert served(server, model) == "second"
    promote.promote(model, again)
    assert served(server, model) == "third"


def load_other_bytes(world: World, model: ServingModel, version: int, name: str) -> None:
    """Have the server load another model from the version's folder, as after a restart with a damaged disk."""
    path = model.version_path(version)
    with candidate.unloaded(model, version):
        shutil.rmtree(path)
        shutil.copytree(world.models[name], path)
    switching.serve(model, model.current_release())


def test_a_folder_that_is_replaced_is_loaded_anew(world: World, server: ModelServer, model: ServingModel) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    load_other_bytes(world, model, second, "third")
    load_other_bytes(world, model, first, "third")
    assert served_bias(server, model, label="stable") == "third"
    problems = status.status(model)["problems"]
    assert sum("are not those that were registered" in problem for problem in problems) == 2  # type: ignore[attr-defined] # a list
    reconcile.reconcile(model)
    assert served(server, model) == "second"
    assert served_bias(server, model, label="previous") == "first"
    load_other_bytes(world, model, second, "third")
    publish.publish(model, second)
    assert served(server, model) == "second"
    load_other_bytes(world, model, second, "third")
    replay.replay(model, second)
    assert served(server, model) == "second"
    load_other_bytes(world, model, first, "third")
    rollback.rollback(model)
    assert served(server, model) == "first"


def test_versions_that_failed_to_load_are_tried_again_with_their_new_folders(
    world: World, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    for version in (first, second):
        data = model.version_path(version) / "variables" / "variables.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:10])
    server.end()
    server.start()
    wait_until(lambda: set(states(server, model.name).values()) == {"END"}, "both to fail")
    reconcile.reconcile(model)
    assert served(server, model) == "second"
    assert served_bias(server, model, label="previous") == "first"


def test_a_served_version_that_is_deleted_serves_on_and_is_said_to_be_lost(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    client.delete_model_version(model.name, str(second))
    for report in (status.status(model), reconcile.reconcile(model)):
        (lost,) = report["lost"]  # type: ignore[misc] # a list
        assert f"{model.name} version {second} of run" in lost
        assert "is in force, is no longer in the registry: it serves on" in lost
    assert served(server, model) == "second"
    rollback.rollback(model)
    assert model.registry.aliases(model.name) == {"champion": first}
    assert served(server, model) == "first"
    (lost,) = status.status(model)["lost"]  # type: ignore[misc] # as above
    assert f"version {second} of run" in lost


def test_a_deleted_registered_model_leaves_what_serves_and_ends_what_is_under_test(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    canary.canary(model, second)
    client.delete_registered_model(model.name)
    report = status.status(model)
    assert any("is under test, and no longer in the registry" in problem for problem in report["problems"])  # type: ignore[attr-defined] # a list
    reconcile.reconcile(model)
    assert candidate.under_test(model) is None
    assert model.canary_release() is None
    assert served(server, model) == "first"
    for step in (verdict.verdict, publish.publish, replay.replay, canary.canary, promote.promote):
        with pytest.raises(UnknownVersionError, match="not found"):
            step(model, second)
    with pytest.raises(RolloutError, match="the first; name another"):
        rollback.rollback(model)
    third = world.register(model.namespace, "third")
    assert third == first
    with pytest.raises(NumberTakenError):
        publish.publish(model, third)


def test_a_deleted_experiment_is_said_with_what_brings_it_back(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    experiment = client.get_experiment_by_name(model.namespace)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    (lost,) = status.status(model)["lost"]  # type: ignore[misc] # a list
    assert (
        "the run's experiment is deleted in MLflow, so that nothing can be trained; `MLFLOW_TRACKING_URI=http" in lost
    )
    assert f"-m mlflow experiments restore --experiment-id {experiment.experiment_id}` brings it back" in lost
    run = client.get_model_version(model.name, str(first)).run_id
    client.restore_run(run)
    assert status.status(model)["lost"] == [lost], "the run alone is not enough"
    client.delete_run(run)
    assert reconcile.reconcile(model)["lost"] == [lost]
    assert served(server, model) == "first"
    roll_out(model, second)
    assert served(server, model) == "second"
    client.restore_experiment(experiment.experiment_id)
    client.restore_run(run)
    assert status.status(model)["lost"] == []
    client.delete_run(run)
    (lost,) = status.status(model)["lost"]  # type: ignore[misc] # a list
    assert "the run is deleted in MLflow; `MLFLOW_TRACKING_URI=http" in lost
    client.restore_run(run)


def test_a_damaged_folder_that_nothing_brings_back_ends_in_a_sentence(
    world: World, client: MlflowClient, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    for version in (first, second):
        (model.version_path(version) / "fingerprint.pb").write_bytes(b"")
    client.delete_model_version(model.name, str(first))
    reconcile.reconcile(model)
    assert served(server, model) == "second"
    assert not model.version_path(first).exists(), "there is nothing to go back to, and no label says so"
    with pytest.raises(RolloutError, match="expected a version that was promoted once and lies on disk still"):
        rollback.rollback(model)
    client.delete_model_version(model.name, str(second))
    (model.version_path(second) / "fingerprint.pb").write_bytes(b"")
    with pytest.raises(LostModelError, match=r"the registry has no such version: promote another version"):
        reconcile.reconcile(model)
    assert served_bias(server, model, label="stable") == "second", "the server has it in its memory still"


def test_a_first_version_that_is_rejected_leaves_nobody_serving(world: World, model: ServingModel) -> None:
    version = world.register(model.namespace, "first", decision=Decision.REJECT, reason="p99 is 80 ms")
    for step in (verdict.verdict, publish.publish, replay.replay, canary.canary, promote.promote):
        with pytest.raises(RejectedError, match="p99 is 80 ms; no version serves yet"):
            step(model, version)
    assert not model.version_path(version).exists()


def test_a_verdict_on_another_run_is_none(world: World, client: MlflowClient, model: ServingModel) -> None:
    version = world.register(model.namespace, "first")
    run_id = model.registry.version(model.name, version).run_id
    foreign = read_json(model.registry.download_run_file(run_id, "gates/verdict.json", world.folder))
    client.log_dict(run_id, foreign | {"run_id": "0" * 32}, "gates/verdict.json")
    publish.publish(model, version)
    with pytest.raises(UnknownVersionError, match=f"expected the verdict on run {run_id}, received that on run 000"):
        promote.promote(model, version)


def test_what_was_written_before_runs_were_is_read_still(
    world: World, server: ModelServer, model: ServingModel
) -> None:
    first, second = world.register(model.namespace, "first"), world.register(model.namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    history = model.places.rollouts(model.namespace) / "history.json"
    (switch,) = read_json(history)["switches"]  # type: ignore[misc] # a list
    write_json(history, {"switches": [{name: value for name, value in switch.items() if name != "run_id"}]})
    under_test = model.places.root / "candidates" / f"{model.name}.json"
    record = read_json(under_test)
    write_json(under_test, {name: record[name] for name in ("model", "version", "base_path")})
    assert [entry.run_id for entry in journal.history(model)] == [""]
    assert served(server, model) == "first"
    roll_out(model, second)
    assert served(server, model) == "second"
