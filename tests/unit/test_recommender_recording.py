"""What becomes of a ranking request when its answer has gone out: a fair sample, and a shadow nobody waits for."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from feature_repo.contracts.manifests import ShadowSummary
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE
from serving.protocol.client import predict_request
from serving.protocol.errors import CallError, TransientCallError
from serving.protocol.recorded import read_requests
from serving.recommender.engine import Online, SentRequest
from serving.recommender.release import Canary, RankingOff, RankingPlan
from serving.recommender.request_sampling import RequestSampler
from serving.recommender.shadowing import Shadow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ITEMS = np.array([3.0, 1.0, 2.0], dtype=np.float32)


def plan(version: int) -> RankingPlan:
    return RankingPlan("tiny.ranking", version, (), {"item_value_mean": ITEMS})


def sent(number: float = 0.0, canary: int | None = None, mark: int = 1) -> SentRequest:
    """A request whose input tells it from others; the stable version scored 0.5 for each item."""
    candidate = Canary(plan(canary), (mark, 0, 0)) if canary is not None else None
    online = Online(None, None, RankingOff("not asked"), canary=candidate)  # type: ignore[arg-type] # no snapshot is looked at
    inputs = {"number": np.array([number], dtype=np.float32)}
    return SentRequest(online, plan(1), {}, np.arange(3), inputs, np.full(3, 0.5, np.float32), 2.0, datetime.now(UTC))


class Clock:
    now = 7200.0

    def __call__(self) -> float:
        return self.now


def numbers(folder: Path) -> dict[str, list[float]]:
    """File, without its process → the numbers of its requests."""
    return {
        path.name.partition("-")[0]: [
            float(np.frombuffer(request.inputs["number"].tensor_content, np.float32)[0])
            for request in read_requests(path)
        ]
        for path in sorted(folder.glob("*.tfrecord"))
    }


def test_a_sample_is_what_was_sent_in_files_of_a_period_each(tmp_path: Path) -> None:
    clock = Clock()
    sampler = RequestSampler(tmp_path, 3, 3600, Random(1), clock)
    sampler.offer(sent(1))
    asyncio.run(sampler.flush())
    (path,) = tmp_path.iterdir()
    expected = predict_request(
        "tiny.ranking", sent(1).inputs, version=1, signature_name=ONE_USER_SIGNATURE, outputs=("score",)
    )
    assert list(read_requests(path)) == [expected]
    written = path.stat().st_mtime_ns
    asyncio.run(sampler.flush())
    assert path.stat().st_mtime_ns == written, "nothing new, nothing written"
    sampler.offer(sent(2))
    clock.now += 3600
    sampler.offer(sent(3))
    asyncio.run(sampler.flush())
    assert numbers(tmp_path) == {"19700101T020000Z": [1, 2], "19700101T030000Z": [3]}
    clock.now += 24 * 3600
    sampler.offer(sent(4))
    asyncio.run(sampler.flush())
    assert numbers(tmp_path) == {"19700102T030000Z": [4]}, "a day is kept"


def test_every_request_has_the_same_chance_and_the_sample_is_bounded(tmp_path: Path) -> None:
    found: Counter[float] = Counter()
    random = Random(7)
    for _ in range(400):
        sampler = RequestSampler(tmp_path, 5, 3600, random, Clock())
        for number in range(25):
            sampler.offer(sent(number))
        asyncio.run(sampler.flush())
        (kept,) = numbers(tmp_path).values()
        assert len(kept) == len(set(kept)) == 5
        found.update(kept)
    # 80 expected of each; the standard deviation is 8.
    assert set(found) == set(range(25))
    assert all(40 < count < 120 for count in found.values())


def test_none_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    sampler = RequestSampler(tmp_path / "samples", 0, 3600, Random(1))
    sampler.offer(sent(1))
    asyncio.run(sampler.flush())
    assert not (tmp_path / "samples").exists()


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "samples").write_text("a file in the way")
    sampler = RequestSampler(tmp_path / "samples", 5, 3600, Random(1))
    sampler.offer(sent(1))
    asyncio.run(sampler.flush())
    assert "requests cannot be recorded" in caplog.text


class Server:
    """Stands where the model server would be, to answer as late and as badly as a test needs."""

    def __init__(self, answer: Callable[[], Awaitable[Any]]) -> None:
        self.answer = answer
        self.asked: list[int | None] = []

    async def predict(self, *_: Any, version: int | None = None, **__: Any) -> dict[str, Any]:
        self.asked.append(version)
        return {"score": await self.answer()}


async def good() -> Any:
    return np.array([0.5, 0.7, 0.6], np.float32)


def shadowed(tmp_path: Path, server: Server, share: float, offers: list[SentRequest]) -> ShadowSummary | None:
    async def run() -> None:
        shadow = Shadow(server, share, 0.2, Random(3))
        for offer in offers:
            shadow.offer(offer)
            await asyncio.sleep(0.001)
        await asyncio.gather(*shadow._flying)
        await shadow.flush(tmp_path, "tiny", "ranking")
        await shadow.close()

    asyncio.run(run())
    paths = list((tmp_path / "v2").glob("*.json"))
    return ShadowSummary.read(paths[0]) if paths else None


def test_a_share_goes_to_the_canary_and_the_summary_says_what_came_of_it(tmp_path: Path) -> None:
    server = Server(good)
    summary = shadowed(tmp_path, server, 0.25, [sent(canary=2) for _ in range(400)])
    assert summary is not None
    assert 60 < summary.requests < 140
    assert server.asked == [2] * summary.requests
    assert (summary.version, summary.stable_version, summary.errors, summary.timeouts) == ("2", "1", 0, 0)
    assert summary.mean_differences == pytest.approx([0.1] * summary.requests)
    assert summary.max_differences == pytest.approx([0.2] * summary.requests)
    assert summary.stable_ms == [2.0] * summary.requests


@pytest.mark.parametrize("offer", [sent(), sent(canary=2)], ids=["no canary", "no share"])
def test_nothing_is_sent_without_a_canary_or_a_share(tmp_path: Path, offer: SentRequest) -> None:
    server = Server(good)
    assert shadowed(tmp_path, server, 0.0 if offer.online.canary else 1.0, [offer] * 20) is None
    assert server.asked == []


def test_what_is_in_flight_is_bounded_and_the_caller_never_waits(tmp_path: Path) -> None:
    async def never() -> Any:
        await asyncio.sleep(60)

    summary = shadowed(tmp_path, Server(never), 1.0, [sent(canary=2) for _ in range(20)])
    assert summary is not None
    assert (summary.requests, summary.timeouts, summary.errors, summary.left_out) == (4, 4, 0, 16)


def failing(error: Exception) -> Callable[[], Awaitable[Any]]:
    async def fail() -> Any:
        raise error

    return fail


async def not_finite() -> Any:
    return np.array([0.5, np.nan, 0.6], np.float32)


@pytest.mark.parametrize(
    ("answer", "errors", "timeouts"),
    [
        (failing(CallError("refused", grpc.StatusCode.INVALID_ARGUMENT, "")), 1, 0),
        (failing(TransientCallError("away", grpc.StatusCode.UNAVAILABLE, "")), 0, 1),
        (not_finite, 1, 0),
    ],
    ids=["refused", "away", "not finite"],
)
def test_failures_of_the_canary_are_counted_and_named(
    tmp_path: Path, answer: Callable[[], Awaitable[Any]], errors: int, timeouts: int
) -> None:
    summary = shadowed(tmp_path, Server(answer), 1.0, [sent(canary=2)])
    assert summary is not None
    assert (summary.requests, summary.errors, summary.timeouts) == (1, errors, timeouts)
    assert summary.last_error
    assert summary.canary_ms == []


def test_another_comparison_starts_to_count_anew(tmp_path: Path) -> None:
    offers = [sent(canary=2, mark=1)] * 5 + [sent(canary=2, mark=2)] * 2
    summary = shadowed(tmp_path, Server(good), 1.0, offers)
    assert summary is not None
    assert summary.requests == 2
