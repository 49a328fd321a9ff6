"""Sends a share of the ranking requests to the canary, too, when their answers have gone out. Nobody sees its scores.

What came of it is written to the state folder, where `python -m serving.rollout compare` reads it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.manifests import ShadowSummary
from feature_repo.feast_redis import StoredValueError
from serving.protocol.errors import TransientCallError
from serving.recommender.errors import RankingError
from serving.recommender.ranking import Predictor, ranking_inputs, score
from serving.recommender.request_sampling import process_name

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from numpy.typing import NDArray

    from serving.recommender.engine import SentRequest
    from serving.recommender.release import Canary, RankingPlan

_log = logging.getLogger(__name__)

_IN_FLIGHT = 4
"""More than so many unanswered requests to the canary, and the next are left out."""
_FIGURES_KEPT = 1000


def _figures() -> deque[float]:
    return deque(maxlen=_FIGURES_KEPT)


@dataclass(slots=True)
class _Tally:
    """What one canary did so far."""

    canary: Canary
    stable_version: int
    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    left_out: int = 0
    last_error: str = ""
    canary_ms: deque[float] = field(default_factory=_figures)
    stable_ms: deque[float] = field(default_factory=_figures)
    mean_differences: deque[float] = field(default_factory=_figures)
    max_differences: deque[float] = field(default_factory=_figures)
    changed: bool = False

    def summary(self, namespace: str, model: str) -> ShadowSummary:
        return ShadowSummary(
            namespace=namespace,
            model=model,
            version=str(self.canary.plan.version),
            stable_version=str(self.stable_version),
            requests=self.requests,
            errors=self.errors,
            timeouts=self.timeouts,
            left_out=self.left_out,
            last_error=self.last_error,
            canary_ms=list(self.canary_ms),
            stable_ms=list(self.stable_ms),
            mean_differences=list(self.mean_differences),
            max_differences=list(self.max_differences),
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
        )


class Shadow:
    """Asks the canary what it would have answered.

    Args:
        predictor: The model server.
        share: Of the ranking requests, between 0 and 1.
        timeout_s: How long the canary may take, in seconds.
        random: Chooses.
    """

    def __init__(self, predictor: Predictor, share: float, timeout_s: float, random: Random) -> None:
        self._predictor, self._share, self._timeout_s, self._random = predictor, share, timeout_s, random
        self._flying: set[asyncio.Task[None]] = set()
        self._tally: _Tally | None = None

    def offer(self, sent: SentRequest) -> None:
        """Send a request that was answered to the canary, perhaps; returns at once."""
        canary = sent.online.canary
        if canary is None or sent.scores is None or self._random.random() >= self._share:
            return
        tally = self._tally_of(canary, sent.plan.version)
        if len(self._flying) >= _IN_FLIGHT:
            tally.left_out += 1
            tally.changed = True
            return
        task = asyncio.create_task(self._send(canary.plan, sent, sent.scores, tally))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def flush(self, folder: Path, namespace: str, model: str) -> None:
        """Write the summary if it has changed, as `<folder>/v<version>/<process>.json`."""
        tally = self._tally
        if tally is None or not tally.changed:
            return
        tally.changed = False
        summary = tally.summary(namespace, model)
        path = folder / f"v{summary.version}" / f"{process_name()}.json"
        try:
            await asyncio.to_thread(summary.write, path)
        except OSError as error:
            _log.warning("the canary's figures cannot be written to %s: %s", path, error)

    async def close(self) -> None:
        """End what is in flight."""
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)

    def _tally_of(self, canary: Canary, stable_version: int) -> _Tally:
        tally = self._tally
        if tally is None or (tally.canary.mark, tally.stable_version) != (canary.mark, stable_version):
            tally = self._tally = _Tally(canary, stable_version)
        return tally

    async def _send(
        self, plan: RankingPlan, sent: SentRequest, stable_scores: NDArray[np.float32], tally: _Tally
    ) -> None:
        start = time.perf_counter()
        try:
            inputs = ranking_inputs(plan, sent.user, sent.positions, sent.now, sent.answers)
            scores = await score(self._predictor, plan, inputs, len(sent.positions), self._timeout_s)
        except RankingError as error:
            if isinstance(error.__cause__, TimeoutError | TransientCallError):
                tally.timeouts += 1
            else:
                tally.errors += 1
            tally.last_error = str(error)
        except StoredValueError as error:
            _log.info("not shadowed: %s", error)
            return
        else:
            tally.canary_ms.append(round((time.perf_counter() - start) * 1000, 3))
            tally.stable_ms.append(round(sent.took_ms, 3))
            differences = np.abs(scores.astype(np.float64) - stable_scores)
            tally.mean_differences.append(float(differences.mean()))
            tally.max_differences.append(float(differences.max()))
        tally.requests += 1
        tally.changed = True
