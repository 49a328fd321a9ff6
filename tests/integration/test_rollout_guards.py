"""What may not come into force: a version that never met the champion, and one with which nothing would be ranked."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from feature_repo.contracts.jobs import RejectedError
from feature_repo.contracts.manifests import Decision
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.publishing import CorruptRecordError
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.served_models import CHAMPION_RUN_TAG, CHAMPION_VERSION_TAG
from serving.rollout import approve, canary, compare, journal, promote, publish, replay, rollback, status, verdict
from serving.rollout.errors import AbsentViewsError
from tests.movielens import RANKING_FEATURES
from tests.releases import snapshot_of
from tests.rollout_world import World, roll_out, rollout_world, served_bias, serving_model
from tests.serving_world import ModelServer, run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serving.rollout.serving_model import ServingModel

NOBODY = ("", "")
VIEWS = RANKING_FEATURES.views
GROUP = min(VIEWS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with rollout_world(tmp_path_factory.mktemp("guards")) as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    state = tmp_path_factory.mktemp("state")
    with ModelServer(state, Serving(state).models_config) as running:
        yield running


@pytest.fixture
def model(world: World, server: ModelServer) -> Iterator[ServingModel]:
    with ExitStack() as clients:
        yield clients.enter_context(serving_model(world, server, server.config.parent.parent, world.namespace()))


@pytest.fixture
def register(world: World, model: ServingModel) -> Callable[..., int]:
    return lambda name, champion=NOBODY: world.register(model.namespace, name, champion=champion)


@pytest.fixture
def identity(model: ServingModel) -> Callable[[int], tuple[str, str]]:
    """Return version and run, as the gates record a champion."""
    return lambda version: (str(version), model.registry.version(model.name, version).run_id)


def served(server: ModelServer, model: ServingModel) -> str:
    report = status.status(model)
    assert report["agree"] is True, report["problems"]
    return served_bias(server, model, label="stable")


def test_of_two_that_met_nobody_the_second_is_refused_at_the_first_step_and_at_the_last(
    server: ModelServer, model: ServingModel, register: Callable[..., int]
) -> None:
    first, second = register("first"), register("second")
    roll_out(model, first)
    for step in (verdict.verdict, promote.promote):
        with pytest.raises(
            RejectedError, match=r"no champion, for there was none, and the champion is version 1 of "
        ) as e:
            step(model, second)
        for command in ("models evaluate", "models gate", "model_training", "--version 2 --despite-champion"):
            assert command in str(e.value)
    assert served(server, model) == "first"


def test_a_champion_that_came_while_the_candidate_was_compared_stops_its_promotion(
    server: ModelServer, model: ServingModel, register: Callable[..., int], identity: Callable[[int], tuple[str, str]]
) -> None:
    first = register("first")
    roll_out(model, first)
    second, third = register("second", identity(first)), register("third", identity(first))
    verdict.verdict(model, third)
    roll_out(model, second)
    for step in (publish.publish, replay.replay, canary.canary, compare.compare):
        step(model, third)
    with pytest.raises(RejectedError, match=r"compared it with version 1 of run .* champion is version 2 of run"):
        promote.promote(model, third)
    assert served(server, model) == "second"
    for name, value in zip((CHAMPION_VERSION_TAG, CHAMPION_RUN_TAG), identity(second), strict=True):
        model.registry.set_tag(model.name, third, name, value)  # gated again
    promote.promote(model, third)
    assert served(server, model) == "third"


def test_a_rollback_makes_verdicts_stale_and_those_of_before_count_again(
    server: ModelServer, model: ServingModel, register: Callable[..., int], identity: Callable[[int], tuple[str, str]]
) -> None:
    first = register("first")
    roll_out(model, first)
    second = register("second", identity(first))
    roll_out(model, second)
    third = register("third", identity(second))
    rollback.rollback(model)
    with pytest.raises(RejectedError, match="champion is version 1 of run"):
        verdict.verdict(model, third)
    assert promote.promote(model, second)["version"] == str(second), "it met the first"
    roll_out(model, third)
    assert served(server, model) == "third"


def test_what_is_in_force_and_what_was_done_for_a_key_are_promoted_again_without_a_word(
    model: ServingModel, register: Callable[..., int], identity: Callable[[int], tuple[str, str]]
) -> None:
    first = register("first")
    roll_out(model, first)
    second = register("second", identity(first))
    publish.publish(model, second)
    expected = {"model": model.name, "version": str(second), "previous_version": str(first)}
    for _ in range(2):
        assert promote.promote(model, second, "run-1") == expected
        assert promote.promote(model, second) == expected
        roll_out(model, second)
    third = register("third", identity(second))
    roll_out(model, third)
    assert promote.promote(model, second, "run-1") == expected
    assert model.current().version == str(third)  # type: ignore[union-attr] # there is one


def test_a_namesake_of_the_champion_is_not_the_champion(
    model: ServingModel, register: Callable[..., int], identity: Callable[[int], tuple[str, str]]
) -> None:
    first = register("first")
    roll_out(model, first)
    with pytest.raises(RejectedError, match="compared it with version 1 of run another, and the champion is version 1"):
        verdict.verdict(model, register("second", (str(first), "another")))
    verdict.verdict(model, register("second", ("7", identity(first)[1])))


def test_without_a_release_the_alias_names_the_champion_as_it_does_for_the_gates(
    model: ServingModel, register: Callable[..., int]
) -> None:
    first, second = register("first"), register("second")
    model.registry.set_alias(model.name, "champion", first)
    with pytest.raises(RejectedError, match="champion is version 1"):
        verdict.verdict(model, second)
    verdict.verdict(model, first)


def test_a_person_promotes_it_all_the_same_and_the_reason_stays(
    server: ModelServer,
    world: World,
    model: ServingModel,
    register: Callable[..., int],
    identity: Callable[[int], tuple[str, str]],
) -> None:
    first, second = register("first"), register("second")
    roll_out(model, first)
    environment = {
        "KESTREL_STATE": str(model.settings.state),
        "KESTREL_MLFLOW_URI": world.uri,
        "KESTREL_MODEL_SERVER_GRPC": server.address,
    }
    named = ["--namespace", model.namespace, "--version", str(second)]
    assert run_job(["serving.rollout", "promote", *named], environment).code == 10
    for command in ("publish", "replay"):
        assert run_job(["serving.rollout", command, *named], environment).code == 0
    done = run_job(["serving.rollout", "promote", *named, "--despite-champion", "1 is broken"], environment)
    assert done.code == 0, done.errors
    said = str(status.status(model)["why"])
    assert said.startswith("promoted by hand although the gates compared it with no champion")
    assert said.endswith(": 1 is broken; the gates' reason: every gate passed")
    assert journal.history(model)[-1].why == said
    since = status.status(model)["since"]
    promote.promote(model, second)
    assert (status.status(model)["why"], status.status(model)["since"]) == (said, since), "a repetition says the same"

    third = register("third", identity(second))
    roll_out(model, third)
    assert status.status(model)["promoted_why"] == "every gate passed"
    rollback.rollback(model, reason="clicks fell")
    report = status.status(model)
    assert (report["why"], report["promoted_why"]) == (f"rolled back from version {third}: clicks fell", said)
    assert served(server, model) == "second"


def test_who_met_the_champion_needs_no_override(
    model: ServingModel, register: Callable[..., int], identity: Callable[[int], tuple[str, str]]
) -> None:
    first = register("first")
    roll_out(model, first)
    second = register("second", identity(first))
    publish.publish(model, second)
    promote.promote(model, second, despite_champion="to be sure")
    assert status.status(model)["why"] == "every gate passed"


def refresh(model: ServingModel, views: dict[str, str]) -> Path:
    """Bring a snapshot with these feature views online."""
    snapshot = snapshot_of(model.namespace, MOVIELENS.to_json(), views)
    pointer = Namespace(model.settings.state, model.namespace).online_current
    snapshot.write(pointer)
    return pointer


@pytest.mark.parametrize("online", [VIEWS | {GROUP: "newer_0"}, {g: v for g, v in VIEWS.items() if g != GROUP}])
def test_a_release_whose_views_are_not_online_comes_into_force_after_the_refresh(
    server: ModelServer, model: ServingModel, register: Callable[..., int], online: dict[str, str]
) -> None:
    first = register("first")
    refresh(model, online)
    with pytest.raises(AbsentViewsError, match=f"expected the feature view {VIEWS[GROUP]} online.* feature_refresh"):
        roll_out(model, first)
    assert model.current_release() is None
    assert journal.pending(model) is None
    refresh(model, VIEWS | {"read_by_no_release": "other_1"})
    promote.promote(model, first)
    assert served(server, model) == "first"
    refresh(model, online)
    assert promote.promote(model, first)["version"] == str(first), "it is in force, whatever became of its views"


def test_a_damaged_snapshot_stops_a_promotion_and_no_rollback(
    server: ModelServer, model: ServingModel, register: Callable[..., int], identity: Callable[[int], tuple[str, str]]
) -> None:
    first = register("first")
    roll_out(model, first)
    second = register("second", identity(first))
    roll_out(model, second)
    third = register("third", identity(second))
    publish.publish(model, third)
    refresh(model, VIEWS).write_text("{")
    with pytest.raises(CorruptRecordError, match="feature_refresh"):
        promote.promote(model, third)
    assert rollback.rollback(model)["version"] == str(first)
    assert served(server, model) == "first"


def test_a_rollback_to_a_release_whose_views_are_gone_names_those_that_still_rank(
    server: ModelServer, model: ServingModel, register: Callable[..., int], identity: Callable[[int], tuple[str, str]]
) -> None:
    first = register("first")
    roll_out(model, first)
    second = register("second", identity(first))
    roll_out(model, second)
    refresh(model, VIEWS | {GROUP: "newer_0"})
    with pytest.raises(AbsentViewsError, match=rf"version {first}: .* the champion keeps serving.* the views of \[\]"):
        rollback.rollback(model)
    assert served(server, model) == "second"
    refresh(model, VIEWS)
    assert rollback.rollback(model)["version"] == str(first)


def test_what_is_on_hold_waits_for_a_person_whose_word_stands_in_the_release(
    world: World, server: ModelServer, model: ServingModel
) -> None:
    held = world.register(
        model.namespace, "first", decision=Decision.HOLD, reason="On hold: too good to be true.", champion=NOBODY
    )
    for step in (verdict.verdict, publish.publish, promote.promote):
        with pytest.raises(RejectedError, match=r"On hold: too good to be true; no version serves yet; .*approve") as e:
            step(model, held)
        assert f'--version {held} --name "who" --reason "why"`' in str(e.value)
    approved = approve.approve(model, held, "Ada", "the feature was looked at")
    assert approve.approve(model, held, "Bob", "again") == approved, "the first word counts"
    assert approved["approved"] == "Ada: the feature was looked at"
    entries = [entry for entry in journal.history(model) if entry.kind is journal.Kind.APPROVAL]
    assert [(entry.version, entry.why) for entry in entries] == [(str(held), "Ada: the feature was looked at")]
    roll_out(model, held)
    assert served(server, model) == "first"
    why = status.status(model)["why"]
    assert why == "approved by Ada: the feature was looked at; the gates' reason: On hold: too good to be true."


@pytest.mark.parametrize("decision", [Decision.PROMOTE, Decision.TIE, Decision.REJECT])
def test_only_what_is_on_hold_can_be_approved(world: World, model: ServingModel, decision: Decision) -> None:
    version = world.register(model.namespace, "first", decision=decision)
    with pytest.raises(RejectedError, match=f"expected one on hold, the gates said {decision}"):
        approve.approve(model, version, "Ada", "because")


def test_a_rejection_says_each_thing_once(world: World, model: ServingModel) -> None:
    tie = world.register(
        model.namespace, "first", decision=Decision.TIE, reason="Tie: no gate failed, but ...; the champion stays."
    )
    with pytest.raises(RejectedError, match=r"version 1: Tie: no gate failed, but \.\.\.; the champion stays; train "):
        verdict.verdict(model, tie)


def test_an_approval_names_who_and_why(model: ServingModel, world: World, server: ModelServer) -> None:
    environment = {"KESTREL_STATE": str(server.config.parent.parent), "KESTREL_MLFLOW_URI": world.uri}
    command = ["serving.rollout", "approve", "--namespace", model.namespace, "--version", "1", "--name", " "]
    done = run_job([*command, "--reason", "why"], environment)
    assert done.code == 2
    assert "expected a text for whoever asks later, received a blank one" in done.errors
