"""Releases of several parts: what switches together, what stays, and what comes back."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.list_policy import DECLARED, POLICY_PARTS, ListPolicy, Reranking
from feature_repo.contracts.manifests import Part, PartKind, Release
from feature_repo.contracts.places import Serving
from feature_repo.contracts.publishing import CorruptRecordError, file_sha256, write_json
from serving.recommender.release import load_policy
from serving.rollout import (
    approve,
    canary,
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
from serving.rollout.errors import LostModelError, RolloutError, UnknownVersionError
from serving.rollout.models_config import configured_parts, labels_of, read_models_config
from tests.releases import release_of_before
from tests.rollout_cuts import CUTS, Cut, agreed, cut_off
from tests.rollout_world import World, roll_out, rollout_world, served_bias, serving_model
from tests.serving_world import ModelServer, run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from serving.rollout.serving_model import ServingModel

TOWER = {"part": "tower", "more_tags": {"kestrel.part_kind": "tower", "kestrel.part_needs": "two-tower"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with rollout_world(tmp_path_factory.mktemp("parts")) as made:
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
def two(world: World, model: ServingModel) -> ServingModel:
    """Return a ranker beside a tower, both `first` and in force in one release; `second` of both is registered."""
    for name in ("first", "second"):
        world.register(model.namespace, name)
        world.register(model.namespace, name, **TOWER)
    promote.promote(model, 1, others={"tower": 1})
    return model


def promoted(world: World, tower: ServingModel, name: str) -> dict[str, object]:
    version = world.register(tower.namespace, name, **TOWER)
    publish.publish(tower, version)
    return promote.promote(tower, version)


def served(server: ModelServer, model: ServingModel) -> tuple[str, str]:
    """Return which ranker and which tower the release in force is served with, having checked that everybody agrees."""
    return agreed(server, model), served_bias(server, model.of("tower"), label="stable")


def versions(model: ServingModel) -> dict[str, str]:
    release = model.current_release()
    assert release is not None
    return {name: part.version for name, part in release.parts.items()}


def test_a_part_joins_a_release_and_leaves_it_with_a_rollback(
    world: World, server: ModelServer, model: ServingModel
) -> None:
    tower = model.of("tower")
    version = world.register(model.namespace, "third", **TOWER)
    publish.publish(tower, version)
    with pytest.raises(RolloutError, match="promote a ranker first, or with it"):
        promote.promote(tower, version)
    roll_out(model, world.register(model.namespace, "first"))
    replay.replay(tower, version)
    canary.canary(tower, version)
    assert labels_of(read_models_config(model.places.models_config), tower.name) == {"canary": 1}
    assert compare.compare(tower, version)["errors"] == 0
    made = promote.promote(tower, version)
    assert made == {
        "model": tower.name,
        "version": "1",
        "previous_version": "",
        "release": "2",
        "parts": "ranking 1, tower 1",
    }
    assert served(server, model) == ("first", "third")
    assert labels_of(read_models_config(model.places.models_config), model.name) == {"stable": 1, "previous": 1}
    report: dict[str, Any] = status.status(model)
    assert (report["release"], report["previous_release"], report["version"]) == (2, 1, "1")
    assert {name: part["kind"] for name, part in report["parts"].items()} == {"ranking": "ranker", "tower": "tower"}
    release = model.current_release()
    assert release is not None
    assert release.parts["tower"].needs == {"two-tower": ""}
    assert model.registry.aliases(tower.name) == {"champion": 1}

    promote.promote(model, publish_next(world, model, "second"))
    assert served(server, model) == ("second", "third"), "what is not promoted is kept"
    assert rollback.rollback(model)["parts"] == "ranking 1, tower 1"
    assert served(server, model) == ("first", "third")
    rollback.rollback(model, to=2)
    rollback.rollback(tower.of("ranking"), to=1)
    assert versions(model) == {"ranking": "1", "tower": "1"}, "the latest release with that ranker"


def publish_next(world: World, model: ServingModel, name: str) -> int:
    version = world.register(model.namespace, name)
    publish.publish(model, version)
    return version


def test_a_tower_that_left_leaves_the_server_when_nobody_can_go_back_to_it(
    world: World, server: ModelServer, model: ServingModel
) -> None:
    roll_out(model, world.register(model.namespace, "first"))
    promoted(world, model.of("tower"), "first")
    rollback.rollback(model)
    assert versions(model) == {"ranking": "1"}
    assert labels_of(read_models_config(model.places.models_config), f"{model.namespace}.tower") == {"previous": 1}
    assert model.registry.aliases(f"{model.namespace}.tower") == {"previous": 1}
    roll_out(model, world.register(model.namespace, "second"))
    assert configured_parts(read_models_config(model.places.models_config), model.namespace) == ["ranking"]
    assert agreed(server, model) == "second"


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_switch_of_two_parts_cut_off_anywhere_agrees_after_one_reconciliation(
    server: ModelServer, two: ServingModel, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    def both() -> dict[str, object]:
        return promote.promote(two, 2, others={"tower": 2})

    cut_off(monkeypatch, cut, both)
    moved = versions(two)
    assert moved in ({"ranking": "1", "tower": "1"}, {"ranking": "2", "tower": "2"}), "never one without the other"
    reconcile.reconcile(two)
    now = "second" if moved["ranking"] == "2" else "first"
    assert served(server, two) == (now, now), "the pointer is the truth"
    assert (both()["version"], both()["parts"]) == ("2", "ranking 2, tower 2")
    assert served(server, two) == ("second", "second")
    for name in ("ranking", "tower"):
        assert two.registry.aliases(two.of(name).name) == {"champion": 2, "previous": 1}


@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut.after], ids=str)
def test_a_rollback_of_two_parts_cut_off_anywhere_is_made_once_by_its_retry(
    server: ModelServer, two: ServingModel, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    promote.promote(two, 2, others={"tower": 2})
    cut_off(monkeypatch, cut, lambda: rollback.rollback(two, reason="clicks fell", key="run-7"))
    for _ in range(2):
        again = rollback.rollback(two, reason="clicks fell", key="run-7")
        assert (again["version"], again["previous_version"], again["parts"]) == ("1", "2", "ranking 1, tower 1")
    assert served(server, two) == ("first", "first")


def test_what_is_lost_of_any_part_is_told_and_mended(server: ModelServer, two: ServingModel) -> None:
    promote.promote(two, 2, others={"tower": 2})
    tower = two.of("tower")
    for version in (1, 2):
        shutil.rmtree(tower.version_path(version))
    problems: Any = status.status(two)["problems"]
    assert any("of tower" in problem and "would not load" in problem for problem in problems)
    assert all(f"reconcile --namespace {two.namespace}` mends it" in problem for problem in problems)
    reconcile.reconcile(two)
    assert served(server, two) == ("second", "second")
    two.registry.set_alias(tower.name, "champion", 1)
    assert any("alias champion names 1" in problem for problem in status.status(two)["problems"])  # type: ignore[attr-defined] # a list
    reconcile.reconcile(two)
    rollback.rollback(two)
    assert served(server, two) == ("first", "first")


def test_files_that_were_fitted_with_a_ranker_come_and_go_with_it(
    world: World, server: ModelServer, model: ServingModel, tmp_path: Path
) -> None:
    first = ListPolicy({"ease": 60}, Reranking("ease", 0.25))
    roll_out(model, world.register(model.namespace, "first", policy=first))
    assert versions(model) == {"ranking": "1", "quotas": "1", "reranking": "1"}
    assert policy_in_force(model) == first
    roll_out(model, world.register(model.namespace, "second", policy=ListPolicy({"ease": 60})))
    assert versions(model) == {"ranking": "2", "quotas": "1", "reranking": "2"}, "the same content is the same version"
    assert policy_in_force(model) == ListPolicy({"ease": 60})
    rollback.rollback(model)
    assert (policy_in_force(model), agreed(server, model)) == (first, "first")

    by_hand = tmp_path / "quotas.json"
    by_hand.write_text('{"popular": 7}')
    publish.publish_part_file(model.of("quotas"), by_hand, PartKind.QUOTAS)
    promote.promote(model.of("quotas"), 2)
    promote.promote(model, 1)
    assert policy_in_force(model) == ListPolicy({"popular": 7}, first.reranking), "the ranker in force changes nothing"
    roll_out(model, world.register(model.namespace, "third"))
    assert policy_in_force(model).quotas == {"popular": 7}, "a run of before there were such files leaves them"
    chosen = world.register(model.namespace, "first", policy=first)
    publish.publish(model, chosen)
    promote.promote(model, chosen, others={"quotas": 2})
    assert policy_in_force(model) == ListPolicy({"popular": 7}, first.reranking), "who names a version gets it"


def policy_in_force(model: ServingModel) -> ListPolicy:
    release = model.current_release()
    assert release is not None
    return load_policy(model.places, release)


def test_a_file_is_a_part_like_any_other(
    world: World, server: ModelServer, model: ServingModel, tmp_path: Path
) -> None:
    environment = {
        "KESTREL_STATE": str(model.settings.state),
        "KESTREL_MLFLOW_URI": world.uri,
        "KESTREL_MODEL_SERVER_GRPC": server.address,
    }
    roll_out(model, world.register(model.namespace, "first"))
    file, quotas = tmp_path / "quotas.json", model.of("quotas")
    file.write_text('{"popular": 1}')
    command = ["serving.rollout", "publish-file", "--namespace", model.namespace, "--part", "quotas", "--kind"]
    done = run_job([*command, "quotas", "--file", str(file)], environment)
    assert (done.code, done.result["version"]) == (0, "1"), done.errors
    refused = run_job([*command, "tower", "--file", str(file)], environment)
    assert (refused.code, "expected arms, quotas, reranking, vocabulary" in refused.errors) == (2, True), refused.errors
    promoting = ["serving.rollout", "promote", "--namespace", model.namespace, "--part", "quotas", "--version", "1"]
    assert run_job(promoting, environment).result["parts"] == "quotas 1, ranking 1"
    assert agreed(server, model) == "first"

    file.write_text('{"popular": 2}')
    made = publish.publish_part_file(quotas, file, PartKind.QUOTAS)
    assert made == publish.publish_part_file(quotas, file, PartKind.QUOTAS), "the same content is the same version"
    assert made["version"] == "2"
    with pytest.raises(RolloutError, match="part quotas: expected the kind quotas, received arms; choose another name"):
        publish.publish_part_file(quotas, file, PartKind.ARMS)
    with pytest.raises(RolloutError, match="expected the kind ranker, which it has, received arms"):
        publish.publish_part_file(model, file, PartKind.ARMS)
    promote.promote(quotas, 2)
    stored = model.places.file_part(model.namespace, "quotas") / "2" / "quotas.json"
    stored.write_text("{}")
    (problem,) = status.status(model)["problems"]  # type: ignore[misc] # a list
    assert str(stored) in problem
    assert "publish-file" in problem
    assert publish.publish_part_file(quotas, file, PartKind.QUOTAS)["version"] == "2", "publishing it again mends it"
    assert agreed(server, model) == "first"

    rollback.rollback(model)
    assert versions(model) == {"ranking": "1", "quotas": "1"}
    shutil.rmtree(stored.parent)
    with pytest.raises(RolloutError, match="lies on disk still"):
        rollback.rollback(model)
    rollback.rollback(quotas, to=1)
    (stored.parent.parent / "1" / "quotas.json").unlink()
    with pytest.raises(LostModelError, match="publish-file"):
        promote.promote(model, publish_next(world, model, "second"))
    assert versions(model) == {"ranking": "1", "quotas": "1"}


@pytest.fixture
def words(world: World, model: ServingModel, tmp_path: Path) -> ServingModel:
    """Return a part of two versions, the first of them in force beside a ranker."""
    part, file = model.of("words"), tmp_path / "words.txt"
    world.register(model.namespace, "first")
    world.register(model.namespace, "first", part="words")  # a namesake in the registry makes a file no model
    promote.promote(model, 1)
    for text in ("one", "two"):
        file.write_text(text)
        publish.publish_part_file(part, file, PartKind.VOCABULARY)
    promote.promote(part, 1)
    return part


@pytest.mark.parametrize(
    "step",
    [
        verdict.verdict,
        lambda model, version: approve.approve(model, version, "Ada", "seen"),
        publish.publish,
        replay.replay,
        canary.canary,
        compare.compare,
        canary.withdraw,
    ],
)
def test_the_steps_of_a_model_say_that_a_part_is_a_file(
    words: ServingModel, step: Callable[[ServingModel, int], object]
) -> None:
    for version in (1, 2, 9):
        with pytest.raises(
            UnknownVersionError, match=r"part words: expected a model .* received a file, of which \[1, 2"
        ):
            step(words, version)
    assert versions(words) == {"ranking": "1", "words": "1"}


def test_of_a_version_that_a_file_has_not_its_own_commands_are_named(words: ServingModel) -> None:
    expected = rf"words: expected one of its versions \[1, 2\], received 9; .*{words.part} --kind vocabulary --file"
    with pytest.raises(UnknownVersionError, match=expected):
        promote.promote(words, 9)
    with pytest.raises(UnknownVersionError, match=expected):
        promote.promote(words.of("ranking"), 1, others={"words": 9})
    with pytest.raises(RolloutError, match=r"one of \[1\], received 2; .* promote one of \[1, 2\], .* --version 2`"):
        rollback.rollback(words, to=2)
    promote.promote(words, 2)
    shutil.rmtree(words.places.file_part(words.namespace, "words") / "1")
    for going in (lambda: rollback.rollback(words, to=1), lambda: rollback.rollback(words.of("ranking"))):
        with pytest.raises(RolloutError, match=r"received 1; roll another one back, or mend .*publish-file"):
            going()
    assert versions(words) == {"ranking": "1", "words": "2"}


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("missing.json", None, PartKind.QUOTAS, "expected a file, found none at .*missing.json; name another"),
        (".", None, PartKind.QUOTAS, "expected a file, found a folder at "),
        ("part.json", "{}", PartKind.QUOTAS, "expected a file of another name than part.json, .*; rename it"),
        ("words.txt", "", PartKind.VOCABULARY, "expected a file with something in it, received .*words.txt"),
        ("quotas.json", "", PartKind.QUOTAS, "expected a file with something in it"),
        ("quotas.json", '{"ease": "a"}', PartKind.QUOTAS, "quotas.json: expected quotas, whole numbers from 0 to 1000"),
        ("re.json", '{"share": 0.5}', PartKind.RERANKING, "re.json: expected a share from 0 to 1 of one of"),
        ("quotas.json", "popular: 1", PartKind.QUOTAS, r"expected a JSON object, .*\(Expecting value.*\); mend it"),
        ("arms.json", "[1]", PartKind.ARMS, "expected a JSON object, received a list; mend it, and publish it as arms"),
    ],
)
def test_a_file_that_nobody_could_use_is_not_published(  # noqa: PLR0917 - its examples
    model: ServingModel, tmp_path: Path, name: str, content: str | None, kind: PartKind, said: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    part = kind.value if kind in POLICY_PARTS.values() else "new"
    with pytest.raises(JobError, match=said):
        publish.publish_part_file(model.of(part), file, kind)
    assert not model.places.file_part(model.namespace, part).exists()


@pytest.mark.parametrize(
    ("part", "kind", "said"),
    [
        ("quotas", PartKind.VOCABULARY, "part quotas: expected the kind quotas, received vocabulary; choose another"),
        ("reranking", PartKind.ARMS, "part reranking: expected the kind reranking, received arms"),
        (
            "mine",
            PartKind.QUOTAS,
            "part mine: expected the name quotas for the kind quotas, by which",
        ),
    ],
)
def test_a_policy_has_the_names_by_which_recommenders_look(
    model: ServingModel, tmp_path: Path, part: str, kind: PartKind, said: str
) -> None:
    file = tmp_path / "file.json"
    file.write_text("{}")
    with pytest.raises(RolloutError, match=said):
        publish.publish_part_file(model.of(part), file, kind)


def test_a_policy_of_before_its_content_was_looked_at_does_not_come_into_force(
    world: World, server: ModelServer, model: ServingModel
) -> None:
    roll_out(model, world.register(model.namespace, "first"))
    folder = model.places.file_part(model.namespace, "quotas") / "1"
    write_json(folder / "quotas.json", {"ease": 0.3})
    sha256 = file_sha256(folder / "quotas.json")
    Part("quotas", PartKind.QUOTAS, "1", sha256, path="quotas.json").write(folder / "part.json")
    with pytest.raises(LostModelError, match=r"quotas\.json: expected quotas, whole numbers .*publish what is mended"):
        promote.promote(model.of("quotas"), 1)
    assert (versions(model), agreed(server, model)) == ({"ranking": "1"}, "first")


def test_a_run_that_has_lost_some_of_its_policy_is_not_promoted_with_anothers(
    world: World, model: ServingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.register(model.namespace, "first", policy=DECLARED)
    publish.publish(model, version)
    download = model.registry.download_run_file

    def lost(run_id: str, artifact: str, folder: Path) -> Path:
        if artifact == "release/reranking.json":
            raise UnknownVersionError(artifact)
        return download(run_id, artifact, folder)

    monkeypatch.setattr(model.registry, "download_run_file", lost)
    with pytest.raises(UnknownVersionError, match=r"expected the artifacts .*, \['reranking'\] are missing; train"):
        promote.promote(model, version)
    assert model.current_release() is None


def test_a_file_needs_a_namespace_that_is_known_and_a_name_that_no_model_has(
    world: World, model: ServingModel, tmp_path: Path
) -> None:
    file, part = tmp_path / "words.txt", model.of("words")
    file.write_text("one")
    with pytest.raises(RolloutError, match=r"namespace .*: expected one with data or with a ranker, found neither"):
        publish.publish_part_file(part, file, PartKind.VOCABULARY)
    assert not model.places.file_part(model.namespace, "words").exists()
    publish_next(world, model, "first")
    tower = model.of("tower")
    publish.publish(tower, world.register(model.namespace, "first", **TOWER))
    for taken in (model, tower):
        with pytest.raises(RolloutError, match="expected the name of a file, received that of a model"):
            publish.publish_part_file(taken, file, PartKind.VOCABULARY)
    assert publish.publish_part_file(part, file, PartKind.VOCABULARY)["version"] == "1", "before the first release"
    assert promote.promote(model, 1, others={"words": 1})["parts"] == "ranking 1, words 1"


def test_what_a_damaged_record_of_a_file_says_mends_it(words: ServingModel, tmp_path: Path) -> None:
    record = words.places.file_part(words.namespace, "words") / "1" / "part.json"
    record.write_text("{}")
    file = tmp_path / "words.txt"
    file.write_text("one")
    with pytest.raises(CorruptRecordError, match="remove its folder, and publish the same file again"):
        publish.publish_part_file(words, file, PartKind.VOCABULARY)
    shutil.rmtree(record.parent)
    assert publish.publish_part_file(words, file, PartKind.VOCABULARY)["version"] == "1"


@pytest.mark.parametrize("written", [0, 1])
def test_an_installation_of_before_there_were_parts_goes_on(
    world: World, server: ModelServer, model: ServingModel, written: int
) -> None:
    for name in ("first", "second"):
        roll_out(model, world.register(model.namespace, name))
    of_earlier_code(model, written)
    report: dict[str, Any] = status.status(model)
    assert (report["agree"], report["problems"], report["lost"]) == (True, [], [])
    assert (report["version"], report["previous_version"], report["why"]) == ("2", "1", "every gate passed")
    assert promote.promote(model, 2, key="run-2")["previous_version"] == "1", "what was done for a key is remembered"
    assert rollback.rollback(model, reason="clicks fell")["version"] == "1"
    assert agreed(server, model) == "first"
    assert rollback.rollback(model)["version"] == "2"
    promoted(world, model.of("tower"), "third")
    assert versions(model) == {"ranking": "2", "tower": "1"}
    rollback.rollback(model, to=1)
    assert (versions(model), agreed(server, model)) == ({"ranking": "1"}, "first")
    assert not (model.places.root / "releases" / model.namespace).exists(), "one pointer, where it always was"


def test_a_switch_that_earlier_code_was_killed_in_is_finished(
    world: World, server: ModelServer, model: ServingModel
) -> None:
    for name in ("first", "second"):
        roll_out(model, world.register(model.namespace, name))
    of_earlier_code(model, 1)
    (done,) = (entry for entry in journal.history(model) if entry.version == "2")
    write_json(model.places.rollouts(model.namespace) / "pending.json", earlier_entry(done))
    assert "finished it" in str(reconcile.reconcile(model)["recovered"])
    assert agreed(server, model) == "second"


def of_earlier_code(model: ServingModel, written: int) -> None:
    """Put a namespace's records of releases of one ranker where the formats 0 and 1 had them, and as they were."""
    entries = [earlier_entry(entry) | {"key": f"run-{entry.version}"} for entry in journal.history(model)]
    root = model.places.root
    for folder in ("releases", "rollouts"):
        (root / folder / model.namespace).rename(root / folder / model.name)
    for path in [*(root / "releases" / model.name).glob("v*.json"), root / "releases" / model.name / "current.json"]:
        record = release_of_before(Release.read(path))
        path.write_text(json.dumps(record | ({"format": 1} if written else {})))
    write_json(root / "rollouts" / model.name / "history.json", {"switches": entries})


def earlier_entry(entry: journal.Intention) -> dict[str, str]:
    names = ("kind", "version", "previous_version", "why", "key", "began", "run_id")
    return {name: str(getattr(entry, name)) for name in names}
