"""Models' lists at the validation origins, of real model servers, beside figures by hand; who may not be measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.manifests import TrainingKind, TrainingSet
from feature_repo.contracts.places import MANIFEST, Serving, cutoff_name
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.questions import Asked, Role
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.lists import job
from serving.lists.candidates import candidates
from serving.lists.comparison import Model, compare, parse_models
from serving.lists.errors import QuestionsError
from serving.lists.questions import load_questions
from serving.lists.rankers import candidate_release
from serving.lists.reranking import SHARES
from serving.recommender.settings import Settings
from tests.questions_world import ORIGINS, QUESTIONS_ID, UNKNOWN, QuestionsWorld
from tests.recommender_world import NAMESPACE, export_model
from tests.training_set_fixture import rewrite_manifest, write_training_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

FIRST, SECOND, VALIDATION, TEST = ORIGINS
ROWS, LISTS, LATE = "rows", "lists", "late"
"""Training sets: of rated events, of candidates, and one whose fitted rows go beyond the first validation origin."""
TWO_VALIDATIONS = {FIRST: Role.TRAIN, SECOND: Role.VALIDATION, VALIDATION: Role.VALIDATION, TEST: Role.TEST}
SCORE = "pair_item2vec_score"


class World(QuestionsWorld):
    """Questions, training sets, and a few exported models."""

    def build(self) -> World:
        self.write()
        ends = {"train_end": SECOND.isoformat(), "valid_end": TEST.isoformat()}
        record = write_training_set(self.place, ROWS, rows=400)
        rewrite_manifest(self.place, record, **ends)
        record = write_training_set(self.place, LISTS, rows=400, pairs=(SCORE,))
        rewrite_manifest(self.place, record, kind=TrainingKind.LISTS, candidates_id="of-lists", **ends)
        record = write_training_set(self.place, LATE, rows=400)
        rewrite_manifest(self.place, record, **(ends | {"train_end": VALIDATION.isoformat()}))
        export_model(self.model("up"))
        export_model(self.model("down"), sign=-1.0)
        self.export_pairs(self.model("pairs"))
        (self.model("broken") / "assets.extra").mkdir(parents=True)
        for name in ("saved_model.pb", "assets.extra/kestrel_signature.json"):
            content = (self.model("up") / name).read_bytes()
            (self.model("broken") / name).write_bytes(b"junk" if name.endswith("pb") else content)
        return self

    def model(self, name: str) -> Path:
        return self.state / "models" / name

    def export_pairs(self, folder: Path) -> None:
        """Export a model that orders items as item2vec does, those that it did not find last."""
        from models.dataset import read_dataset
        from models.export import export
        from models.training.fit import fit
        from tests.small_models import PairScore

        features = ("ranking", SCORE)
        record = write_training_set(self.place, "to-fit", rows=400, pairs=(SCORE,))
        dataset = read_dataset(self.place.training_sets / record.training_set_id, features=features)
        export(fit(PairScore(PairScore.config_class()), dataset, 1), dataset.signature, folder)

    def settings(self, **changes: Any) -> Settings:
        return Settings(**{"state": self.state, "namespace": NAMESPACE, "recommender_candidates": 100, **changes})

    def compared(
        self, models: Sequence[Model], out: Path, candidates_id: str = ""
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        printed = compare(self.settings(), NAMESPACE, QUESTIONS_ID, candidates_id, models, out)
        record = json.loads(out.read_text(), parse_constant=lambda text: pytest.fail(f"{text} in the record"))
        return printed, record


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("compared"), origins=TWO_VALIDATIONS).build()


@pytest.fixture(scope="module")
def compared(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    models = [
        Model("up", world.model("up"), ROWS),
        Model("broken", world.model("broken"), ROWS),
        Model("knows the answers", world.model("up"), LATE),
        Model("nothing learned", world.model("up"), "no-such-set"),
        Model("pairs", world.model("pairs"), LISTS),
        Model("down", world.model("down"), ROWS),
    ]
    return world.compared(models, tmp_path_factory.mktemp("record") / "comparison.json")


def ndcg(shown: Sequence[str], liked: set[str]) -> float:
    """Return NDCG@10 of one list, by the definition."""
    gained = sum(1 / math.log2(place + 2) for place, item in enumerate(shown[:10]) if item in liked)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(10, len(liked))))


def by_item2vec(world: World, moment: datetime, candidates_id: str) -> dict[int, list[str]]:
    """Question → the candidates that item2vec found, the best first, by the file that models learn from."""
    rows = pq.read_table(world.place.recalled / candidates_id / f"{cutoff_name(moment)}.parquet").to_pylist()
    found: dict[int, list[tuple[int, str]]] = {}
    for row in rows:
        if row["channel"] == "item2vec":
            found.setdefault(row["question_id"], []).append((row["rank"], row["item_id"]))
    return {question: [item for _, item in sorted(own)] for question, own in found.items()}


def test_what_a_model_of_candidates_is_compared_by_are_its_lists(
    world: World, compared: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """The model shows what item2vec found, in its order: its lists follow from the candidates alone."""
    candidates_id = str(candidates(world.settings(), NAMESPACE, QUESTIONS_ID)["candidates"])
    _, origins = load_questions(world.place, QUESTIONS_ID)
    figures = []
    for number, (moment, role) in enumerate(TWO_VALIDATIONS.items()):
        if role is Role.VALIDATION:
            lists = by_item2vec(world, moment, candidates_id)
            ids, users = origins[number].ids[Asked.AT_ORIGIN].tolist(), origins[number].users.tolist()
            figures += [
                ndcg(lists[question], set(world.liked(user, number)))
                for question, user in zip(ids, users, strict=True)
                if user != UNKNOWN
            ]
    _, record = compared
    own = record["lists"]["pairs"]
    assert own["ndcg_at_10"] == pytest.approx(np.mean(figures))
    assert 0 < own["ndcg_at_10"] < 1
    assert own["interval"][0] <= own["ndcg_at_10"] <= own["interval"][1]
    assert own["saved_model_sha256"] == tree_sha256(world.model("pairs"))


def test_the_record_is_what_choosing_reads(compared: tuple[dict[str, Any], dict[str, Any]], world: World) -> None:
    printed, record = compared
    assert (record["namespace"], record["questions_id"]) == (NAMESPACE, QUESTIONS_ID)
    assert record["training_set_ids"] == sorted({ROWS, LISTS, LATE, "no-such-set"})
    assert [each["role"] for each in record["origins"]] == ["validation", "validation"]
    assert record["users"] == len(world.users) - 1, "users of long history, each once"
    assert record["lists"].keys() == {"up", "down", "pairs"}
    assert record["lists"]["up"].keys() == {
        *("saved_model_sha256", "ndcg_at_10", "recall_at_10", "interval"),
        *("reranking", "tried"),
    }
    assert record["lists"]["up"]["ndcg_at_10"] != record["lists"]["down"]["ndcg_at_10"]
    assert record["best_simple"].keys() == {"name", "ndcg_at_10"}
    assert record["unranked"]["ndcg_at_10"] is not None
    assert printed["figures"] == {name: own["ndcg_at_10"] for name, own in record["lists"].items()}
    best = max(printed["figures"], key=lambda name: printed["figures"][name])
    assert printed["sentence"].startswith(f"Of 3 models {best} has the best lists on validation, and ")
    assert printed["sentence"].endswith("Not measured: broken, knows the answers, nothing learned.")


def test_quotas_are_those_of_the_candidates_and_lists_are_re_ranked_alike(world: World, tmp_path: Path) -> None:
    """What is written of a model are its lists by the policy that is written beside them."""
    offered = candidates(world.settings(recommender_quotas={"popular": 500}), NAMESPACE, QUESTIONS_ID)
    models = [Model("up", world.model("up"), ROWS)]
    _, record = world.compared(models, tmp_path / "of-candidates.json", str(offered["candidates"]))
    assert record["quotas"]["popular"] == 500
    assert record["quotas"].keys() >= {"item2vec", "new"}
    own = record["lists"]["up"]
    tried = {each["share"]: each for each in own["tried"]}
    assert tried.keys() == set(SHARES)
    assert tried[own["reranking"]["share"]]["ndcg_at_10"] == own["ndcg_at_10"]
    best = max(each["ndcg_at_10"] for each in tried.values())
    assert own["ndcg_at_10"] >= 0.9 * best
    assert record["overlap_limit"] > 0
    _, declared = world.compared(models, tmp_path / "declared.json")
    assert declared["quotas"] == {}
    assert own["ndcg_at_10"] != declared["lists"]["up"]["ndcg_at_10"], "other candidates were ranked"
    with pytest.raises(QuestionsError, match=r"expected what `python -m serving\.lists candidates` writes"):
        world.compared(models, tmp_path / "none.json", "none")


def test_who_cannot_be_measured_stops_nobody(compared: tuple[dict[str, Any], dict[str, Any]]) -> None:
    undefined: Mapping[str, str] = compared[1]["undefined"]
    assert undefined.keys() == {"broken", "knows the answers", "nothing learned"}
    assert "private server" in undefined["broken"]
    assert "rows to fit on that end at the validation origin 1998-01-31T00:00:00Z" in undefined["knows the answers"]
    assert "expected the manifest of the model's training set" in undefined["nothing learned"]


@pytest.mark.parametrize(
    ("origins", "users", "reason"),
    [
        ({FIRST: Role.TRAIN, TEST: Role.TEST}, ("u0", "u1"), "there is no validation origin"),
        (ORIGINS, (), "nobody likes anything new between 1998-03-02T00:00:00Z and 1998-04-01T00:00:00Z"),
    ],
)
def test_where_nobody_can_be_asked_every_figure_is_undefined(
    tmp_path: Path, origins: dict[datetime, Role], users: tuple[str, ...], reason: str
) -> None:
    world = World(tmp_path, origins=origins, users=users)
    world.write()
    printed, record = world.compared([Model("any", tmp_path, ROWS)], tmp_path / "comparison.json")
    assert printed == {"figures": {}, "sentence": f"Lists were not compared: {reason}."}
    assert (record["lists"], record["undefined"], record["users"]) == ({}, {"every figure": reason}, 0)


def test_a_validation_origin_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, users=("u0",))
    world.write()
    (world.origin_folder(VALIDATION) / "snapshot.json").unlink()
    world.sign()
    with pytest.raises(QuestionsError, match=r"validation origin .*snapshot\.json.*pipelines questions` again"):
        world.compared([Model("any", tmp_path, ROWS)], tmp_path / "comparison.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "expected JSON such as"),
        ('{"name": "a"}', "expected a list such as"),
        ('[{"name": "a", "saved_model": "d"}]', "expected .* of each, all of them texts"),
        ('[{"name": "a", "saved_model": "d", "training_set": 3}]', "expected .* of each, all of them texts"),
        ('[{"name": "a", "saved_model": "d", "training_set": "../up"}]', "id '../up': expected up to 64 letters"),
        (json.dumps([{"name": "a", "saved_model": "d", "training_set": "t"}] * 2), "expected distinct names"),
    ],
)
def test_models_that_cannot_be_read_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_models(text)


@pytest.mark.parametrize(("candidate", "served"), [("pairs", "up"), ("up", "pairs")])
def test_candidate_and_champion_are_measured_whatever_they_learned_from(
    world: World, tmp_path: Path, candidate: str, served: str
) -> None:
    """One of them learned from rated events, the other from candidates, and reads what a channel says."""
    learned_from = {"up": ROWS, "pairs": LISTS}
    assert TrainingSet.read(world.place.training_sets / LISTS / MANIFEST).kind is TrainingKind.LISTS
    serving = Serving(world.state)
    folder = serving.model(NAMESPACE, RANKING_MODEL) / "1"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(world.model(served), target_is_directory=True)
    pointer = serving.current_release(NAMESPACE)
    replace(candidate_release(world.place, learned_from[served], world.model(served)), why="served").write(pointer)
    out = tmp_path / "lists.json"
    try:
        of = job.Measured(world.model(candidate), learned_from[candidate])
        job.measure(world.settings(), NAMESPACE, QUESTIONS_ID, of, out)
    finally:
        pointer.unlink()
        folder.unlink()
    record = json.loads(out.read_text())
    first = record["tables"][0]
    assert {"candidate", "champion"} <= {row["list"] for row in first["rows"]}
    assert {"candidate", "champion"}.isdisjoint(record["undefined"])
    assert record["users"] == first["users"] == len(world.users) - 1
    (against,) = (each for each in record["against"] if each["list"] == "champion")
    assert against["difference"] != 0
    assert against["interval"][0] <= against["difference"] <= against["interval"][1]
