"""The rollout between a real MLflow server and a real model server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from feature_repo.contracts.intervals import model_name
from feature_repo.contracts.jobs import RejectedError
from feature_repo.contracts.manifests import Decision, ShadowSummary
from feature_repo.contracts.places import Serving
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE
from serving.protocol.client import PredictClient, predict_request
from serving.protocol.errors import BusyServerError, CallError, TransientCallError
from serving.protocol.record_files import write_records
from serving.protocol.recorded import WARMUP_FILE, log_of, read_requests
from serving.protocol.replicas import Replicas
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
    verdict,
)
from serving.rollout.errors import (
    RegistryUnavailableError,
    RolloutBusyError,
    RolloutError,
    UndecidedCanaryError,
    UnfitModelError,
    UnknownVersionError,
    WorseCanaryError,
    WrongScoresError,
)
from serving.rollout.models_config import (
    CANARY,
    labels_of,
    promoted_versions,
    read_models_config,
    set_model,
    write_models_config,
)
from serving.rollout.registry import Registry
from serving.rollout.serving_model import ServingModel
from tests.awkward_paths import AWKWARD, LOCAL
from tests.rollout_cuts import CUTS, Cut, agreed, cut_off
from tests.rollout_world import BIASES, World, roll_out, rollout_world, served_bias, serving_model
from tests.serving_world import (
    ModelServer,
    export_ranking,
    ranking_inputs,
    ranking_scores,
    run_job,
    states,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

OTHER = "other-data"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with rollout_world(tmp_path_factory.mktemp("rollout") / LOCAL) as made:
        yield made


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / AWKWARD


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[ModelServer]:
    with ModelServer(state, Serving(state).models_config) as running:
        yield running


@pytest.fixture
def make(world: World, server: ModelServer, state: Path) -> Iterator[Callable[[str], ServingModel]]:
    with ExitStack() as clients:
        yield lambda namespace: clients.enter_context(serving_model(world, server, state, namespace))


def test_of_a_namespace_that_nobody_knows_the_status_says_so(make: Callable[[str], ServingModel]) -> None:
    report = status.status(make("mistyped"))
    assert report["agree"] is False
    assert report["problems"] == [
        "mistyped.ranking: no release, no version on the server, no alias in the registry; is the namespace right?"
    ]


def test_two_rollouts_and_a_rollback(world: World, server: ModelServer, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second", reason="better by 0.01")

    assert roll_out(model, first) == {"model": model.name, "version": str(first), "previous_version": ""}
    release = model.current_release()
    assert release is not None
    assert (release.ranker.version, release.why) == (str(first), "every gate passed")
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


@pytest.mark.parametrize("decision", [Decision.TIE, Decision.REJECT])
def test_a_verdict_other_than_promote_stops_every_step(
    decision: Decision, world: World, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    version = world.register(namespace, "first", decision=decision, reason="nothing shows that it is better")
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
    with pytest.raises(UnfitModelError, match="input user_event_count: expected int64"):
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
    assert release.ranker.version == str(first)
    server.start()
    wait_until(lambda: states(server, model.name) == {first: "AVAILABLE"}, "the promoted version alone")
    assert served_bias(server, model) == "first"
    replay.replay(model, second)
    promote.promote(model, second)
    assert served_bias(server, model, label="stable") == "second"


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
    moved = model.current().version == str(second)  # type: ignore[union-attr] # there is one
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


def test_rolling_back_takes_less_than_five_seconds_and_happens_once(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], state: Path
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    command = ["serving.rollout", "rollback", "--namespace", namespace, "--reason", "clicks fell", "--key", "run-1"]
    environment = {
        "KESTREL_STATE": str(state),
        "KESTREL_MLFLOW_URI": world.uri,
        "KESTREL_MODEL_SERVER_GRPC": server.address,
    }
    started = time.time()
    done = run_job(command, environment)
    assert done.code == 0, done.errors
    served_after = model.current_release_path.stat().st_mtime - started
    ended_after = time.time() - started
    log.warning("rollback: served after %.2f s, the command ended after %.2f s", served_after, ended_after)
    assert served_after < 5
    assert run_job(command, environment).result == done.result
    assert agreed(server, model) == "first"


def test_a_rollback_needs_no_registry_until_users_are_served(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    cut = dataclasses.replace(model, registry=Registry("http://127.0.0.1:1"))
    with pytest.raises(RegistryUnavailableError):
        rollback.rollback(cut, key="run-1")
    assert served_bias(server, model, label="stable") == "first"
    report = status.status(model)
    assert report["agree"] is False
    assert all(f"reconcile --namespace {namespace}` mends it" in problem for problem in report["problems"])  # type: ignore[attr-defined] # a list
    assert rollback.rollback(model, key="run-1")["version"] == str(first)
    assert agreed(server, model) == "first"


def test_rollback_to_a_version_that_cannot_come_back_names_those_that_can(
    world: World, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    with pytest.raises(RolloutError, match="expected a release in force, found none"):
        rollback.rollback(model)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    third = world.register(namespace, "third")
    roll_out(model, first)
    with pytest.raises(RolloutError, match="expected a release with one before it"):
        rollback.rollback(model)
    roll_out(model, second)
    publish.publish(model, third)
    with pytest.raises(RolloutError, match=rf"one of \[{second}, {first}\], received {third}"):
        rollback.rollback(model, to=third)
    assert rollback.rollback(model, to=second)["version"] == str(second), "it is in force already"
    assert rollback.rollback(model, to=first, reason="clicks fell")["version"] == str(first)
    assert candidate.under_test(model) == third, "what is under test stays so"


def damage_alias(model: ServingModel, first: int, second: int) -> None:
    model.registry.set_alias(model.name, "champion", first)
    model.registry.set_alias(model.name, "previous", second)


def damage_config(model: ServingModel, first: int, second: int) -> None:
    config = read_models_config(model.places.models_config)
    set_model(config, model.name, model.base_path, [first], {"stable": first})
    write_models_config(model.places.models_config, config)


def damage_server(model: ServingModel, first: int, second: int) -> None:
    config = read_models_config(model.places.models_config)
    set_model(config, model.name, model.base_path, [first], {"stable": first})
    model.server.reload_config(config)


def damage_labels(model: ServingModel, first: int, second: int) -> None:
    config = read_models_config(model.places.models_config)
    set_model(config, model.name, model.base_path, [first, second], {"stable": first, "previous": second})
    model.server.reload_config(config)


def damage_disk(model: ServingModel, first: int, second: int) -> None:
    shutil.rmtree(model.version_path(second))
    wait_until(lambda: not candidate.is_available(model, second), "the server to see that the folder is gone")


@pytest.mark.parametrize("damage", [damage_alias, damage_config, damage_server, damage_labels, damage_disk])
def test_a_disagreement_is_named_and_mended_towards_the_pointer(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], damage: Callable[..., None]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    since = status.status(model)["since"]
    damage(model, first, second)
    report = status.status(model)
    assert report["agree"] is False
    assert all(f"reconcile --namespace {namespace}` mends it" in problem for problem in report["problems"])  # type: ignore[attr-defined] # a list
    assert reconcile.reconcile(model)["mended"] == report["problems"]
    assert agreed(server, model) == "second"
    assert reconcile.reconcile(model)["mended"] == []
    assert status.status(model)["since"] == since, "it has served since then all the while"


def write_sample(model: ServingModel, name: str = "20261123T040000Z-host-1.tfrecord", **changes: Any) -> list[Any]:
    """Record requests as a recommender does."""
    requests = []
    for seed in range(6):
        inputs = ranking_inputs(10 + seed, ONE_USER_SIGNATURE, seed) | changes
        requests.append(
            predict_request(model.name, inputs, version=1, signature_name=ONE_USER_SIGNATURE, outputs=("score",))
        )
    folder = model.places.request_samples(model.namespace, model.part)
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / name, map(log_of, requests))
    return requests


def test_the_warm_up_is_golden_first_and_then_what_was_really_sent(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    golden = list(read_requests(model.version_path(first) / WARMUP_FILE))
    assert [request.model_spec.signature_name for request in golden] == [ROWS_SIGNATURE, ROWS_SIGNATURE, "one_user"]
    assert all(request.model_spec.name == model.name for request in golden)

    sent = write_sample(model)
    write_sample(model, "20261123T050000Z-host-1.tfrecord", user_event_count=np.zeros(1, np.float32))  # no longer fits
    damaged = model.places.request_samples(namespace, "ranking") / "20261123T060000Z-host-1.tfrecord"
    damaged.write_bytes(b"junk that is no record")
    publish.publish(model, second)
    for request in sent:
        request.model_spec.ClearField("version")
    file = model.version_path(second) / WARMUP_FILE
    assert list(read_requests(file)) == sent
    assert "warmup" in server.log.read_text().lower()

    before = file.stat().st_mtime_ns
    publish.publish(model, second)
    assert file.stat().st_mtime_ns == before, "published once, it stays"
    file.write_bytes(file.read_bytes()[:-3])
    publish.publish(model, second)
    assert list(read_requests(file)) == sent, "a damaged one would keep the version from loading"


def test_a_canary_is_labelled_compared_and_promoted(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    assert roll_out(model, first)["version"] == str(first), "the first has nothing to be compared with"
    write_sample(model)
    publish.publish(model, second)
    with pytest.raises(RolloutError, match=r"expected version .* to be the canary, found None; .* makes it one"):
        compare.compare(model, second)
    canary.canary(model, second)
    assert served_bias(server, model, label="canary") == "second"
    assert served_bias(server, model, label="stable") == "first"
    assert labels_of(read_models_config(model.places.models_config), model.name) == {"stable": first, "canary": second}
    report = status.status(model)
    assert report["agree"] is True, report["problems"]
    assert report["canary"]["version"] == str(second)  # type: ignore[index] # there is one
    seen = model.canary_release_path.stat().st_mtime_ns
    canary.canary(model, second)
    assert model.canary_release_path.stat().st_mtime_ns == seen, "a repetition changes nothing"

    result = compare.compare(model, second)
    assert (result["requests"], result["distinct"], result["source"], result["errors"]) == (20, 6, "samples", 0)
    assert result["compared"] == (
        f"20 replayed requests, 6 distinct samples, in turns with version {first}; no shadowed requests"
    )
    expected = [
        ranking_scores(ranking_inputs(10 + seed, ONE_USER_SIGNATURE, seed), BIASES["second"])
        - ranking_scores(ranking_inputs(10 + seed, ONE_USER_SIGNATURE, seed), BIASES["first"])
        for seed in range(6)
    ]
    assert result["mean_abs_difference"] == pytest.approx(np.abs(np.concatenate(expected)).mean(), abs=1e-5)
    assert result["rank_correlation"] == pytest.approx(1.0, abs=0.01), "another bias keeps the order, but for ties"
    registered = model.registry.version(model.name, second)
    assert registered.tags["kestrel.comparison"] == "passed"
    kept = model.registry.download_run_file(registered.run_id, "rollout/comparison.json", world.folder)
    comparison = json.loads(kept.read_text())
    assert comparison == json.loads(model.comparison_path(second).read_text())
    assert comparison["differences"]["requests"] == 6, "a request that is sent again says nothing new of the scores"

    promote.promote(model, second)
    assert agreed(server, model) == "second"
    assert CANARY not in labels_of(read_models_config(model.places.models_config), model.name)
    assert not model.canary_release_path.exists()
    again = compare.compare(model, second)
    assert (again["source"], again["compared"]) == ("in force already", "nothing: it is in force already")


def test_a_canary_that_fails_requests_is_withdrawn_with_the_reason(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], tmp_path: Path
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first = world.register(namespace, "first")
    roll_out(model, first)
    export_ranking(tmp_path / "nan", float("nan"))
    broken = world.register(namespace, "second", saved_model=tmp_path / "nan")
    publish.publish(model, broken)
    canary.canary(model, broken)
    with pytest.raises(WorseCanaryError, match=r"it failed 20 of 20 replayed requests.* a score is not finite; it"):
        compare.compare(model, broken)
    assert model.registry.version(model.name, broken).tags["kestrel.comparison"].startswith("failed: it failed 20 of")
    assert agreed(server, model) == "first"
    assert not model.version_path(broken).exists()
    assert labels_of(read_models_config(model.places.models_config), model.name) == {"stable": first}
    with pytest.raises(WorseCanaryError, match="it failed 20 of 20"):
        compare.compare(model, broken)  # a retry of a comparison that was killed at its very end


@pytest.mark.parametrize("step", ["write_pointer", "forget", "reload_configured", "remove_version", "write_json"])
def test_a_canary_cut_off_anywhere_agrees_after_one_reconciliation(
    world: World,
    server: ModelServer,
    make: Callable[[str], ServingModel],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)

    def begin_and_end() -> None:
        canary.canary(model, second)
        canary.withdraw(model, second)

    cut_off(monkeypatch, Cut(ServingModel if step == "write_pointer" else candidate, step, after=False), begin_and_end)
    reconcile.reconcile(model)
    assert agreed(server, model) == "first"
    roll_out(model, second)
    assert agreed(server, model) == "second"


def test_a_rollback_leaves_the_canary_under_test(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    versions = [world.register(namespace, name) for name in BIASES]
    roll_out(model, versions[0])
    roll_out(model, versions[1])
    publish.publish(model, versions[2])
    canary.canary(model, versions[2])
    rollback.rollback(model)
    assert agreed(server, model) == "first"
    assert served_bias(server, model, label="canary") == "third"
    with pytest.raises(RolloutError, match="which is promoted"):
        canary.withdraw(model, versions[1])
    canary.withdraw(model, versions[2])
    assert agreed(server, model) == "first"
    assert not model.version_path(versions[2]).exists()
    canary.withdraw(model, versions[2])  # again: there is nothing left to do
    with pytest.raises(UnknownVersionError, match="not found"):
        canary.withdraw(model, versions[-1] + 1)


def test_a_comparison_waits_for_shadowed_requests_and_judges_their_errors(
    world: World, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    patient = make(namespace)
    settings = patient.settings.model_copy(update={"rollout_shadow_requests": 20, "rollout_shadow_seconds": 30.0})
    model = dataclasses.replace(patient, settings=settings)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    canary.canary(model, second)

    def recommender(name: str, errors: int) -> None:
        ShadowSummary(
            *(namespace, "ranking", str(second), str(first), 10, errors, 0, 0, "refused" if errors else ""),
            *([1.0, 2.0], [1.0, 1.0], [0.1, 0.3], [0.2, 0.4], "2026-11-23T04:00:00+00:00"),
        ).write(model.shadows_path(second) / f"{name}.json")

    recommender("one", 0)
    with ThreadPoolExecutor(1) as pool:
        comparing = pool.submit(compare.compare, model, second)
        with pytest.raises(FutureTimeoutError):
            comparing.result(1)
        recommender("two", 1)
        with pytest.raises(WorseCanaryError, match="it failed 1 of 20 shadowed requests"):
            comparing.result(30)
    kept = json.loads(model.comparison_path(second).read_text())["shadow"]
    assert (kept["requests"], kept["mean_abs"], kept["max_abs"]) == (20, pytest.approx(0.2), 0.4)


def test_shadowed_requests_that_nobody_answered_in_time_leave_the_canary_undecided(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    impatient = make(namespace)
    settings = impatient.settings.model_copy(update={"rollout_shadow_seconds": 0.0})
    model = dataclasses.replace(impatient, settings=settings)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    canary.canary(model, second)

    def shadowed(requests: int, timeouts: int) -> None:
        ShadowSummary(
            *(namespace, "ranking", str(second), str(first), requests, 0, timeouts, 0, ""),
            *([], [], [], [], "2026-11-23T04:00:00+00:00"),
        ).write(model.shadows_path(second) / "one.json")

    shadowed(3, 3)
    with pytest.raises(UndecidedCanaryError, match=r"of 3 shadowed requests 3 were not answered.* it stays the canary"):
        compare.compare(model, second)
    assert candidate.under_test(model) == second
    assert agreed(server, model) == "first"
    shadowed(4, 3)
    assert str(compare.compare(model, second)["compared"]).endswith("; 4 shadowed requests")


def test_refusals_of_a_busy_server_withdraw_no_canary(
    world: World, make: Callable[[str], ServingModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    namespace = world.namespace()
    settings = make(namespace).settings.model_copy(update={"state": tmp_path, "rollout_compare_requests": 60})
    stop = threading.Event()
    with ModelServer(tmp_path, Serving(tmp_path).models_config, ["--grpc_max_threads=1"]) as busy:
        admin, predictions = Replicas(busy.address, timeout_s=60), PredictClient(busy.address, timeout_s=60)
        with admin, predictions, ThreadPoolExecutor(3) as pool:
            model = ServingModel(namespace, settings, Registry(world.uri), admin, predictions)
            first, second = world.register(namespace, "first"), world.register(namespace, "second")
            roll_out(model, first)
            for hour in range(10):
                write_sample(model, f"20261123T{hour:02}0000Z-host-1.tfrecord")
            publish.publish(model, second)
            canary.canary(model, second)

            def call_on() -> None:
                inputs = ranking_inputs(2000, ONE_USER_SIGNATURE)
                while not stop.is_set():
                    with contextlib.suppress(BusyServerError):
                        predictions.send(
                            predict_request(model.name, inputs, signature_name=ONE_USER_SIGNATURE), busy_s=0
                        )

            callers = [pool.submit(call_on) for _ in range(3)]
            try:
                with monkeypatch.context() as patched, pytest.raises(BusyServerError):
                    patched.setattr(compare, "_BUSY_S", 0.0)
                    compare.compare(model, second)
                assert candidate.under_test(model) == second, "nothing was found out about it"
                result = compare.compare(model, second)
            finally:
                stop.set()
            for caller in callers:
                caller.result(60)
            assert (result["requests"], result["distinct"], result["errors"]) == (60, 60, 0)
            report = json.loads(model.comparison_path(second).read_text())
            assert result["refusals"] == report["canary"]["refusals"]
            assert report["canary"]["refusals"] + report["stable"]["refusals"] > 0
            assert agreed(busy, model) == "first"
            promote.promote(model, second)


def damage_by_hand(path: Path, name: str) -> None:
    (path / name).unlink()


def test_what_would_not_load_is_named_to_no_server_whoever_writes(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    damaged, sound = make(world.namespace()), make(world.namespace())
    first, second = (world.register(damaged.namespace, name) for name in ("first", "second"))
    roll_out(damaged, first)
    roll_out(damaged, second)
    for version in (first, second):
        damage_by_hand(damaged.version_path(version), "saved_model.pb")
    roll_out(sound, world.register(sound.namespace, "third"))
    config = read_models_config(damaged.places.models_config)
    assert damaged.name not in {entry.name for entry in config.model_config_list.config}
    assert agreed(server, sound) == "third"
    problems = status.status(damaged)["problems"]
    assert any("saved_model.pb" in problem for problem in problems), problems  # type: ignore[attr-defined] # a list
    reconcile.reconcile(damaged)
    assert agreed(server, damaged) == "second"
    labels = labels_of(read_models_config(damaged.places.models_config), damaged.name)
    assert labels == {"stable": second, "previous": first}


def test_files_that_changed_are_found_and_mended(
    world: World, server: ModelServer, make: Callable[[str], ServingModel]
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    roll_out(model, second)
    for version in (first, second):
        data = model.version_path(version) / "variables" / "variables.data-00000-of-00001"
        data.write_bytes(data.read_bytes()[:-1])
    problems = status.status(model)["problems"]
    for version in (first, second):
        assert any(f"version {version} would not load: the files in" in problem for problem in problems)  # type: ignore[attr-defined] # a list
    reconcile.reconcile(model)
    assert agreed(server, model) == "second"
    labels = labels_of(read_models_config(model.places.models_config), model.name)
    assert labels == {"stable": second, "previous": first}


def test_damage_leaves_models_config_while_the_server_is_away(
    world: World, make: Callable[[str], ServingModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    namespace = world.namespace()
    model = make(namespace)
    first = world.register(namespace, "first")
    roll_out(model, first)
    damage_by_hand(model.version_path(first), "saved_model.pb")
    with Replicas("127.0.0.1:1", timeout_s=1) as nobody:
        cut = dataclasses.replace(model, server=nobody, registry=Registry("http://127.0.0.1:1"))
        with pytest.raises(RegistryUnavailableError):
            reconcile.reconcile(cut)
        assert not labels_of(read_models_config(model.places.models_config), model.name)
        assert model.version_path(first).is_dir(), "a server that has it in memory keeps it while its folder is there"
        with pytest.raises(TransientCallError):
            reconcile.reconcile(dataclasses.replace(model, server=nobody))
    reconcile.reconcile(model)
    assert (model.version_path(first) / "saved_model.pb").is_file()
    assert labels_of(read_models_config(model.places.models_config), model.name) == {"stable": first}


def test_a_switch_that_was_cut_off_keeps_no_damage_in_models_config(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    cut_off(monkeypatch, Cut(journal, "intend", after=True), lambda: promote.promote(model, second))
    damage_by_hand(model.version_path(first), "variables/variables.index")
    with Replicas("127.0.0.1:1", timeout_s=1) as nobody, pytest.raises(TransientCallError):
        reconcile.reconcile(dataclasses.replace(model, server=nobody))
    assert not labels_of(read_models_config(model.places.models_config), model.name)
    reconcile.reconcile(model)
    assert agreed(server, model) == "first"


def test_a_damaged_canary_ends(world: World, server: ModelServer, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    model = make(namespace)
    first, second = world.register(namespace, "first"), world.register(namespace, "second")
    roll_out(model, first)
    publish.publish(model, second)
    canary.canary(model, second)
    data = model.version_path(second) / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    assert status.status(model)["agree"] is False
    reconcile.reconcile(model)
    assert agreed(server, model) == "first"
    assert candidate.under_test(model) is None
    assert not model.canary_release_path.exists()
    roll_out(model, second)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no variables": (lambda path: shutil.rmtree(path / "variables"), "expected the file variables/variables.index"),
    "truncated graph": (
        lambda path: (path / "saved_model.pb").write_bytes((path / "saved_model.pb").read_bytes()[:1000]),
        "saved_model.pb cannot be read",
    ),
    "no graph": (lambda path: (path / "saved_model.pb").unlink(), "saved_model.pb cannot be read"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_a_damaged_saved_model_publishes_nothing(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], tmp_path: Path, fault: str
) -> None:
    damage, words = UNFIT[fault]
    namespace = world.namespace()
    model = make(namespace)
    first = world.register(namespace, "first")
    roll_out(model, first)
    shutil.copytree(world.models["second"], tmp_path / "damaged")
    damage(tmp_path / "damaged")
    version = world.register(namespace, "second", saved_model=tmp_path / "damaged")
    with pytest.raises(UnfitModelError, match=words):
        publish.publish(model, version)
    assert [path.name for path in model.base_path.iterdir()] == [str(first)]
    assert agreed(server, model) == "first"


def test_a_disk_that_fills_publishes_nothing(
    world: World, server: ModelServer, make: Callable[[str], ServingModel], state: Path, tmp_path: Path
) -> None:
    namespace = world.namespace()
    model = make(namespace)
    shutil.copytree(world.models["second"], tmp_path / "big")
    (tmp_path / "big" / "assets" / "vocabulary").write_bytes(bytes(3_000_000))
    first = world.register(namespace, "first")
    second = world.register(namespace, "second", saved_model=tmp_path / "big")
    roll_out(model, first)
    environment = os.environ | {
        "KESTREL_STATE": str(state),
        "KESTREL_MLFLOW_URI": world.uri,
        "KESTREL_MODEL_SERVER_GRPC": server.address,
    }
    done = subprocess.run(
        [sys.executable, "-m", "serving.rollout", "publish", "--namespace", namespace, "--version", str(second)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
        timeout=120,
    )
    assert done.returncode == 75, done.stderr
    assert "no room" in done.stderr.splitlines()[-1]
    assert [path.name for path in model.base_path.iterdir()] == [str(first)]
    assert agreed(server, model) == "first"
    roll_out(model, second)


def test_of_two_publishers_at_once_one_is_told_to_try_again(world: World, make: Callable[[str], ServingModel]) -> None:
    namespace = world.namespace()
    version = world.register(namespace, "first")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(publish.publish, make(namespace), version) for _ in range(2)]
        outcomes = [one.exception() for one in both]
    refused = [error for error in outcomes if error is not None]
    assert all(isinstance(error, RolloutBusyError) for error in refused)
    assert len(refused) < 2
    model = make(namespace)
    assert [path.name for path in model.base_path.iterdir()] == [str(version)]
    assert publish.publish(model, version)["version"] == str(version)
