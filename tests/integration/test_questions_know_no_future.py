"""What was known at an origin does not depend on what came after it: events that lie there change nothing before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.manifests import OnlineSnapshot, Questions
from feature_repo.contracts.places import MANIFEST, Namespace
from feature_repo.contracts.publishing import file_sha256
from feature_repo.contracts.questions import (
    ANSWERS_FILE,
    CATALOGUE_FILE,
    QUESTIONS_FILE,
    SIMPLE_LISTS_FILE,
    SNAPSHOT_FILE,
    USER_FIELDS_FILE,
    Asked,
    Role,
)
from pipelines.jobs import features, ingest, questions, registry
from pipelines.settings import Settings
from serving.lists.questions import OriginQuestions, load_questions
from tests.synthetic import write_movielens_100k

if TYPE_CHECKING:
    from pathlib import Path

NAME = "judged"
USERS, ITEMS = 150, 300
DAY = timedelta(days=1)
TEST, END = datetime(1998, 4, 1, tzinfo=UTC), datetime(1998, 4, 23, tzinfo=UTC)
VALIDATION = TEST - 30 * DAY
LAST_TRAIN = VALIDATION - 30 * DAY
TRAIN = [LAST_TRAIN - days * DAY for days in (30, 20, 10, 0)]
PLANTED = [LAST_TRAIN, LAST_TRAIN + timedelta(seconds=1), LAST_TRAIN + 9 * DAY, VALIDATION, VALIDATION + 9 * DAY]
"""At the very moments of origins, too: an event there is not known to them."""

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


class World:
    """Questions about a log; `planted` lets every user like items that nearly nobody had an event with before."""

    def __init__(self, folder: Path, *, planted: bool) -> None:
        settings = Settings(state=folder / "state", question_train_origins=len(TRAIN))
        place = Namespace(settings.state, NAME)
        source = write_movielens_100k(folder / "source", users=USERS, items=ITEMS, events=9000)
        if planted:
            plant(source / "u.data")
        ingest.run(settings, place, source, None, None)
        features.run(settings, place, END, None)
        registry.run(settings, place)
        name = str(questions.run(settings, place, END, "", TEST)["questions"])
        self.place = place
        self.record = Questions.read(place.questions / name / MANIFEST)
        self.origins: dict[datetime, OriginQuestions] = {
            datetime.fromisoformat(str(each.record["origin"])): each for each in load_questions(place, name)[1]
        }

    def checksum(self, origin: datetime, file: str) -> str:
        return self.record.checksums[f"{self.origins[origin].folder.name}/{file}"]

    def snapshot(self, origin: datetime) -> dict[str, tuple[str, object]]:
        """Return part → its checksum, and what it says of itself: where it lies follows from the questions' id."""
        parts = OnlineSnapshot.read(self.origins[origin].snapshot_pointer).parts
        return {name: (part.checksum, part.data) for name, part in parts.items()}


def plant(log: Path) -> None:
    """Add five likes of every user, each of an item that the user has no event with, the rarest first."""
    lines = [line.split("\t") for line in log.read_text(encoding="latin-1").splitlines()]
    had = {(int(user), int(item)) for user, item, *_ in lines}
    counts = dict.fromkeys(range(1, ITEMS + 1), 0)
    for _, item in had:
        counts[item] += 1
    rare = sorted(counts, key=counts.__getitem__)
    with log.open("a", encoding="latin-1") as file:
        for user in range(1, USERS + 1):
            new = [item for item in rare if (user, item) not in had]
            for item, moment in zip(new, PLANTED, strict=False):
                file.write(f"{user}\t{item}\t5\t{int(moment.timestamp())}\n")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, World]:
    with_future = World(tmp_path_factory.mktemp("with"), planted=True)
    return World(tmp_path_factory.mktemp("without"), planted=False), with_future


def test_there_are_origins_to_learn_from_to_choose_on_and_to_be_judged_at(worlds: tuple[World, World]) -> None:
    for world in worlds:
        roles = {moment: each.role for moment, each in world.origins.items()}
        assert roles == dict.fromkeys(TRAIN, Role.TRAIN) | {VALIDATION: Role.VALIDATION, TEST: Role.TEST}
        assert all(len(each.users) for each in world.origins.values())
        assert world.record.note == ""


def test_every_origin_has_what_was_known_and_what_is_judged_has_simple_lists(worlds: tuple[World, World]) -> None:
    known = {QUESTIONS_FILE, ANSWERS_FILE, CATALOGUE_FILE, SNAPSHOT_FILE, USER_FIELDS_FILE}
    for each in worlds[0].origins.values():
        simple = set() if each.role is Role.TRAIN else {SIMPLE_LISTS_FILE}
        assert {file.name for file in each.folder.iterdir()} == known | simple


def test_origins_whose_answers_end_before_are_the_same(worlds: tuple[World, World]) -> None:
    without, with_future = worlds
    for origin in TRAIN[:1]:
        assert without.snapshot(origin) == with_future.snapshot(origin)
        for file in (QUESTIONS_FILE, ANSWERS_FILE, USER_FIELDS_FILE, CATALOGUE_FILE):
            assert without.checksum(origin, file) == with_future.checksum(origin, file), (origin, file)


def test_an_origin_knows_nothing_of_its_own_moment_and_what_comes_after(worlds: tuple[World, World]) -> None:
    """Others are asked there, and answer otherwise; what is known there is the same."""
    without, with_future = worlds
    assert without.snapshot(LAST_TRAIN) == with_future.snapshot(LAST_TRAIN)
    fields, others = (world.origins[LAST_TRAIN].stored_fields(Asked.AT_ORIGIN) for world in worlds)
    assert len(others) > len(fields)
    assert fields == {user: others[user] for user in fields}
    assert sum(map(bool, fields.values())) > 10


def test_a_fit_s_tables_are_the_ones_that_its_checksums_name(worlds: tuple[World, World]) -> None:
    """Equal checksums say something: there are parts, they have rows, and those of two origins differ."""
    for world in worlds:
        found = {}
        for origin, each in world.origins.items():
            snapshot = OnlineSnapshot.read(each.snapshot_pointer)
            tables = [part for part in snapshot.parts.values() if part.path.startswith(("embeddings", "channels"))]
            assert len(tables) > 7
            for part in tables:
                assert file_sha256(world.place.root / part.path) == part.checksum
                assert pq.read_metadata(world.place.root / part.path).num_rows > 0, (origin, part.name)
            found[origin] = {part.name: part.checksum for part in tables}
        assert all(found[LAST_TRAIN][name] != found[VALIDATION][name] for name in found[TEST])


def test_what_was_planted_would_be_seen_where_it_is_known(worlds: tuple[World, World]) -> None:
    without, with_future = worlds
    assert without.checksum(LAST_TRAIN, ANSWERS_FILE) != with_future.checksum(LAST_TRAIN, ANSWERS_FILE)
    known, others = (world.snapshot(VALIDATION) for world in worlds)
    assert {name for name, part in known.items() if part == others[name]} <= {"views"}
