"""Measured lists are served lists: the engine on files beside a running stack at the same state, item for item."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import redis

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.jobs import exit_code_of
from feature_repo.contracts.list_policy import DECLARED, POLICY_PARTS, ListPolicy, Reranking
from feature_repo.contracts.manifests import (
    OnlineSnapshot,
    Part,
    PartKind,
    Questions,
    Refit,
    TrainingSet,
    champion_named,
)
from feature_repo.contracts.places import MANIFEST, Namespace, Serving
from feature_repo.contracts.publishing import file_sha256, tree_sha256, write_json
from feature_repo.contracts.questions import Asked
from feature_repo.contracts.signatures import RANKING_MODEL
from pipelines.io.lake import stored_dataset
from pipelines.jobs import channels, embeddings, features, ingest, materialize, publish, questions, registry
from pipelines.settings import Settings as PipelineSettings
from serving.lists import job
from serving.lists.answering import Answering
from serving.lists.errors import QuestionsError, UnansweredError
from serving.lists.questions import OriginQuestions, load_questions
from serving.lists.rankers import candidate_release
from serving.protocol.free_ports import free_ports
from serving.protocol.private_server import private_server
from serving.recommender.release import RankingPlan, plan_ranking
from serving.recommender.settings import Settings
from serving.recommender.snapshot import load_snapshot
from tests.awkward_paths import AWKWARD
from tests.recommender_world import export_model, recommender_in_thread
from tests.redis_server import redis_server
from tests.releases import with_ranker
from tests.synthetic import write_movielens_100k
from tests.training_set_fixture import rewrite_manifest, write_training_set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

NAME = "judged"
ORIGIN, END = datetime(1998, 1, 20, tzinfo=UTC), datetime(1998, 4, 23, tzinfo=UTC)
TRAINING_SET = "toy"

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


class World:
    """A log that goes on after the origin, a stack that knows nothing of that, and questions about it."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.state = folder / AWKWARD
        self.place = Namespace(self.state, NAME)
        self.redis_url = redis_url
        self.saved_model = folder / AWKWARD / "saved_model"
        self.settings = PipelineSettings(
            state=self.state, redis_url=redis_url, question_days=60, question_train_origins=1
        )

    def build(self, folder: Path) -> None:
        source = write_movielens_100k(folder / AWKWARD / "source", users=150, items=300, events=9000)
        ingest.run(self.settings, self.place, source, None, None)
        features.run(self.settings, self.place, ORIGIN, None)
        embeddings.run(self.settings, self.place, ORIGIN)
        channels.run(self.settings, self.place, ORIGIN)
        registry.run(self.settings, self.place)
        materialize.run(self.settings, self.place, ORIGIN)
        publish.run(self.settings, self.place, ORIGIN)
        features.run(self.settings, self.place, END, ORIGIN)
        record = write_training_set(self.place, TRAINING_SET)
        rewrite_manifest(self.place, record, valid_end="1998-01-19T00:00:00+00:00")
        export_model(self.saved_model)

    def ask(self) -> str:
        return str(questions.run(self.settings, self.place, END, "", ORIGIN)["questions"])

    def measured(self, **changes: Any) -> job.Measured:
        return job.Measured(**{"saved_model": self.saved_model, "training_set": TRAINING_SET, **changes})

    def recommender(self, **changes: Any) -> Settings:
        given = {"state": self.state, "namespace": NAME, "redis_url": self.redis_url, "recommender_clock": "snapshot"}
        return Settings(**(given | changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("lists")
    with redis_server() as url:
        world = World(folder, url)
        world.build(folder)
        yield world


@pytest.fixture(scope="module")
def asked(world: World) -> OriginQuestions:
    _, origins = load_questions(world.place, world.ask())
    return origins[-1]


def test_the_files_hold_what_redis_holds(world: World, asked: OriginQuestions) -> None:
    layout = load_snapshot(world.place).layout
    stored = asked.stored_fields(Asked.AT_ORIGIN)
    with contextlib.closing(redis.Redis.from_url(world.redis_url)) as client:
        for user, fields in stored.items():
            online = client.hmget(layout.key(user), layout.fields)
            assert [fields.get(field) for field in layout.fields] == online, user
    assert any(stored.values())


def test_channels_as_of_an_origin_are_those_of_the_job_as_of_it(world: World, asked: OriginQuestions) -> None:
    """The log goes on after the origin; the job was run when it did not, in the eyes of the lake's reader."""
    online = OnlineSnapshot.read(world.place.online_current).of_kind(PartKind.CHANNEL)
    assert OnlineSnapshot.read(asked.snapshot_pointer).of_kind(PartKind.CHANNEL) == online
    assert len(online) > 1


@pytest.mark.parametrize(
    "policy", [DECLARED, ListPolicy({"ease": 0, "popular": 90}, Reranking("itemcf", 0.4))], ids=["declared", "fitted"]
)
def test_measured_lists_are_those_of_a_running_stack(world: World, asked: OriginQuestions, policy: ListPolicy) -> None:
    release = candidate_release(world.place, TRAINING_SET, world.saved_model)
    for name, content in policy.record().items():
        version = "1" if policy is DECLARED else "2"
        folder = Serving(world.state).file_part(NAME, name) / version
        write_json(folder / f"{name}.json", content)
        sha256 = file_sha256(folder / f"{name}.json")
        release.parts[name] = Part(name, POLICY_PARTS[name], version, sha256, path=f"{name}.json")
    snapshot = load_snapshot(world.place, asked.snapshot_pointer)
    plan = plan_ranking(release, snapshot)
    assert isinstance(plan, RankingPlan)
    with private_server(world.saved_model, plan.model, plan.version) as (address, _):
        settings = world.recommender(model_server_grpc=address, recommender_ranking_ms=10_000)
        answering = Answering(settings, asked, snapshot, policy)
        measured = answering.scored(plan, address, Asked.AT_ORIGIN).lists
        unmixed = replace(answering, policy=replace(policy, reranking=Reranking()))
        scored = unmixed.scored(plan, address, Asked.AT_ORIGIN)
        assert (scored.reordered(policy.reranking) == measured).all(), "no second request is needed"
        pointer = Serving(world.state).current_release(NAME)
        release.write(pointer)
        try:
            with recommender_in_thread(settings) as client:
                served = [_recommended(client, user) for user in asked.users.tolist()]
        finally:
            pointer.unlink()
    catalogue = snapshot.catalogue
    shown = [[catalogue.item_ids[item] for item in row if item >= 0] for row in measured.tolist()]
    assert shown == served
    assert len({tuple(row) for row in shown}) > 1
    assert (asked.history == 0).any()
    assert (asked.history >= 5).any()


def _recommended(client: httpx.Client, user: str) -> list[str]:
    answer = client.get(f"/recommend/{user}", params={"k": 100}).json()
    assert not {"redis", "model_server", "internal", "release"} & set(answer["degraded"])
    return [item["item_id"] for item in answer["items"]]


def test_the_job_writes_a_record_without_nan(world: World, asked: OriginQuestions, tmp_path: Path) -> None:
    out, figures = tmp_path / "lists.json", tmp_path / "figures.parquet"
    settings, of = world.recommender(), asked.folder.parent.name
    done = job.measure(settings, NAME, of, world.measured(), out, figures=figures)
    record = json.loads(out.read_text(), parse_constant=lambda text: pytest.fail(f"{text} in the record"))
    assert record["sentence"] == done["sentence"]
    first = record["tables"][0]
    assert (first["asked"], first["history"]) == ("at_origin", "5+")
    names = [row["list"] for row in first["rows"]]
    assert names[:3] == ["candidate", "not re-ranked", "unranked"]
    assert record["policy"] == DECLARED.record()
    assert {"most liked", "EASE", "ItemCF"} < set(names)
    assert record["undefined"]["champion"] == "there is no champion yet"
    rows = pq.read_table(figures)
    assert rows.num_rows == 2 * len(asked.users) * len(names)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"views": {"user_activity": "user_activity_00000000"}},
            "reads feature view user_activity_00000000, online is",
        ),
        ({"training_set_id": "gone", "cutoff": "1998-04-23T00:00:00Z"}, "has learned from events after the origin"),
        ({"version": "9"}, "expected its SavedModel in"),
    ],
)
def test_a_champion_that_cannot_be_asked_is_named_with_the_reason(
    world: World, asked: OriginQuestions, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    serving = Serving(world.state)
    candidate = candidate_release(world.place, TRAINING_SET, world.saved_model)
    early = {"version": "1", "training_set_id": "gone", "cutoff": "1998-01-01T00:00:00Z"}
    folder = serving.model(NAME, RANKING_MODEL) / "1"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(world.saved_model, target_is_directory=True)
    pointer = serving.current_release(NAME)
    with_ranker(candidate, **(early | changes)).write(pointer)
    try:
        out, of = tmp_path / "lists.json", asked.folder.parent.name
        job.measure(world.recommender(), NAME, of, world.measured(), out)
    finally:
        pointer.unlink()
        folder.unlink()
    record = json.loads(out.read_text())
    assert reason in record["undefined"]["champion"]
    assert "champion" not in {row["list"] for row in record["tables"][0]["rows"]}


@pytest.fixture
def late_champion(world: World) -> Iterator[Refit]:
    """A champion that knows the answers, and the record of its spec's fit, which here is the candidate's own."""
    release = with_ranker(
        candidate_release(world.place, TRAINING_SET, world.saved_model, "7"),
        training_set_id="gone",
        cutoff="1998-04-23T00:00:00Z",
        run_id="theirs",
    )
    fit = world.place.candidates / "own" / "champion-7" / "saved_model"
    shutil.copytree(world.saved_model, fit)
    pointer = Serving(world.state).current_release(NAME)
    release.write(pointer)
    yield Refit(
        namespace=NAME,
        version="7",
        run_id="theirs",
        learned_until="1998-04-23T00:00:00+00:00",
        asked_from="1998-01-20T00:00:00+00:00",
        saved_model="candidates/own/champion-7/saved_model",
        saved_model_sha256=tree_sha256(fit),
        training_set_id=TRAINING_SET,
        fitted_until="1998-01-19T00:00:00+00:00",
        impossible="",
    )
    pointer.unlink()
    shutil.rmtree(world.place.candidates)


def _measured_beside(world: World, asked: OriginQuestions, folder: Path, refit: Refit | None) -> dict[str, Any]:
    out, path = folder / "lists.json", folder / "refit.json"
    if refit is not None:
        refit.write(path)
    of = asked.folder.parent.name
    job.measure(world.recommender(), NAME, of, world.measured(refit=refit and path), out)
    record: dict[str, Any] = json.loads(out.read_text())
    return record


def test_a_fit_of_its_spec_stands_in_for_a_champion_that_knows_the_answers(
    world: World, asked: OriginQuestions, late_champion: Refit, tmp_path: Path
) -> None:
    record = _measured_beside(world, asked, tmp_path, late_champion)
    assert record["champion"] == late_champion.named
    assert "(its spec fitted again on events before 1998-01-19T00:00:00+00:00, as version 7 has" in record["champion"]
    rows = {row["list"]: row for row in record["tables"][0]["rows"]}
    assert rows["champion"] | {"list": "candidate"} == rows["candidate"], "they are one model here"
    assert "champion" not in record["undefined"]


def test_what_cannot_stand_in_leaves_the_champion_out_with_the_reason(
    world: World, asked: OriginQuestions, late_champion: Refit, tmp_path: Path
) -> None:
    none = {"saved_model": "", "saved_model_sha256": "", "training_set_id": "", "fitted_until": ""}
    impossible = replace(late_champion, **none, impossible="its class is gone")
    learned = "version 7 has learned from events after the origin, up to 1998-04-23T00:00:00Z; `python -m models refit`"
    expected = {
        impossible: "ask from 1998-01-20T00:00:00+00:00 on; its spec cannot be fitted again: its class is gone",
        replace(late_champion, version="6"): learned,
        replace(late_champion, saved_model_sha256="0" * 64): "expected SHA-256 0000",
        None: learned,
    }
    for refit, why in expected.items():
        record = _measured_beside(world, asked, tmp_path, refit)
        assert why in record["undefined"]["champion"]
        assert record["champion"] == ""
        assert "champion" not in {row["list"] for row in record["tables"][0]["rows"]}


def test_a_champion_that_knows_no_answers_is_asked_itself_though_its_spec_could_not_be_fitted_again(
    world: World, asked: OriginQuestions, late_champion: Refit, tmp_path: Path
) -> None:
    """It knows test rows alone, which begin some hours before the origin."""
    serving = Serving(world.state)
    early = candidate_release(world.place, TRAINING_SET, world.saved_model, "7")
    with_ranker(early, run_id="theirs").write(serving.current_release(NAME))
    folder = serving.model(NAME, RANKING_MODEL) / "7"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(world.saved_model, target_is_directory=True)
    try:
        early = {"learned_until": "1998-01-20T00:00:00+00:00", "saved_model": ""}
        refit = replace(late_champion, **early, impossible="its class is gone")
        record = _measured_beside(world, asked, tmp_path, refit)
    finally:
        folder.unlink()
    assert record["champion"] == champion_named("7")
    assert "champion" in {row["list"] for row in record["tables"][0]["rows"]}


def test_a_champion_whose_training_set_is_gone_is_asked_by_what_its_run_says(
    world: World, asked: OriginQuestions, late_champion: Refit, tmp_path: Path
) -> None:
    """By its cutoff alone it would know the answers."""
    folder = Serving(world.state).model(NAME, RANKING_MODEL) / "7"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(world.saved_model, target_is_directory=True)
    try:
        early = replace(late_champion, learned_until="1998-01-20T00:00:00+00:00", saved_model="")
        record = _measured_beside(world, asked, tmp_path, early)
    finally:
        folder.unlink()
    assert record["champion"] == champion_named("7")


def test_a_refit_that_was_not_run_is_asked_for(
    world: World, asked: OriginQuestions, late_champion: Refit, tmp_path: Path
) -> None:
    of = world.measured(refit=tmp_path / "refit.json")
    with pytest.raises(QuestionsError, match=r"refit\.json: expected what `python -m models refit` writes, .*run it"):
        job.measure(world.recommender(), NAME, asked.folder.parent.name, of, tmp_path / "lists.json")


def test_questions_are_the_same_when_asked_again_and_change_nothing_online(
    world: World, asked: OriginQuestions
) -> None:
    with contextlib.closing(redis.Redis.from_url(world.redis_url)) as client:
        before = {key: client.hgetall(key) for key in client.keys()}  # noqa: SIM118 - Redis, not a mapping
        current = world.place.online_current.read_bytes()
        name = asked.folder.parent.name
        first = Questions.read(world.place.questions / name / MANIFEST)
        (world.place.questions / name).rename(world.place.questions / "kept")
        assert world.ask() == name
        assert Questions.read(world.place.questions / name / MANIFEST) == first
        assert {key: client.hgetall(key) for key in client.keys()} == before  # noqa: SIM118 - as above
    assert world.place.online_current.read_bytes() == current


@pytest.mark.parametrize("file", ["answers.parquet", "user_fields.parquet", "simple_lists.parquet", "snapshot.json"])
def test_damaged_questions_are_not_asked(world: World, asked: OriginQuestions, file: str) -> None:
    path = asked.folder / file
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    try:
        with pytest.raises(
            QuestionsError, match=rf"{file}: expected SHA-256 \w+, received \w+; run `python -m pipelines"
        ):
            load_questions(world.place, asked.folder.parent.name)
    finally:
        path.write_bytes(before)


def test_damaged_questions_and_what_is_gone_of_their_snapshot_are_written_anew(
    world: World, asked: OriginQuestions
) -> None:
    name, directory = asked.folder.parent.name, asked.folder.parent
    record = Questions.read(directory / MANIFEST)
    (asked.folder / "answers.parquet").write_bytes(b"damaged")
    assert "answers.parquet has other bytes" in questions.damage(world.place, directory)
    assert world.ask() == name
    assert Questions.read(directory / MANIFEST) == record
    parts = OnlineSnapshot.read(asked.snapshot_pointer).parts
    vectors, table = (world.place.root / parts[part].path for part in ("item2vec", "ease"))
    table.unlink()
    assert str(table) in questions.damage(world.place, directory)
    (directory / MANIFEST).unlink()
    vectors.unlink()
    assert world.ask() == name
    assert Questions.read(directory / MANIFEST) == record
    assert vectors.exists()
    assert table.exists()


def test_a_candidate_that_knows_the_answers_is_not_asked(world: World, asked: OriginQuestions, tmp_path: Path) -> None:
    path = world.place.training_sets / "late" / MANIFEST
    record = TrainingSet.read(world.place.training_sets / TRAINING_SET / MANIFEST)
    replace(record, training_set_id="late", valid_end="1998-02-01T00:00:00+00:00").write(path)
    out, of = tmp_path / "lists.json", asked.folder.parent.name
    job.measure(world.recommender(), NAME, of, world.measured(training_set="late"), out)
    found = json.loads(out.read_text())
    assert "goes on after the origin" in found["undefined"]["candidate"]
    assert found["undefined"]["candidate"] in found["sentence"]


def test_a_champion_that_does_not_load_stops_nobody(world: World, asked: OriginQuestions, tmp_path: Path) -> None:
    folder = Serving(world.state).model(NAME, RANKING_MODEL) / "1"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"junk")
    pointer = Serving(world.state).current_release(NAME)
    early = {"training_set_id": "gone", "cutoff": "1998-01-01T00:00:00Z"}
    with_ranker(candidate_release(world.place, TRAINING_SET, world.saved_model), **early).write(pointer)
    out, of = tmp_path / "lists.json", asked.folder.parent.name
    try:
        job.measure(world.recommender(), NAME, of, world.measured(), out)
    finally:
        pointer.unlink()
        shutil.rmtree(folder)
    found = json.loads(out.read_text())
    assert found["undefined"]["champion"].startswith("version 1: ")
    assert "candidate" in {row["list"] for row in found["tables"][0]["rows"]}


def test_a_model_server_that_does_not_answer_is_worth_another_try(world: World, asked: OriginQuestions) -> None:
    snapshot = load_snapshot(world.place, asked.snapshot_pointer)
    plan = plan_ranking(candidate_release(world.place, TRAINING_SET, world.saved_model), snapshot)
    assert isinstance(plan, RankingPlan)
    (port,) = free_ports(1)
    with pytest.raises(UnansweredError, match="received one without model_server") as caught:
        Answering(world.recommender(), asked, snapshot).scored(plan, f"127.0.0.1:{port}", Asked.AT_ORIGIN)
    assert exit_code_of(caught.value) is ExitCode.TRANSIENT


def test_nothing_that_is_asked_with_knows_the_future(world: World, asked: OriginQuestions) -> None:
    """Events from the origin on are changed; only the answers and the second question's times may differ."""
    everything = stored_dataset(world.place, EVENTS).snapshot()
    assert everything.within(ORIGIN, END).rows > 0
    other = World(world.state.parent / "without-future", world.redis_url)
    source = write_movielens_100k(other.state / "source", users=150, items=300, events=9000)
    lines = (source / "u.data").read_text(encoding="latin-1").splitlines()
    past = int(ORIGIN.timestamp())
    planted = [
        line if int(line.split("\t")[3]) < past else "\t".join([line.split("\t")[0], "7", "5", line.split("\t")[3]])
        for line in lines
    ]
    (source / "u.data").write_text("".join(f"{line}\n" for line in dict.fromkeys(planted)), encoding="latin-1")
    ingest.run(other.settings, other.place, source, None, None)
    features.run(other.settings, other.place, END, None)
    registry.run(other.settings, other.place)
    _, origins = load_questions(other.place, other.ask())
    theirs, mine = origins[-1].stored_fields(Asked.AT_ORIGIN), asked.stored_fields(Asked.AT_ORIGIN)
    common = theirs.keys() & mine.keys()
    assert common
    assert {user: theirs[user] for user in common} == {user: mine[user] for user in common}
    for file in ("catalogue.parquet",):
        assert pq.read_table(origins[-1].folder / file).equals(pq.read_table(asked.folder / file))
    snapshots = [
        load_snapshot(place, each.snapshot_pointer)
        for place, each in ((other.place, origins[-1]), (world.place, asked))
    ]
    assert snapshots[0].manifest.parts["item2vec"] == snapshots[1].manifest.parts["item2vec"]
    lists = [
        dict(zip(each.users.tolist(), zip(*each.simple_lists().values(), strict=True), strict=True))
        for each in (origins[-1], asked)
    ]
    for user in common:
        assert [row.tolist() for row in lists[0][user]] == [row.tolist() for row in lists[1][user]]
