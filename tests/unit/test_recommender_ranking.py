"""What a request's ranking does when the model server has no thread for it: once more, within its deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from serving.protocol.errors import BusyServerError
from serving.recommender.errors import RankingError
from serving.recommender.ranking import score
from serving.recommender.release import RankingPlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAN = RankingPlan("tiny.ranking", 1, (), {"item_value_mean": np.ones(2, np.float32)})
SCORES = np.array([0.25, 0.5], np.float32)


class Busy:
    """A model server that refuses its first calls, and answers the rest after `delay_s` seconds."""

    def __init__(self, refusals: int, delay_s: float = 0.0) -> None:
        self.refusals, self.delay_s, self.calls = refusals, delay_s, 0

    async def predict(self, *_: Any, **__: Any) -> dict[str, NDArray[Any]]:
        self.calls += 1
        if self.calls <= self.refusals:
            msg = "no thread for it"
            raise BusyServerError(msg, grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        await asyncio.sleep(self.delay_s)
        return {"score": SCORES}


def scores(server: Busy, timeout_s: float = 30.0) -> NDArray[np.float32]:
    return asyncio.run(score(server, PLAN, {}, len(SCORES), timeout_s))


@pytest.mark.parametrize("refusals", [0, 1])
def test_a_refused_request_is_sent_once_more(refusals: int) -> None:
    server = Busy(refusals)
    np.testing.assert_array_equal(scores(server), SCORES)
    assert server.calls == refusals + 1


def test_and_no_more_than_once() -> None:
    server = Busy(5)
    with pytest.raises(RankingError, match="no thread for it"):
        scores(server)
    assert server.calls == 2


def test_the_second_try_has_no_deadline_of_its_own() -> None:
    server = Busy(1, delay_s=60)
    with pytest.raises(RankingError, match="expected scores within 500 ms"):
        scores(server, timeout_s=0.5)
    assert server.calls == 2
