"""Candidates that models learn from are those that the recommender sends to a model, figure by figure."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from feature_repo.contracts.candidates import CANDIDATES
from feature_repo.contracts.channels import MISSING_RANK, channels
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.manifests import Candidates
from feature_repo.contracts.places import MANIFEST, cutoff_name
from feature_repo.contracts.questions import Asked, Role
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import pair_inputs, ranking
from feature_repo.locks import LockedError
from pipelines.io.arrow import conform
from serving.lists.candidates import candidates
from serving.lists.errors import QuestionsError, UnansweredError
from serving.lists.questions import load_questions
from serving.lists.stored_users import StoredUsers
from serving.recommender.engine import Engine, Online
from serving.recommender.recall import asking
from serving.recommender.release import RankingPlan, plan_ranking
from serving.recommender.settings import Settings
from serving.recommender.snapshot import load_snapshot
from tests.questions_world import LIKED_CHANNEL, ORIGINS, QUESTIONS_ID, TOLD_CHANNEL, UNKNOWN, QuestionsWorld
from tests.recommender_world import ITEM_COUNT, NAMESPACE, item_id
from tests.releases import ranker_part, release_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from serving.lists.questions import OriginQuestions
    from serving.recommender.engine import SentRequest

RANKED = 100
EVERY_PAIR = ranking(MOVIELENS, ("item_event_count", *pair_inputs(MOVIELENS)))
FIRST, SECOND, VALIDATION, TEST = ORIGINS


class Recorded:
    """A model server that scores everything alike."""

    async def predict(self, _: str, inputs: Mapping[str, NDArray[Any]], **__: Any) -> dict[str, NDArray[Any]]:
        return {"score": np.zeros(len(inputs["item_event_count"]), dtype=np.float32)}


def settings_of(world: QuestionsWorld, **changes: Any) -> Settings:
    return Settings(**{"state": world.state, "namespace": NAMESPACE, "recommender_candidates": RANKED, **changes})


def written(world: QuestionsWorld, **changes: Any) -> dict[str, Any]:
    return candidates(settings_of(world, **changes), NAMESPACE, QUESTIONS_ID)


def rows_at(world: QuestionsWorld, name: str, moment: datetime) -> pa.Table:
    return pq.read_table(world.place.recalled / name / f"{cutoff_name(moment)}.parquet")


def origin_at(world: QuestionsWorld, moment: datetime) -> OriginQuestions:
    _, origins = load_questions(world.place, QUESTIONS_ID)
    (one,) = (origin for origin in origins if origin.record["origin"] == format_cutoff(moment))
    return one


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> QuestionsWorld:
    return QuestionsWorld(tmp_path_factory.mktemp("questions")).write()


@pytest.fixture(scope="module")
def name(world: QuestionsWorld) -> str:
    done = written(world)
    assert done["note"] == ""
    return str(done["candidates"])


@pytest.fixture
def own(tmp_path: Path) -> QuestionsWorld:
    """A small world that a test may break."""
    return QuestionsWorld(tmp_path, users=("u0", "u1", UNKNOWN)).write()


async def sent_requests(
    world: QuestionsWorld, origin: OriginQuestions, asked: Asked, **changes: Any
) -> dict[int, SentRequest | None]:
    """Question → the ranking request that the recommender sends at its moment."""
    snapshot = load_snapshot(world.place, origin.snapshot_pointer)
    plan = plan_ranking(release_of(NAMESPACE, ranker_part("1", signature=EVERY_PAIR.to_json())), snapshot)
    assert isinstance(plan, RankingPlan)
    online = Online(snapshot, None, plan)
    fields = origin.stored_fields(asked)
    redis = StoredUsers({snapshot.layout.key(user): row for user, row in fields.items()})
    requests = {}
    for question, user, moment in zip(
        origin.ids[asked].tolist(), origin.users.tolist(), origin.times[asked], strict=True
    ):
        settings = settings_of(world, recommender_clock=moment, **changes)
        requests[question] = (await Engine(settings, redis, Recorded()).recommend(online, user, 10)).sent
    return requests


Row = tuple[int, str, str, float | None, int]


def expected_rows(requests: Mapping[int, SentRequest | None], item_ids: NDArray[np.str_]) -> set[Row]:
    """Read the rows off the tensors of the requests, value by value."""
    rows: set[Row] = set()
    for question, sent in requests.items():
        if sent is None:
            continue
        for place, position in enumerate(sent.positions.tolist()):
            for channel in channels(MOVIELENS):
                rank = int(sent.inputs[f"pair_{channel}_rank"][place])
                if rank != MISSING_RANK:
                    scores = sent.inputs.get(f"pair_{channel}_score")
                    score = None if scores is None else float(scores[place])
                    rows.add((question, str(item_ids[position]), channel, score, rank))
    return rows


def as_rows(table: pa.Table) -> list[Row]:
    return list(zip(*(table.column(each).to_pylist() for each in CANDIDATES.column_names[:5]), strict=True))


@pytest.mark.parametrize("quotas", [{}, {TOLD_CHANNEL: 0, "popular": 1}], ids=["declared quotas", "other quotas"])
@pytest.mark.parametrize("moment", [FIRST, VALIDATION, TEST])
def test_rows_are_what_the_recommender_sends_to_a_model(
    world: QuestionsWorld, moment: datetime, quotas: dict[str, int]
) -> None:
    done = written(world, recommender_quotas=quotas)
    origin = origin_at(world, moment)
    requests = asyncio.run(sent_requests(world, origin, Asked.AT_ORIGIN, recommender_quotas=quotas))
    table = rows_at(world, str(done["candidates"]), moment)
    rows = as_rows(table)
    assert set(rows) == expected_rows(requests, origin.item_ids)
    assert len(set(rows)) == len(rows) == done["rows"][f"{cutoff_name(moment)}.parquet"]
    sent = {
        (question, str(origin.item_ids[position]))
        for question, request in requests.items()
        if request is not None
        for position in request.positions.tolist()
    }
    assert {row[:2] for row in rows} == sent, "every candidate has a row"
    assert {channel for _, _, channel, _, _ in rows} >= {LIKED_CHANNEL, TOLD_CHANNEL, "popular", "item2vec"}


def test_rows_are_those_that_are_declared(world: QuestionsWorld, name: str) -> None:
    for moment in ORIGINS:
        table = rows_at(world, name, moment)
        assert conform(table, CANDIDATES).equals(table.combine_chunks()), "columns, types, order and keys"
        found = table.group_by(["question_id", "channel"]).aggregate([("rank", "count_distinct"), ("rank", "max")])
        counts = table.group_by(["question_id", "channel"]).aggregate([("rank", "count")])
        assert found.column("rank_count_distinct") == counts.column("rank_count"), "a place is one item's"
        assert pc.max(found.column("rank_max")).as_py() <= RANKED
        each = table.group_by("question_id").aggregate([("item_id", "count_distinct")])
        assert set(each.column("item_id_count_distinct").to_pylist()) == {RANKED}


def test_what_is_fitted_is_fitted_before_the_question(world: QuestionsWorld, name: str) -> None:
    for moment in ORIGINS:
        fitted = set(rows_at(world, name, moment).column("fitted_at").to_pylist())
        assert fitted == {moment}


def test_of_the_unknown_nothing_is_ranked(world: QuestionsWorld, name: str) -> None:
    for moment in ORIGINS:
        origin = origin_at(world, moment)
        unknown = {int(origin.ids[Asked.AT_ORIGIN][origin.users == UNKNOWN][0])}
        everybody = set(origin.ids[Asked.AT_ORIGIN].tolist())
        assert set(rows_at(world, name, moment).column("question_id").to_pylist()) == everybody - unknown


def test_no_candidate_was_had_before(world: QuestionsWorld, name: str) -> None:
    for number, moment in enumerate(ORIGINS):
        origin, rows = origin_at(world, moment), as_rows(rows_at(world, name, moment))
        users = dict(zip(origin.ids[Asked.AT_ORIGIN].tolist(), origin.users.tolist(), strict=True))
        assert rows
        assert not [row for row in rows if row[1] in world.seen(users[row[0]], number)]


def test_a_list_that_is_the_same_for_all_is_told_as_it_is(world: QuestionsWorld, name: str) -> None:
    """Of what `liked_30d` says: every third item, the n-th of them a share of 7n mod 101."""
    origin = origin_at(world, FIRST)
    question, user = int(origin.ids[Asked.AT_ORIGIN][-1]), str(origin.users[-1])
    numbers = [number for number in range(0, ITEM_COUNT, 3) if item_id(number) not in world.seen(user, 0)]
    order = sorted(numbers, key=lambda number: (-(number * 7 % 101), number))
    told = {
        row[1]: (row[3], row[4])
        for row in as_rows(rows_at(world, name, FIRST))
        if (row[0], row[2]) == (question, LIKED_CHANNEL)
    }
    assert told
    for item, (score, rank) in told.items():
        assert order[rank - 1] == int(item)
        assert score == pytest.approx((int(item) * 7 % 101) / 101)


def test_what_is_asked_later_counts_older_likes_less(world: QuestionsWorld) -> None:
    """Candidates are of the origins alone: the recommender itself is asked at both moments."""
    origin = origin_at(world, FIRST)
    best = {}
    for asked in Asked:
        sent = asyncio.run(sent_requests(world, origin, asked))[int(origin.ids[asked][-1])]
        assert sent is not None
        best[asked] = sent.inputs[f"pair_{TOLD_CHANNEL}_score"].max()
    assert best[Asked.BEFORE_NEXT] < best[Asked.AT_ORIGIN]


def test_the_manifest_says_what_was_asked_with_which_shares(world: QuestionsWorld, name: str) -> None:
    record = Candidates.read(world.place.recalled / name / MANIFEST)
    assert (record.candidates_id, record.questions_id, record.ranked) == (name, QUESTIONS_ID, RANKED)
    assert record.rows.keys() == record.checksums.keys() == {f"{cutoff_name(moment)}.parquet" for moment in ORIGINS}
    declared = channels(MOVIELENS)
    asked = {LIKED_CHANNEL, TOLD_CHANNEL, "item2vec", "popular", "trend", "new", "taste"}
    assert record.quotas == {channel: declared[channel].quota for channel in asked}


def test_equal_inputs_give_an_equal_id_and_equal_bytes(own: QuestionsWorld) -> None:
    first = written(own)
    folder = own.place.recalled / str(first["candidates"])
    before = Candidates.read(folder / MANIFEST)
    kept = folder.rename(own.place.recalled / "kept")
    assert written(own) == first
    assert Candidates.read(folder / MANIFEST) == before
    assert {each.name for each in kept.iterdir()} == {each.name for each in folder.iterdir()}
    others = [{"recommender_candidates": RANKED + 1}, {"recommender_quotas": {"popular": 11}}]
    ids = {str(written(own, **changes)["candidates"]) for changes in others}
    assert len(ids | {str(first["candidates"])}) == 3


def test_what_is_there_is_taken(own: QuestionsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(own)
    monkeypatch.setattr("serving.lists.candidates._write", lambda *_: pytest.fail("written anew"))
    assert written(own) == first


@pytest.mark.parametrize("damage", ["bytes", "file", MANIFEST])
def test_damaged_candidates_are_written_anew(
    own: QuestionsWorld, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = written(own)
    folder = own.place.recalled / str(first["candidates"])
    before = Candidates.read(folder / MANIFEST)
    file = folder / f"{cutoff_name(FIRST)}.parquet"
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        (file if damage == "file" else folder / MANIFEST).unlink()
    with caplog.at_level(logging.WARNING):
        assert written(own) == first
    assert "are written anew" in caplog.text
    assert Candidates.read(folder / MANIFEST) == before


def test_one_job_writes_at_a_time(own: QuestionsWorld) -> None:
    own.place.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(own.place.locks / "recalled.lock"), pytest.raises(LockedError, match="candidates of namespace"):
        written(own)


@pytest.mark.parametrize(
    ("origins", "users", "liked_from", "reason"),
    [
        ({TEST: Role.TEST}, ("u0",), 0, "no train origin has a user to ask, and no validation origin has"),
        ({VALIDATION: Role.VALIDATION, TEST: Role.TEST}, ("u0",), 0, "no train origin has a user to ask"),
        ({FIRST: Role.TRAIN, TEST: Role.TEST}, ("u0",), 0, "no validation origin has a user to ask"),
        (ORIGINS, (), 0, "no train origin has a user to ask, and no validation origin has"),
        (ORIGINS, (UNKNOWN,), 0, "no candidate of a train origin is an answer, and no candidate of a validation"),
        (ORIGINS, ("u0",), ITEM_COUNT, "no candidate of a train origin is an answer"),
    ],
)
def test_what_nobody_can_learn_from_is_written_and_says_why(
    tmp_path: Path, origins: dict[datetime, Role], users: tuple[str, ...], liked_from: int, reason: str
) -> None:
    world = QuestionsWorld(tmp_path, origins=origins, users=users, liked_from=liked_from).write()
    done = written(world)
    assert done["candidates"] == ""
    assert reason in done["note"]
    assert done["note"].startswith("lists cannot be learned from: ")
    (folder,) = world.place.recalled.iterdir()
    record = Candidates.read(folder / MANIFEST)
    assert record.rows == done["rows"]
    assert len(record.rows) == (len(origins) if users else 0)
    assert written(world) == done, "the same is said of what is there"


def test_origins_of_before_there_were_snapshots_of_them_are_refused(own: QuestionsWorld) -> None:
    (own.origin_folder(VALIDATION) / "snapshot.json").unlink()
    own.sign()
    with pytest.raises(
        QuestionsError, match=r"validation origin 1998-03-02.*snapshot\.json.*pipelines questions` again"
    ):
        written(own)
    assert not list(own.place.recalled.iterdir()), "nothing half-written is left"


def test_a_table_that_is_gone_is_refused(own: QuestionsWorld) -> None:
    (own.place.channels / TOLD_CHANNEL / f"{cutoff_name(SECOND)}.parquet").unlink()
    with pytest.raises(QuestionsError, match=r"train origin 1998-01-31.*ease.*pipelines questions` again"):
        written(own)


def test_a_channel_of_another_definition_is_refused(own: QuestionsWorld) -> None:
    other = own.channel(LIKED_CHANNEL, SECOND, pa.table({"item_id": ["0001"], "score": pa.array([1.0], pa.float32())}))
    own.write_snapshot(SECOND, **{LIKED_CHANNEL: _with_definition(other, "abcd1234")})
    own.sign()
    with pytest.raises(QuestionsError, match=r"snapshot as of 1998-01-31T00:00:00Z: channel liked_30d.*abcd1234"):
        written(own)


def _with_definition(part: Any, definition: str) -> Any:
    return replace(part, data={**part.data, "definition": definition})


def test_a_channel_that_knows_the_answers_is_refused(own: QuestionsWorld) -> None:
    late = own.channel(
        LIKED_CHANNEL,
        SECOND + timedelta(days=1),
        pa.table({"item_id": ["0001"], "score": pa.array([1.0], pa.float32())}),
    )
    own.write_snapshot(SECOND, **{LIKED_CHANNEL: late})
    own.sign()
    with pytest.raises(QuestionsError, match=r"expected channels that know events before it alone.*liked_30d"):
        written(own)


def test_a_channel_that_fails_is_no_channel_that_finds_nothing(
    own: QuestionsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = "nobody thought of it"
        raise RuntimeError(msg)

    monkeypatch.setattr(asking, "recall_taste", fail)
    with pytest.raises(UnansweredError, match="received one without channel:taste"):
        written(own)


def test_unreadable_fields_are_no_unknown_user(own: QuestionsWorld) -> None:
    path = own.origin_folder(FIRST) / "user_fields.parquet"
    table = pq.read_table(path)
    spoilt = pa.array([b"\xff\xff"] * table.num_rows, pa.binary())
    pq.write_table(table.set_column(2, table.schema.field(2), spoilt), path)
    own.sign()
    with pytest.raises(UnansweredError, match="received one without user_features"):
        written(own)
