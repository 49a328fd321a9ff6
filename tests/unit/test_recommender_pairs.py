"""A request uses one release and one snapshot that fit each other, however often and in whatever order they move."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.contracts.manifests import Part, PartKind, Release, Similarity, channel_part
from feature_repo.contracts.publishing import write_json
from serving.recommender.engine import Engine, Online
from serving.recommender.readiness import _release_part, _snapshot_part
from serving.recommender.release import RankingOff, RankingPlan, may_wait
from serving.recommender.settings import Settings
from serving.recommender.user_features import UserFeatures
from serving.recommender.watcher import Watcher
from tests.recommender_world import NAMESPACE, World, catalogue_table, item_id
from tests.releases import ranker_part, release_of, release_of_before, snapshot_of_before

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

CHANNEL = "two-tower"
LIKED = 0
FIRST_MARKED = 100
"""The item of this number, plus the id of a generation, is near the liked one by the vectors of that generation."""
SWITCHES = 18
REQUESTS_AT_ONCE = 24


def checksum(generation: int) -> str:
    return hashlib.sha256(str(generation).encode()).hexdigest()


class Generations:
    """Publishes releases and snapshots whose parts all give away, in what is answered, which generation they are of."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.releases: dict[int, Release] = {}

    def release(self, generation: int, previous: int = 0) -> Release:
        """Promote a ranker, a tower and quotas of a generation, of which each has the number."""
        quotas = json.dumps({"circle": generation}).encode()
        folder = self.world.serving.file_part(NAMESPACE, "quotas") / str(generation)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "quotas.json").write_bytes(quotas)
        tower = Part("tower", PartKind.TOWER, str(generation), checksum(generation), needs={CHANNEL: ""})
        sha256 = hashlib.sha256(quotas).hexdigest()
        files = Part("quotas", PartKind.QUOTAS, str(generation), sha256, path="quotas.json")
        self.releases[generation] = self.world.publish_release(
            str(generation), tower, files, number=generation, previous=self.releases.get(previous)
        )
        return self.releases[generation]

    def snapshot(self, generation: int) -> None:
        """Publish a catalogue whose titles and features give the generation, and vectors stamped with its tower."""
        catalogue = catalogue_table(prefix=f"G{generation}")
        row = catalogue.column_names.index("item_value_std")
        marked = pa.array([float(generation)] * len(catalogue), pa.float32())
        size = 2 + generation % 5
        vector = [float(generation), *[0.0] * (size - 1)]
        near = pa.table({"item_id": [item_id(LIKED), item_id(FIRST_MARKED + generation)], "embedding": [vector] * 2})
        self.world.publish_snapshot(
            catalogue.set_column(row, "item_value_std", marked),
            {CHANNEL: near},
            cutoff=f"1998-{1 + generation // 28:02d}-{1 + generation % 28:02d}T00:00:00Z",
            size=size,
            similarity=Similarity.INNER_PRODUCT,
            towers={"tower": checksum(generation)},
        )


class Server:
    """A model server whose scores tell the version that was asked, and the generation of the item features it got."""

    async def predict(self, _: str, inputs: dict[str, NDArray[Any]], *, version: int, **__: Any) -> dict[str, Any]:
        await asyncio.sleep(random.random() / 500)
        return {"score": (version * 1000 + inputs["item_value_std"]).astype(np.float32)}


class OneUser(Engine):
    """Answers a user who likes one item, without Redis."""

    async def _user(self, *_: object) -> UserFeatures:
        await asyncio.sleep(random.random() / 500)
        values = {"user_last_items": [item_id(LIKED)], "user_last_values": [5.0]}
        return UserFeatures(values, (item_id(LIKED),), known=True, missing=())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def generations(world: World) -> Generations:
    return Generations(world)


@pytest.fixture
def watcher(world: World) -> Watcher:
    settings = Settings(
        state=world.state, namespace=NAMESPACE, recommender_clock="snapshot", recommender_ranking_ms=10_000
    )
    return Watcher(settings, OneUser(settings, None, Server()), lambda: None)  # type: ignore[arg-type] # never asked


def generations_of(answer: dict[str, Any], online: Online) -> tuple[set[int], set[int]]:
    """Return the generations that parts of the release, and those that parts of the snapshot, gave away."""
    released, snapshot = {int(answer["model"]["version"]), online.policy.quotas["circle"]}, set()
    for item in answer["items"]:
        version, features = divmod(int(item["score"]), 1000)
        released.add(version)
        snapshot |= {features, int(item["title"].split()[0].removeprefix("G"))}
        if CHANNEL in item["recalled_by"]:
            snapshot.add(int(item["item_id"]) - FIRST_MARKED)
    return released, snapshot


def channels(answer: dict[str, Any]) -> set[str]:
    return {channel for item in answer["items"] for channel in item["recalled_by"]}


async def answered(watcher: Watcher) -> dict[str, Any]:
    assert watcher.online is not None
    answer = await watcher._engine.recommend(watcher.online, "u", 100)
    assert answer.sent is not None
    assert answer.sent.user["user_id"] == "u", "for models that read it"
    return answer.body


def switches(generations: Generations) -> Iterator[None]:
    """Move both pointers to each generation, in either order, and the release's back and forth again now and then."""
    chance = random.Random(5)
    pointer = generations.world.serving.current_release(NAMESPACE)
    for generation in range(2, SWITCHES):
        release_first = chance.random() < 0.5
        for release in (release_first, not release_first):
            if release:
                generations.release(generation, generation - 1)
            else:
                generations.snapshot(generation)
            yield
        if generation % 5 == 0:
            for number in (generation - 1, generation):
                generations.releases[number].write(pointer)
                yield


def test_no_answer_mixes_generations_under_load(generations: Generations, watcher: Watcher) -> None:
    seen: list[tuple[int, int, bool]] = []

    async def ask(done: asyncio.Event) -> None:
        while not done.is_set():
            online = watcher.online
            assert online is not None
            body = await answered(watcher)
            released, snapshot = generations_of(body, online)
            assert (len(released), len(snapshot)) == (1, 1), (released, snapshot)
            seen.append((*released, *snapshot, CHANNEL in channels(body)))

    async def move(done: asyncio.Event) -> None:
        try:
            for _ in switches(generations):
                await watcher.look()
                await asyncio.sleep(0.01)
        finally:
            done.set()

    async def both() -> None:
        done = asyncio.Event()
        generations.release(1)
        generations.snapshot(1)
        await watcher.look()
        await asyncio.gather(move(done), *(ask(done) for _ in range(REQUESTS_AT_ONCE)))

    asyncio.run(both())
    assert len(seen) > 300
    for released, snapshot, asked in seen:
        assert asked == (released == snapshot), "vectors are asked with their own tower, and with no other"
    assert {released for released, snapshot, _ in seen if released == snapshot} == set(range(1, SWITCHES))
    rolled_back = {(released, snapshot) for released, snapshot, _ in seen if released != snapshot}
    assert rolled_back == {(generation - 1, generation) for generation in range(5, SWITCHES, 5)}


@pytest.mark.parametrize("first", ["release", "snapshot"])
def test_half_of_a_pair_waits_for_the_other(generations: Generations, watcher: Watcher, first: str) -> None:
    async def act() -> None:
        generations.release(1)
        generations.snapshot(1)
        await watcher.look()
        if first == "release":
            generations.release(2, 1)
        else:
            generations.snapshot(2)
        await watcher.look()
        body = await answered(watcher)
        assert watcher.online is not None
        assert generations_of(body, watcher.online) == ({1}, {1})
        stamped = checksum(1 if first == "release" else 2)[:8]
        assert f"needs the part tower with the checksum {stamped}" in watcher.unfit
        assert ("snapshot" in body["degraded"]) == (first == "snapshot"), "a newer snapshot waits"
        for part in (_snapshot_part(watcher), _release_part(watcher)):
            assert (part.state, watcher.unfit in part.detail) == ("degraded", True)
        if first == "release":
            generations.snapshot(2)
        else:
            generations.release(2, 1)
        await watcher.look()
        body = await answered(watcher)
        assert generations_of(body, watcher.online) == ({2}, {2})
        assert (body["degraded"], watcher.unfit) == ([], "")

    asyncio.run(act())


def test_where_no_pair_fitted_before_what_lacks_something_is_left_out(
    generations: Generations, watcher: Watcher
) -> None:
    async def act() -> None:
        generations.release(1)
        generations.snapshot(2)
        await watcher.look()
        body = await answered(watcher)
        assert watcher.online is not None
        assert generations_of(body, watcher.online) == ({1}, {2})
        assert CHANNEL not in channels(body)
        assert body["degraded"] == ["embeddings"]
        assert "needs the part tower" in watcher.online.vectors_problem
        similar = watcher._engine.similar(watcher.online, LIKED, 5, CHANNEL)
        assert similar["degraded"] == ["embeddings"]
        generations.snapshot(1)
        await watcher.look()
        body = await answered(watcher)
        assert CHANNEL in channels(body)
        assert body["degraded"] == []

    asyncio.run(act())


def test_a_ranker_that_reads_a_channel_which_is_not_there_ranks_nothing(world: World, watcher: Watcher) -> None:
    async def act() -> None:
        world.publish_release("1", needs={"itemcf": ""})
        world.publish_snapshot()
        await watcher.look()
        assert watcher.online is not None
        assert isinstance(watcher.online.ranking, RankingOff)
        assert "ranker ranking 1 needs a part itemcf, there is none in the snapshot" in watcher.online.ranking.reason
        world.publish_snapshot(
            more=[channel_part("itemcf", "1998", "", "0" * 64, definition="", table="neighbours", half_life_days=0.0)]
        )
        await watcher.look()
        assert isinstance(watcher.online.ranking, RankingPlan)

    asyncio.run(act())


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_release_with_a_damaged_file_does_not_come_into_force(
    generations: Generations, watcher: Watcher, damage: str
) -> None:
    async def act() -> None:
        generations.release(1)
        generations.snapshot(1)
        await watcher.look()
        release = generations.release(2, 1)
        file = generations.world.serving.file_part(NAMESPACE, "quotas") / "2" / "quotas.json"
        file.unlink() if damage == "gone" else file.write_bytes(b"3")
        release.write(generations.world.serving.current_release(NAMESPACE))
        await watcher.look()
        assert watcher.online is not None
        assert watcher.online.release is not None
        assert watcher.online.release.number == 1
        assert str(file) in watcher.release.problem
        assert "publish it again" in watcher.release.problem

    asyncio.run(act())


@pytest.mark.parametrize("written", [0, 1])
def test_what_was_published_before_there_were_parts_answers(world: World, watcher: Watcher, written: int) -> None:
    """In the folder where it was; the watcher looks there if it is there when it starts."""

    async def act() -> None:
        own = {"format": written} if written else {}
        fitted = ("feature_service", "feature_service_hash", "train_end", "item_embeddings", "item_embeddings_sha256")
        release = release_of_before(world.publish_release("7", **dict.fromkeys(fitted, "")))
        shutil.rmtree(world.serving.releases(NAMESPACE))
        write_json(world.serving.root / "releases" / f"{NAMESPACE}.ranking" / "current.json", release | own)
        write_json(world.place.online_current, snapshot_of_before(world.publish_snapshot()) | own)
        settings = Settings(
            state=world.state, namespace=NAMESPACE, recommender_clock="snapshot", recommender_ranking_ms=10_000
        )
        earlier = Watcher(settings, watcher._engine, lambda: None)
        await earlier.look()
        assert earlier.online is not None
        assert isinstance(earlier.online.ranking, RankingPlan)
        assert earlier.online.ranking.version == 7
        assert list(earlier.online.vectors) == ["item2vec"]
        assert earlier.online.vectors["item2vec"].vectors.shape[1] == 32
        assert (await answered(earlier))["degraded"] == []

    asyncio.run(act())


def numbered(number: int, previous: int = 0) -> Release:
    before = release_of("tiny", ranker_part(), number=previous) if previous else None
    return release_of("tiny", ranker_part(), number=number, previous=before)


@pytest.mark.parametrize(
    ("before", "after", "may"),
    [
        (None, None, True),
        (None, numbered(1), False),
        (numbered(1), numbered(1), True),
        (numbered(1), numbered(2, 1), True),
        (numbered(2, 1), numbered(1, 2), False),
        (numbered(1), numbered(3, 2), False),
        (numbered(1), None, False),
    ],
    ids=str,
)
def test_answers_wait_after_a_promotion_and_never_after_a_rollback(
    before: Release | None, after: Release | None, *, may: bool
) -> None:
    assert may_wait(before, after) is may
