"""A small model of a channel's score goes the whole way: fitted, rolled out, asked, recorded, compared, and ranked on.

Only Redis is left out: the recommender's own engine is asked for a user who is given.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from feature_repo.contracts.channels import channels
from feature_repo.contracts.manifests import Release
from feature_repo.contracts.places import Namespace, Serving
from feature_repo.contracts.publishing import write_json
from feature_repo.contracts.schemas import MOVIELENS
from feature_repo.contracts.signatures import RANKING_MODEL, ranking
from serving.protocol.client import AsyncPredictClient
from serving.protocol.recorded import WARMUP_FILE, read_requests
from serving.recommender.engine import Engine
from serving.recommender.request_sampling import RequestSampler
from serving.recommender.settings import Settings
from serving.recommender.shadowing import Shadow
from serving.recommender.user_features import UserFeatures
from serving.recommender.watcher import Watcher
from serving.rollout import canary, compare, publish
from tests.mlflow_server import mlflow_server
from tests.recommender_world import CUTOFF, NAMESPACE, World, item_id, taste_of
from tests.rollout_world import roll_out, serving_model
from tests.serving_world import ModelServer, register
from tests.training_set_fixture import write_training_set

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serving.recommender.engine import Online, SentRequest
    from serving.rollout.serving_model import ServingModel

SCORE = "pair_item2vec_score"
FEATURES = ("ranking", SCORE)
SIGNATURE = ranking(MOVIELENS, FEATURES)
LIKED = tuple(map(item_id, (3, 7, 11)))
CANDIDATES = 200


class OneUser(Engine):
    async def _user(self, *_: object) -> UserFeatures:
        return UserFeatures({"user_last_items": [*LIKED], "user_last_values": [5.0] * 3}, LIKED, known=True, missing=())


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, exported, with its golden requests beside it."""
    from models.dataset import TEST, read_dataset
    from models.evaluation.golden import golden_requests
    from models.export import export
    from models.saved_model_loader import SavedModel
    from models.training.fit import fit
    from tests.small_models import PairScore

    folder = tmp_path_factory.mktemp("model")
    namespace = Namespace(folder, "pairs")
    write_training_set(namespace, "pairs", rows=400, pairs=(SCORE,))
    dataset = read_dataset(namespace.training_sets / "pairs", features=FEATURES)
    export(fit(PairScore(PairScore.config_class()), dataset, 1), dataset.signature, folder / "saved_model")
    loaded = SavedModel(folder / "saved_model")
    golden = golden_requests(loaded, dataset[TEST], dataset.signature, rows=9, users=2, candidates=20, seed=1)
    write_json(folder / "golden.json", golden)
    return folder / "saved_model"


class Platform:
    """Registry, model server and recommender of one namespace."""

    def __init__(self, folder: Path, uri: str, server: ModelServer, saved_model: Path) -> None:
        self.folder, self.uri, self.server, self.saved_model = folder, uri, server, saved_model
        self.world = World(folder / "state")
        self.places = Serving(self.world.state)
        self.settings = Settings(
            state=self.world.state,
            namespace=NAMESPACE,
            recommender_clock="snapshot",
            recommender_candidates=CANDIDATES,
            recommender_ranking_ms=10_000,
        )

    def register(self) -> int:
        golden = self.saved_model.parent / "golden.json"
        return register(self.uri, self.folder / "runs", NAMESPACE, self.saved_model, golden, signature=SIGNATURE)

    @contextlib.contextmanager
    def model(self) -> Iterator[ServingModel]:
        # The rest of it asks only for the registry's address.
        with serving_model(self, self.server, self.world.state, NAMESPACE) as model:  # type: ignore[arg-type]
            yield model

    def recommend(self) -> tuple[dict[str, Any], SentRequest]:
        """Answer one request as the service does, and record it as the service does."""
        return asyncio.run(self._recommend())

    async def _recommend(self) -> tuple[dict[str, Any], SentRequest]:
        predictor = AsyncPredictClient(self.server.address, timeout_s=20)
        engine = OneUser(self.settings, None, predictor)  # type: ignore[arg-type] # Redis is never asked
        watcher = Watcher(self.settings, engine, lambda: None)
        sampler = RequestSampler(self.places.request_samples(NAMESPACE, RANKING_MODEL), 8, 3600, Random(1))
        shadow = Shadow(predictor, 1.0, 20.0, Random(1))
        try:
            await watcher.look()
            online: Online | None = watcher.online
            assert online is not None
            answer = await engine.recommend(online, "u", 100)
            assert answer.sent is not None, answer.body
            sampler.offer(answer.sent)
            shadow.offer(answer.sent)
            await asyncio.gather(*shadow._flying)
            await sampler.flush()
            await shadow.flush(self.places.shadows(NAMESPACE, RANKING_MODEL), NAMESPACE, RANKING_MODEL)
        finally:
            await predictor.close()
        return answer.body, answer.sent


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, saved_model: Path) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    config = Serving(folder / "state").models_config
    config.parent.mkdir(parents=True)
    config.touch()
    with mlflow_server(folder / "mlflow") as uri, ModelServer(folder / "server", config) as server:
        yield Platform(folder, uri, server, saved_model)


def test_a_model_of_a_channel_s_score_goes_the_whole_way(platform: Platform) -> None:
    definition = channels(MOVIELENS)["item2vec"].definition
    with platform.model() as model:
        roll_out(model, platform.register())
        release = Release.read(platform.places.current_release(NAMESPACE))
        assert release.ranker.signature["inputs"][-1]["pair"] == {
            "channel": "item2vec",
            "figure": "score",
            "definition": definition,
        }

        platform.world.publish_snapshot()
        body, sent = platform.recommend()
        scores = sent.inputs[SCORE]
        best = np.argsort(-scores, kind="stable")[scores[np.argsort(-scores, kind="stable")] > 0][:100]
        assert 0 < len(best) < len(scores), "some candidates are another channel's"
        shown = [item["item_id"] for item in body["items"]][: len(best)]
        assert shown == [item_id(place) for place in sent.positions[best].tolist()]
        assert {taste_of(int(item)) for item in shown[:20]} == {3}
        assert (body["degraded"], body["channels_as_of"]) == ([], {"item2vec": CUTOFF})

        second = platform.register()
        publish.publish(model, second)
        (warm_up,) = read_requests(model.version_path(second) / WARMUP_FILE)
        rows = {name: tensor.tensor_shape.dim[0].size for name, tensor in warm_up.inputs.items()}
        assert (rows[SCORE], rows["item_id"], rows["request_time"]) == (len(scores), len(scores), 1)
        canary.canary(model, second)
        platform.recommend()
        result = compare.compare(model, second)
        assert (result["source"], result["errors"], result["shadowed"]) == ("samples", 0, 1)
        assert result["mean_abs_difference"] == 0

        platform.world.publish_snapshot(vectors={})
        body, sent = platform.recommend()
        assert body["degraded"] == ["channel:item2vec"]
        assert body["model"] == {"name": f"{NAMESPACE}.{RANKING_MODEL}", "version": release.ranker.version}
        assert set(sent.inputs[SCORE].tolist()) == {-1e9}
        assert len(body["items"]) == 100
