"""A model reads what channels say of user and item; without a channel it ranks on, and the answer tells."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from feature_repo.contracts.channels import channels
from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.manifests import OnlineSnapshot, channel_part, vectors_part
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import Signature, ranking
from serving.lists.rankers import why_unmeasurable
from serving.protocol.recorded import read_requests
from serving.recommender.engine import Answer, Engine, Online
from serving.recommender.readiness import _release_part
from serving.recommender.recall import asking as asking_module
from serving.recommender.release import Canary, RankingOff, RankingPlan, plan_ranking
from serving.recommender.request_sampling import RequestSampler
from serving.recommender.settings import Settings
from serving.recommender.shadowing import Shadow
from serving.recommender.snapshot import load_snapshot
from serving.recommender.user_features import UserFeatures
from serving.recommender.watcher import Watcher
from tests.recommender_world import CUTOFF, ITEM_COUNT, NAMESPACE, World, item_id, vectors_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SCORE, RANK, POPULAR_RANK = "pair_item2vec_score", "pair_item2vec_rank", "pair_popular_rank"
READS = ranking(MOVIELENS, ("item_event_count", SCORE, RANK, POPULAR_RANK))
READS_NONE = ranking(MOVIELENS, ("item_event_count",))
LIKED = [3, 7, 11]
"""Items of one taste."""


class Server:
    """A model server whose score is that of the channel, or little where there is none; it keeps what it was sent."""

    def __init__(self) -> None:
        self.inputs: dict[str, NDArray[Any]] = {}

    async def predict(self, _: str, inputs: dict[str, NDArray[Any]], **__: Any) -> dict[str, Any]:
        self.inputs = inputs
        by_count = inputs["item_event_count"].astype(np.float32) / 1e6
        if SCORE not in inputs:
            return {"score": by_count}
        return {"score": np.where(inputs[SCORE] < -1, by_count - 1, inputs[SCORE])}


class OneUser(Engine):
    """Answers a user who likes some items, without Redis."""

    liked: tuple[str, ...] = tuple(map(item_id, LIKED))

    async def _user(self, *_: object) -> UserFeatures:
        values = {"user_last_items": [*self.liked], "user_last_values": [5.0] * len(self.liked)}
        return UserFeatures(values, self.liked, known=True, missing=())


class Tiny:
    """A snapshot and a release of a model, and an engine to ask."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = Server()
        self.settings = Settings(
            state=world.state, namespace=NAMESPACE, recommender_clock="snapshot", recommender_ranking_ms=10_000
        )
        self.engine = OneUser(self.settings, None, self.server)  # type: ignore[arg-type] # Redis is never asked
        self.manifest: OnlineSnapshot = world.publish_snapshot()

    def online(self, signature: Signature = READS, **changes: Any) -> Online:
        release = self.world.publish_release(signature=signature.to_json(), views=signature.views)
        snapshot = load_snapshot(self.world.place)
        return Online(snapshot, release, plan_ranking(release, snapshot), **changes)

    def redefine_vectors(self, **definition: str) -> None:
        """Publish the snapshot again, with vectors of another definition."""
        part = replace(self.manifest.parts["item2vec"], data={"size": 32, "similarity": "cosine", **definition})
        parts = self.manifest.parts | {part.name: part}
        replace(self.manifest, parts=parts).write(self.world.place.online_current)

    def ask(self, online: Online, k: int = 100) -> Answer:
        return asyncio.run(self.engine.recommend(online, "u", k))


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(World(tmp_path))


def cosines() -> NDArray[np.float64]:
    """Return every item's cosine with the user, by the definition: the later a like, the more it counts."""
    vectors = np.array(vectors_table()["embedding"].to_pylist())
    user = sum(0.9**place * vectors[item] for place, item in enumerate(LIKED))
    return vectors @ (user / np.linalg.norm(user))  # type: ignore[no-any-return] # NumPy's


def sent(answer: Answer) -> tuple[Mapping[str, NDArray[Any]], list[int]]:
    assert answer.sent is not None
    return answer.sent.inputs, answer.sent.positions.tolist()


def test_what_channels_say_of_the_candidates_is_sent(tiny: Tiny) -> None:
    answer = tiny.ask(tiny.online())
    inputs, positions = sent(answer)
    near = [item for item in np.argsort(-cosines(), kind="stable") if item not in LIKED and cosines()[item] > 0]
    found = {item: place for place, item in enumerate(near[: tiny.settings.recommender_candidates], 1)}
    popular = {item: place for place, item in enumerate((i for i in range(ITEM_COUNT) if i not in LIKED), 1)}
    popular = {item: place for item, place in popular.items() if place <= tiny.settings.recommender_candidates}
    assert inputs[RANK].tolist() == [found.get(item, 0) for item in positions]
    assert inputs[POPULAR_RANK].tolist() == [popular.get(item, 0) for item in positions]
    expected = [cosines()[item] if item in found else -1e9 for item in positions]
    np.testing.assert_allclose(inputs[SCORE], expected, rtol=1e-4)
    assert 0 < sum(item in found for item in positions) < len(positions), "some were found by another channel alone"
    assert (inputs[SCORE].dtype, inputs[RANK].dtype) == (np.float32, np.int64)
    assert inputs.keys() == {column.name for column in READS.input_columns}


def test_the_answer_has_the_channel_s_order_and_tells_as_of_when_it_knows(tiny: Tiny) -> None:
    body: Any = tiny.ask(tiny.online(), 20).body
    best = sorted((item for item in range(ITEM_COUNT) if item not in LIKED), key=lambda item: -cosines()[item])
    assert [item["item_id"] for item in body["items"]] == [item_id(item) for item in best[:20]]
    assert body["degraded"] == []
    assert body["channels_as_of"] == {"item2vec": CUTOFF, "popular": CUTOFF}


def _left_out(tiny: Tiny) -> Online:
    tiny.world.publish_snapshot(vectors={})
    return tiny.online()


def _of_another_definition(tiny: Tiny) -> Online:
    tiny.redefine_vectors(definition="00000000")
    return tiny.online()


def _of_none(tiny: Tiny) -> Online:
    tiny.redefine_vectors()
    return tiny.online()


def _trained_on_another(tiny: Tiny) -> Online:
    pairs = [replace(each.pair, definition="00000000") if each.pair else None for each in READS.inputs]
    inputs = [
        replace(each, pair=pair) if pair and pair.channel == "item2vec" else each
        for each, pair in zip(READS.inputs, pairs, strict=True)
    ]
    return tiny.online(replace(READS, inputs=tuple(inputs)))


def _broken(tiny: Tiny) -> Online:
    path = tiny.world.place.root / tiny.manifest.parts["item2vec"].path
    path.write_bytes(path.read_bytes()[:-1])
    return tiny.online()


def _unfit(tiny: Tiny) -> Online:
    return tiny.online(unfit={"item2vec": "needs a tower"})


AWAY = {
    _left_out: ["channel:item2vec"],
    _of_another_definition: ["channel:item2vec"],
    _of_none: ["channel:item2vec"],
    _trained_on_another: ["channel:item2vec"],
    _broken: ["embeddings", "channel:item2vec"],
    _unfit: ["embeddings", "channel:item2vec"],
}


@pytest.mark.parametrize("away", AWAY, ids=lambda each: each.__name__)
def test_without_a_channel_its_values_are_missing_and_ranking_goes_on(tiny: Tiny, away: Any) -> None:
    online = away(tiny)
    answer = tiny.ask(online)
    inputs, _ = sent(answer)
    assert answer.body["degraded"] == AWAY[away]
    model: Any = answer.body["model"]
    assert (model["name"], model["version"]) == ("tiny.ranking", "1")
    assert set(inputs[SCORE].tolist()) == {-1e9}
    assert set(inputs[RANK].tolist()) == {0}
    assert inputs[POPULAR_RANK].max() > 0, "another channel's figures are as before"
    assert answer.body["channels_as_of"] == {"popular": CUTOFF}
    items: Any = answer.body["items"]
    assert [item["item_id"] for item in items] == sorted(item["item_id"] for item in items), "by the item's count alone"


def test_a_channel_that_fails_does_not_take_the_others_along(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(asking_module, "recall_near", fail)
    answer = tiny.ask(tiny.online())
    assert answer.body["degraded"] == ["embeddings", "channel:item2vec"]
    assert answer.body["model"] is not None
    assert set(sent(answer)[0][SCORE].tolist()) == {-1e9}
    assert tiny.ask(tiny.online(READS_NONE)).body["degraded"] == ["embeddings"], "whom it does not concern"


def test_a_channel_that_finds_nothing_is_not_away(tiny: Tiny) -> None:
    tiny.engine.liked = ()
    answer = tiny.ask(tiny.online())
    assert answer.body["degraded"] == []
    assert set(sent(answer)[0][SCORE].tolist()) == {-1e9}
    assert answer.body["channels_as_of"] == {"item2vec": CUTOFF, "popular": CUTOFF}


def test_a_model_that_reads_no_channel_is_told_of_none(tiny: Tiny) -> None:
    tiny.world.publish_snapshot(vectors={})
    body = tiny.ask(tiny.online(READS_NONE)).body
    assert (body["degraded"], body["channels_as_of"]) == ([], {})


def test_a_channel_that_this_code_does_not_know_is_held_to_what_the_snapshot_says(tiny: Tiny) -> None:
    (pair, column) = channels(MOVIELENS)["item2vec"].features[0]
    own = replace(pair, channel="two_tower", definition="abcd1234")
    inputs = tuple(replace(each, pair=own) if each.column == column else each for each in READS.inputs)
    signature = replace(READS, inputs=inputs)
    part = tiny.manifest.parts["item2vec"]
    named = vectors_part("two_tower", "1998-04-01T00:00:00Z", part.path, part.checksum, 32, definition="abcd1234")
    tiny.world.publish_snapshot(more=[named])
    answer = tiny.ask(tiny.online(signature))
    assert answer.body["degraded"] == []
    as_of = {"two_tower": "1998-04-01T00:00:00Z", "item2vec": CUTOFF, "popular": CUTOFF}
    assert answer.body["channels_as_of"] == as_of, "each its own fit's date"
    assert sent(answer)[0][SCORE].max() > 0


def test_a_fitted_table_that_nobody_asks_yet_is_away(tiny: Tiny) -> None:
    (pair, column) = channels(MOVIELENS)["item2vec"].features[0]
    own = replace(pair, channel="ease", definition="abcd1234")
    signature = replace(
        READS, inputs=tuple(replace(each, pair=own) if each.column == column else each for each in READS.inputs)
    )
    table = channel_part("ease", CUTOFF, "", "0" * 64, definition="abcd1234", table="neighbours", half_life_days=0.0)
    tiny.world.publish_snapshot(more=[table])
    assert tiny.ask(tiny.online(signature)).body["degraded"] == ["channel:ease"]


def test_lists_of_a_model_without_its_channel_are_not_measured(tiny: Tiny) -> None:
    assert why_unmeasurable(tiny.online().ranking) == ""
    assert "online is 00000000" in why_unmeasurable(_of_another_definition(tiny).ranking)
    assert why_unmeasurable(RankingOff("no views")) == "no views"


def test_ready_says_why_a_channel_is_away(tiny: Tiny) -> None:
    watcher = Watcher(tiny.settings, tiny.engine, lambda: None)
    watcher.online = _of_another_definition(tiny)
    part = _release_part(watcher)
    assert part.state == "degraded"
    definition = channels(MOVIELENS)["item2vec"].definition
    assert f"channel item2vec: the model was trained on definition {definition}, online is 00000000" in part.detail
    watcher.online = replace(watcher.online, ranking=tiny.online(READS_NONE).ranking)
    assert _release_part(watcher).state == "ok"


def test_warm_up_sends_missing_values(tiny: Tiny) -> None:
    asyncio.run(tiny.engine.try_ranking(tiny.online(), 5, 1))
    assert tiny.server.inputs[SCORE].tolist() == [-1e9] * 5
    assert tiny.server.inputs[RANK].tolist() == [0] * 5


@pytest.mark.parametrize(("stable", "canary"), [(READS, READS), (READS_NONE, READS), (READS, READS_NONE)])
def test_the_canary_gets_what_it_reads_of_the_same_request(tiny: Tiny, stable: Signature, canary: Signature) -> None:
    other = tiny.online(canary).ranking
    assert isinstance(other, RankingPlan)
    online = replace(tiny.online(stable), canary=Canary(replace(other, version=2), (1, 0, 0)))
    answer = tiny.ask(online)
    shadowed = Server()

    async def shadow() -> None:
        shadow = Shadow(shadowed, 1.0, 1.0, Random(1))
        assert answer.sent is not None
        shadow.offer(answer.sent)
        await asyncio.gather(*shadow._flying)

    asyncio.run(shadow())
    assert shadowed.inputs.keys() == {column.name for column in canary.input_columns}
    if canary is READS:
        assert answer.sent is not None
        found = set(answer.sent.answers["item2vec"].positions.tolist())
        expected = {item: cosine for item, cosine in enumerate(cosines()) if item in found}
        values = [expected.get(item, -1e9) for item in answer.sent.positions.tolist()]
        np.testing.assert_allclose(shadowed.inputs[SCORE], values, rtol=1e-4)


def test_a_sampled_request_has_pair_inputs_of_one_row_for_each_candidate(tiny: Tiny, tmp_path: Path) -> None:
    answer = tiny.ask(tiny.online())
    assert answer.sent is not None
    sampler = RequestSampler(tmp_path / "samples", 3, 3600, Random(1))
    sampler.offer(answer.sent)
    asyncio.run(sampler.flush())
    (path,) = (tmp_path / "samples").iterdir()
    (request,) = read_requests(path)
    rows = {name: tensor.tensor_shape.dim[0].size for name, tensor in request.inputs.items()}
    candidates = len(answer.sent.positions)
    assert rows == {each.name: 1 if each.name == "request_time" else candidates for each in READS.input_columns}
    stored = np.frombuffer(request.inputs[SCORE].tensor_content, np.float32)
    np.testing.assert_array_equal(stored, answer.sent.inputs[SCORE])


def test_every_figure_has_a_type_that_the_recommender_sends() -> None:
    dtypes = {column.dtype for channel in channels(MOVIELENS).values() for _, column in channel.features}
    assert dtypes == {Dtype.FLOAT32, Dtype.INT64}
