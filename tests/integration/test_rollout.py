"""The rollout between a real MLflow server and a real model server."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.jobs import RejectedError
from feature_repo.contracts.manifests import Decision, Release
from feature_repo.contracts.places import Serving
from serving.protocol.client import ModelClient, PredictClient
from serving.protocol.errors import CallError, TransientCallError
from serving.rollout import (
    candidate,
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
from serving.rollout import registry as registry_module
from serving.rollout.errors import RegistryUnavailableError, RolloutBusyError, UnfitModelError, WrongScoresError
from serving.rollout.models_config import promoted_versions, read_models_config
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
    run_job,
    score,
    states,
    wait_until,
    write_golden,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BIASES = {"first": 0.25, "second": -0.5, "third": 1.0}
OTHER = "other-data"


class World:
    """One MLflow server and one set of SavedModels for the module; a model server and a state folder for each test."""

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

    def namespace(self) -> str:
        self.count += 1
        return f"ns-{self.count}"

    def register(self, namespace: str, name: str, **differences: Any) -> int:
        golden = self.golden[differences.pop("golden", name)]
        saved_model = differences.pop("saved_model", self.models[name])
        return register(self.uri, self.folder / "runs", namespace, saved_model, golden, **differences)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rollout")
    with mlflow_server(folder / "mlflow") as uri:
        yield World(folder, uri)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[ModelServer]:
    with ModelServer(state, Serving(state).models_config) as running:
        yield running


@pytest.fixture
def make(world: World, server: ModelServer, state: Path) -> Iterator[Callable[[str], ServingModel]]:
    clients: list[Any] = []

    def model(namespace: str) -> ServingModel:
        settings = Settings(
            state=state,
            mlflow_uri=world.uri,
            model_server_grpc=server.address,
            rollout_lock_seconds=0.2,
            rollout_available_seconds=60,
        )
        admin, predictions = ModelClient(server.address, timeout_s=60), PredictClient(server.address)
        clients.extend((admin, predictions))
        return ServingModel(namespace, settings, Registry(world.uri), admin, predictions)

    yield model
    for client in clients:
        client.close()


def roll_out(model: ServingModel, version: int) -> dict[str, object]:
    verdict.verdict(model, version)
    publish.publish(model, version)
    replay.replay(model, version)
    return promote.promote(model, version)


def served_bias(server: ModelServer, model: ServingModel, **choice: Any) -> str:
    inputs = ranking_inputs(5)
    scores = score(server, model.name, inputs, **choice)
    (name,) = (name for name, bias in BIASES.items() if np.allclose(scores, ranking_scores(inputs, bias), atol=1e-5))
    return name


def test_two_rollouts_and_a_rollback(world: World, server: ModelServer, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second", reason="better by 0.01")

    assert roll_out(model, first) == {"model": model.name, "version": str(first), "previous_version": ""}
    release = model.current_release()
    assert release is not None
    assert (release.version, release.verdict) == (str(first), "every gate passed")
    assert served_bias(server, model, label="stable") == "first"
    assert model.registry.aliases(model.name) == {"champion": first}

    publish.publish(model, second)
    assert served_bias(server, model, version=second) == "second"
    assert served_bias(server, model, label="stable") == "first"
    assert promoted_versions(read_models_config(model.places.models_config), model.name) == {first}
    assert replay.replay(model, second)["max_abs_difference"] == pytest.approx(0, abs=1e-6)
    assert promote.promote(model, second)["previous_version"] == str(first)
    assert promote.promote(model, second)["previous_version"] == str(first), "a repetition changes nothing"
    assert served_bias(server, model, label="stable") == "second"
    assert served_bias(server, model, label="previous") == "first"
    assert model.registry.aliases(model.name) == {"champion": second, "previous": first}
    report = status.status(model)
    assert (report["version"], report["why"], report["agree"]) == (str(second), "better by 0.01", True), report

    assert rollback.rollback(model)["version"] == str(first)
    assert served_bias(server, model, label="stable") == "first"
    assert model.registry.aliases(model.name) == {"champion": first, "previous": second}
    assert status.status(model)["agree"] is True


def test_a_verdict_other_than_promote_stops_every_step(world: World, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    model = make(namespace)
    version = world.register(namespace, "first", decision=Decision.TIE, reason="nothing shows that it is better")
    for step in (verdict.verdict, publish.publish, promote.promote):
        with pytest.raises(RejectedError, match="nothing shows that it is better"):
            step(model, version)
    assert not model.version_path(version).exists()


def test_another_checksum_publishes_nothing(world: World, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    model = make(namespace)
    version = world.register(namespace, "first", sha256="0" * 64)
    with pytest.raises(UnfitModelError, match="expected the SHA-256 0000"):
        publish.publish(model, version)
    assert not model.base_path.exists() or not list(model.base_path.iterdir())


def test_another_signature_publishes_nothing(world: World, make: Callable[[str], ServingModel], tmp_path: Path) -> None:
    namespace = world.namespace()
    model = make(namespace)
    export_ranking(tmp_path / "unfit", 0.0, dtype_of_count="int32")
    version = world.register(namespace, "first", saved_model=tmp_path / "unfit")
    with pytest.raises(UnfitModelError, match="input user_rating_count: expected int64"):
        publish.publish(model, version)
    assert not model.version_path(version).exists()


def test_wrong_scores_withdraw_the_version_and_keep_the_champion(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first = world.register(namespace, "first")
    roll_out(model, first)
    wrong = world.register(namespace, "second", golden="third")
    publish.publish(model, wrong)
    with pytest.raises(WrongScoresError, match="the champion keeps serving"):
        replay.replay(model, wrong)
    wait_until(lambda: states(server, model.name)[wrong] == "END", "the withdrawn version to be unloaded")
    assert not model.version_path(wrong).exists()
    assert served_bias(server, model) == "first"
    assert model.registry.aliases(model.name) == {"champion": first}
    assert status.status(model)["agree"] is True


def test_a_version_that_does_not_load_is_withdrawn(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], tmp_path: Path
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first = world.register(namespace, "first")
    roll_out(model, first)
    broken = tmp_path / "broken"
    export_ranking(broken, 0.0)
    data = broken / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:10])
    version = world.register(namespace, "second", saved_model=broken)
    with pytest.raises(CallError, match="did not load"):
        publish.publish(model, version)
    assert not model.version_path(version).exists()
    assert served_bias(server, model) == "first"
    assert status.status(model)["agree"] is True


def test_a_server_killed_during_a_rollout_serves_the_old_version_afterwards(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    server.end(signal.SIGKILL)
    with pytest.raises(TransientCallError, match="is it running"):
        promote.promote(model, second)
    release = model.current_release()
    assert release is not None
    assert release.version == str(first)
    server.start()
    wait_until(lambda: states(server, model.name) == {first: "AVAILABLE"}, "the promoted version alone")
    assert served_bias(server, model) == "first"
    replay.replay(model, second)
    promote.promote(model, second)
    assert served_bias(server, model, label="stable") == "second"


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


STEPS: tuple[tuple[Any, str], ...] = (
    (switching, "bring_to_disk"),
    (journal, "intend"),
    (candidate, "make_available"),
    (switching, "write_models_config"),
    (candidate, "reload_configured"),
    (Release, "write"),
    (registry_module.Registry, "set_alias"),
    (candidate, "forget"),
    (switching, "prune"),
    (journal, "done"),
)


@dataclass(frozen=True)
class Cut:
    """Where a promotion is cut off: before or after which step."""

    owner: Any
    name: str
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'}-{self.name}"


CUTS = [Cut(owner, name, after) for owner, name in STEPS for after in (False, True)]


def cut_off(monkeypatch: pytest.MonkeyPatch, cut: Cut, act: Callable[[], object]) -> None:
    """Do `act` and be killed where `cut` says."""
    real = getattr(cut.owner, cut.name)

    def killing(*arguments: Any, **options: Any) -> None:
        if cut.after:
            real(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(cut.owner, cut.name, killing)
        with pytest.raises(Killed):
            act()


def agreed(server: ModelServer, model: ServingModel) -> str:
    """Return which model is served, having checked that every part says the same."""
    report = status.status(model)
    assert report["agree"] is True, report["problems"]
    assert report["pending"] is None
    served = served_bias(server, model, label="stable")
    assert served_bias(server, model, version=int(str(report["version"]))) == served
    assert report["aliases"]["champion"] == int(str(report["version"]))  # type: ignore[index] # a report is made of objects
    return served


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_promotion_cut_off_anywhere_agrees_after_one_reconciliation(
    world: World,
    server: ModelServer,
    make: Callable[[str], ServingModel],
    monkeypatch: pytest.MonkeyPatch,
    cut: Cut,
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    cut_off(monkeypatch, cut, lambda: promote.promote(model, second))
    assert served_bias(server, model) in {"first", "second"}
    moved = model.current_release().version == str(second)  # type: ignore[union-attr] # there is one
    reconcile.reconcile(model)
    assert agreed(server, model) == ("second" if moved else "first"), "the pointer is the truth"
    assert promote.promote(model, second) == {
        "model": model.name,
        "version": str(second),
        "previous_version": str(first),
    }
    assert agreed(server, model) == "second"
    assert model.registry.aliases(model.name) == {"champion": second, "previous": first}


@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut.after], ids=str)
def test_a_rollback_cut_off_anywhere_is_made_once_by_its_retry(
    world: World,
    server: ModelServer,
    make: Callable[[str], ServingModel],
    monkeypatch: pytest.MonkeyPatch,
    cut: Cut,
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    roll_out(model, second)

    def roll_back() -> dict[str, object]:
        return rollback.rollback(model, reason="clicks fell", key="run-7")

    cut_off(monkeypatch, cut, roll_back)
    expected = {"model": model.name, "version": str(first), "previous_version": str(second)}
    assert roll_back() == expected
    assert roll_back() == expected, "another retry does not go to and fro"
    assert agreed(server, model) == "first"
    assert status.status(model)["why"] == f"rolled back from version {second}: clicks fell"


def test_namespaces_do_not_touch_each_other(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    one, other = make(world.namespace()), make(OTHER)
    roll_out(one, world.register(one.namespace, "first"))
    second = world.register(one.namespace, "second")
    publish.publish(one, second)
    roll_out(other, world.register(OTHER, "third"))
    assert served_bias(server, one, label="stable") == "first"
    assert served_bias(server, one, version=second) == "second", "the other rollout's reloads keep the candidate"
    assert served_bias(server, other, label="stable") == "third"
    config = read_models_config(one.places.models_config)
    assert {entry.name for entry in config.model_config_list.config} >= {one.name, other.name}


def test_one_rollout_at_a_time(world: World, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    model = make(namespace)
    version = world.register(namespace, "first")
    with make(namespace).locked(), pytest.raises(RolloutBusyError, match="another rollout holds"):
        publish.publish(model, version)


def test_old_versions_leave_the_disk(world: World, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    model = make(namespace)
    versions = [world.register(namespace, name) for name in ("first", "second", "third", "first")]
    for version in versions:
        roll_out(model, version)
    on_disk = sorted(int(path.name) for path in model.base_path.iterdir())
    assert on_disk == versions[1:]


def test_the_commands_end_with_their_exit_codes(world: World, server: ModelServer, state: Path) -> None:
    namespace = world.namespace()
    version = world.register(namespace, "first")
    rejected = world.register(namespace, "second", decision=Decision.REJECT, reason="AUC fell by 0.02")
    environment = {
        "KESTREL_STATE": str(state),
        "KESTREL_MLFLOW_URI": world.uri,
        "KESTREL_MODEL_SERVER_GRPC": server.address,
    }
    for command in ("verdict", "publish", "replay", "promote"):
        done = run_job(["serving.rollout", command, "--namespace", namespace, "--version", str(version)], environment)
        assert done.code == 0, done.errors
        assert done.result["version"] == str(version)
    refused = run_job(["serving.rollout", "verdict", "--namespace", namespace, "--version", str(rejected)], environment)
    assert refused.code == 10
    assert "AUC fell by 0.02" in refused.errors
    reported = run_job(["serving.rollout", "status", "--namespace", namespace], environment)
    assert (reported.code, reported.result["agree"], reported.result["aliases"]) == (0, True, {"champion": version})
    away = environment | {"KESTREL_MODEL_SERVER_GRPC": "127.0.0.1:1"}
    lost = run_job(["serving.rollout", "publish", "--namespace", namespace, "--version", str(version)], away)
    assert lost.code == 75
    assert "127.0.0.1:1" in lost.errors
    unknown = run_job(["serving.rollout", "verdict", "--namespace", namespace, "--version", "99"], environment)
    assert unknown.code == 1
    assert model_name(namespace, "ranking") in unknown.errors


def test_a_registry_that_is_away_is_transient(
    make: Callable[[str], ServingModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    model = make("nowhere")
    lost = Registry("http://127.0.0.1:1")
    with pytest.raises(RegistryUnavailableError, match="is it running"):
        lost.version(model.name, 1)
