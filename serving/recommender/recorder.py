"""What becomes of a ranking request when its answer has gone out: it may be sampled, and sent to the canary."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING

from feature_repo.contracts.places import Serving
from feature_repo.contracts.signatures import RANKING_MODEL
from serving.recommender.request_sampling import RequestSampler
from serving.recommender.shadowing import Shadow

if TYPE_CHECKING:
    from serving.recommender.engine import SentRequest
    from serving.recommender.ranking import Predictor
    from serving.recommender.settings import Settings

_log = logging.getLogger(__name__)


class Recorder:
    """Hands requests on to the sampler and the shadow, and has them write down what they have."""

    def __init__(self, settings: Settings, predictor: Predictor) -> None:
        random = Random()  # noqa: S311 - a fair choice, no secret
        self._settings = settings
        places = Serving(settings.state)
        self._shadows = places.shadows(settings.namespace, RANKING_MODEL)
        self._sampler = RequestSampler(
            places.request_samples(settings.namespace, RANKING_MODEL),
            settings.recommender_sampled_requests,
            settings.recommender_sample_seconds,
            random,
        )
        self._shadow = Shadow(predictor, settings.shadow_share, settings.recommender_ranking_ms / 1000, random)

    async def take(self, sent: SentRequest) -> None:
        """Take a request whose answer has gone out. A coroutine, so that it runs in the event loop."""
        self._sampler.offer(sent)
        self._shadow.offer(sent)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(self._settings.recommender_record_seconds)
            await self._flush()

    async def close(self) -> None:
        """End what is in flight and write the rest."""
        await self._shadow.close()
        await self._flush()

    async def _flush(self) -> None:
        try:
            await self._sampler.flush()
            await self._shadow.flush(self._shadows, self._settings.namespace, RANKING_MODEL)
        except Exception:  # noqa: BLE001 - records are for later, requests are for now
            _log.exception("what was recorded cannot be written")
