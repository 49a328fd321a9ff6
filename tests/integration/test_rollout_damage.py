"""Records and folders of a rollout that were damaged or deleted: named, mended, or said to be lost."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from feature_repo.contracts.places import Serving
from feature_repo.contracts.publishing import CorruptRecordError
from serving.rollout import candidate, journal, promote, publish, reconcile, rollback, status
from serving.rollout.errors import LostModelError, RolloutError
from serving.rollout.models_config import labels_of, read_models_config
from tests.rollout_world import World, roll_out, rollout_world, served_bias, serving_model
from tests.serving_world import ModelServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlflow import MlflowClient

    from serving.rollout.serving_model import ServingModel


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with rollout_world(tmp_path_factory.mktemp("damage")) as made:
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
def make(world: World, server: ModelServer) -> Iterator[Callable[[str], ServingModel]]:
    with ExitStack() as clients:
        yield lambda namespace: clients.enter_context(
            serving_model(world, server, server.config.parent.parent, namespace)
        )


@pytest.fixture
def model(world: World, make: Callable[[str], ServingModel]) -> ServingModel:
    """Return a model with version 2 in force, and version 1 before it."""
    model = make(world.namespace())
    for name in ("first", "second"):
        roll_out(model, world.register(model.namespace, name))
    return model


def told(model: ServingModel, part: str) -> list[str]:
    found = status.status(model)[part]
    assert isinstance(found, list)
    return found


def delete(path: Path) -> None:
    path.unlink()


def break_off(path: Path) -> None:
    path.write_text("{", encoding="utf-8")


@pytest.mark.parametrize("damage", [delete, break_off])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("remembered", [True, False])
def test_the_record_of_a_promotion_is_made_anew(
    server: ModelServer, model: ServingModel, damage: Callable[[Path], None], version: int, *, remembered: bool
) -> None:
    before = model.promoted_release(version)
    assert before is not None
    damage(model.release_path(version))
    if not remembered:
        delete(model.places.rollouts(model.namespace) / "history.json")
    assert any(str(model.release_path(version)) in problem for problem in told(model, "problems"))
    assert told(model, "lost") == []
    assert any(str(model.release_path(version)) in fault for fault in reconcile.reconcile(model)["mended"])  # type: ignore[attr-defined] # a list
    rebuilt = model.promoted_release(version)
    assert rebuilt is not None
    assert rebuilt.parts == before.parts
    assert status.status(model)["agree"] is True
    assert rollback.rollback(model)["version"] == "1"
    assert served_bias(server, model, label="stable") == "first"
    assert rollback.rollback(model)["version"] == "2"


def test_going_back_needs_no_record_but_the_pointer(
    server: ModelServer, world: World, model: ServingModel, client: MlflowClient
) -> None:
    before = model.promoted_release(1)
    assert before is not None
    delete(model.release_path(1))
    client.delete_registered_model(model.name)
    assert world.register(model.namespace, "third") == 1, "a namesake of the one before"
    reconcile.reconcile(model)
    rebuilt = model.promoted_release(1)
    assert rebuilt is not None
    assert rebuilt.parts == before.parts, "and not the namesake's"
    delete(model.release_path(1))
    assert rollback.rollback(model)["version"] == "1"
    assert served_bias(server, model, label="stable") == "first"


def test_a_folder_that_nothing_brings_back_is_lost(model: ServingModel, client: MlflowClient) -> None:
    shutil.rmtree(model.version_path(1))
    client.delete_model_version(model.name, "1")
    assert any("there is nothing to go back to until the next promotion" in loss for loss in told(model, "lost"))
    with pytest.raises(RolloutError, match=r"status --namespace .* says what became of the one before"):
        rollback.rollback(model)


def test_a_deleted_folder_of_the_version_before_comes_back(server: ModelServer, model: ServingModel) -> None:
    shutil.rmtree(model.version_path(1))
    assert status.status(model)["agree"] is False
    reconcile.reconcile(model)
    assert model.version_path(1).is_dir()
    assert status.status(model)["agree"] is True
    shutil.rmtree(model.version_path(1))
    config = model.places.models_config
    config.unlink()  # nobody names version 1 any longer
    assert any("the version before is 1" in problem for problem in told(model, "problems"))
    reconcile.reconcile(model)
    assert rollback.rollback(model)["version"] == "1"
    assert served_bias(server, model, label="stable") == "first"


def test_of_a_folder_that_is_gone_nobody_says_that_it_serves_on(
    server: ModelServer, model: ServingModel, client: MlflowClient
) -> None:
    client.delete_registered_model(model.name)
    shutil.rmtree(model.version_path(2))
    report = status.status(model)
    assert not any("reconcile" in problem for problem in report["problems"])  # type: ignore[attr-defined] # a list
    assert any("promote another version, or roll back to one" in problem for problem in report["problems"])  # type: ignore[attr-defined] # a list
    for loss in told(model, "lost"):
        assert "which is in force" not in loss or "serves on" not in loss
    with pytest.raises(LostModelError, match="promote another version, or roll back to one"):
        reconcile.reconcile(model)
    rollback.rollback(model)
    assert status.status(model)["agree"] is True
    (before,) = (loss for loss in told(model, "lost") if "version 2" in loss and "no longer in the registry" in loss)
    assert "2 is missing, so that there is nothing to go back to until the next promotion" in before
    assert served_bias(server, model, label="stable") == "first"


def test_another_namespaces_damage_stops_nobody(
    server: ModelServer, model: ServingModel, make: Callable[[str], ServingModel]
) -> None:
    journal_of_other = model.places.root / "candidates" / "zzz.ranking.json"
    journal_of_other.parent.mkdir(exist_ok=True)
    break_off(journal_of_other)
    try:
        assert rollback.rollback(model)["version"] == "1"
        assert status.status(model)["agree"] is True
        assert served_bias(server, model, label="stable") == "first"
        with pytest.raises(CorruptRecordError, match=r"zzz\.ranking\.json: expected a JSON object.*; remove it, run"):
            status.status(make("zzz"))
    finally:
        delete(journal_of_other)


RECORDS: dict[str, Callable[[ServingModel], Path]] = {
    "pointer": lambda model: model.current_release_path,
    "canary": lambda model: model.canary_release_path,
    "candidate": lambda model: model.places.root / "candidates" / f"{model.name}.json",
    "pending": lambda model: model.places.rollouts(model.namespace) / "pending.json",
    "history": lambda model: model.places.rollouts(model.namespace) / "history.json",
    "configuration": lambda model: model.places.models_config,
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_stops_every_command_before_it_changes_anything(model: ServingModel, name: str) -> None:
    path = RECORDS[name](model)
    held = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    try:
        for content in (b"{", b"\xff\xfe") if name == "configuration" else (b"{", b"[]", b"{}", b"\xff\xfe"):
            path.write_bytes(content)
            files = {each: each.read_bytes() for each in model.places.root.rglob("*.json")}
            for act in (
                lambda: status.status(model),
                lambda: reconcile.reconcile(model),
                lambda: rollback.rollback(model),
                lambda: promote.promote(model, 1),
                lambda: publish.publish(model, 1),
            ):
                with pytest.raises(CorruptRecordError, match=rf"{path.name}: (expected|not a Release).*; remove it"):
                    act()
            assert {each: each.read_bytes() for each in model.places.root.rglob("*.json")} == files
    finally:
        if name == "configuration":
            path.write_bytes(held or b"")
        else:
            path.unlink()  # the remedy
    if name == "pointer":
        (problem,) = (one for one in told(model, "problems") if one.startswith("no release is in force"))
        assert f"publish --namespace {model.namespace} --version 2`, then `promote`" in problem
        roll_out(model, 2)
    reconcile.reconcile(model)
    assert status.status(model)["agree"] is True
    assert labels_of(read_models_config(model.places.models_config), model.name)["stable"] == 2
    assert candidate.under_test(model) is None
    assert journal.pending(model) is None


def test_a_configuration_that_was_removed_is_written_anew(server: ModelServer, model: ServingModel) -> None:
    model.places.models_config.write_text("no configuration", encoding="utf-8")
    with pytest.raises(CorruptRecordError, match="reconcile` for every namespace that serves"):
        reconcile.reconcile(model)
    model.places.models_config.unlink()
    reconcile.reconcile(model)
    assert status.status(model)["agree"] is True
    assert served_bias(server, model, label="stable") == "second"


def test_a_damaged_record_of_another_version_names_what_to_do(world: World, model: ServingModel) -> None:
    roll_out(model, world.register(model.namespace, "third"))
    break_off(model.release_path(1))
    assert status.status(model)["agree"] is True
    with pytest.raises(CorruptRecordError, match=r"v1\.json: .*publish and promote its version again"):
        rollback.rollback(model, to=1)
    assert journal.pending(model) is None
    delete(model.release_path(1))
    publish.publish(model, 1)
    assert promote.promote(model, 1)["version"] == "1"
