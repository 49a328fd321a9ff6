"""Figures of a comparison by hand, and what of them is a reason to withdraw the canary."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from serving.protocol.client import predict_request
from serving.protocol.messages import SignatureDefMap
from serving.recommender.settings import Settings as RecommenderSettings
from serving.rollout import compare
from serving.rollout.comparison import Reply, compared, differences, doubt, objection, shadow, side
from serving.rollout.models_config import (
    CANARY,
    configured_versions,
    labels_of,
    promoted_versions,
    read_models_config,
    set_canary,
    set_promoted,
)
from serving.rollout.recorded_requests import fits
from serving.rollout.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def reply(*scores: float, ms: float = 1.0) -> Reply:
    return Reply(ms, np.array(scores, dtype=np.float32))


def test_differences_by_hand() -> None:
    canary = [reply(0.1, 0.2, 0.3), reply(0.5, 0.1), reply(0.4), reply(float("nan")), Reply(1.0, error="refused")]
    stable = [reply(0.2, 0.3, 0.4), reply(0.1, 0.5), reply(0.4), reply(0.5), reply(0.5)]
    found = differences(canary, stable)
    assert (found["requests"], found["scores"]) == (3, 6)
    assert found["mean_abs"] == pytest.approx((3 * 0.1 + 2 * 0.4 + 0) / 6, abs=1e-6)
    assert found["max_abs"] == pytest.approx(0.4)
    assert found["p99_abs"] == pytest.approx(0.4)
    assert found["rank_correlation"] == pytest.approx((1 - 1) / 2), "one item has no order"


def test_a_side_counts_what_failed_and_times_what_did_not() -> None:
    replies = [reply(0.1, ms=float(ms)) for ms in range(1, 101)] + [reply(float("inf")), Reply(900.0, error="refused")]
    found = side(replies)
    assert (found["requests"], found["errors"], found["not_finite"], found["last_error"]) == (102, 2, 1, "refused")
    assert (found["p50_ms"], found["p99_ms"]) == (pytest.approx(50.5), pytest.approx(99.01))


def test_refusals_are_counted_and_are_no_errors() -> None:
    found = side([reply(0.1), Reply(1.0, np.array([0.1], np.float32), refusals=3), Reply(1.0, error="no", refusals=1)])
    assert (found["requests"], found["errors"], found["refusals"]) == (3, 1, 4)


def report(canary: list[Reply], stable: list[Reply] | None, **shadowed: Any) -> dict[str, Any]:
    return {
        "canary": side(canary),
        "stable": side(stable) if stable is not None else None,
        "shadow": shadow([]) | shadowed,
    }


@pytest.mark.parametrize(
    ("canary", "stable", "shadowed", "words"),
    [
        ([reply(0.9, ms=10.0)], [reply(0.1, ms=9.0)], {}, ""),
        ([reply(0.9, ms=10.0)], None, {}, ""),
        ([reply(0.9, ms=10.0)], [reply(0.1, ms=1.0)], {}, ""),
        ([reply(0.9, ms=11.0)], [reply(0.1, ms=1.0)], {}, "its p50 latency is 11.0 ms, the stable version's 1.0 ms"),
        ([reply(0.9, ms=49.0)], [reply(0.1, ms=2.0)], {}, "its p50 latency is 49.0 ms, the stable version's 2.0 ms"),
        ([reply(0.9, ms=49.0)], [reply(0.1, ms=25.0)], {}, ""),
        ([reply(0.9, ms=140.0)], [reply(0.1, ms=100.0)], {}, ""),
        ([reply(0.9, ms=160.0)], [reply(0.1, ms=100.0)], {}, "its p50 latency is 160.0 ms, the stable version's 100.0"),
        ([reply(0.9, ms=190.0)], [reply(0.1, ms=180.0)], {}, ""),
        ([reply(0.9, ms=400.0)], [reply(0.1, ms=180.0)], {}, "its p50 latency"),
        ([reply(0.9, ms=400.0)], None, {}, ""),
        ([reply(0.9)] * 97 + [reply(0.9, ms=49.0)] * 3, [reply(0.1)] * 100, {}, ""),
        ([reply(0.9)] * 98 + [reply(0.9, ms=60.0)] * 2, [reply(0.1)] * 98 + [reply(0.1, ms=31.0)] * 2, {}, ""),
        ([reply(0.9)] * 97 + [reply(0.9, ms=60.0)] * 3, [reply(0.1)] * 100, {}, "its p99 latency is 60.0 ms"),
        ([reply(0.9)] * 9 + [reply(0.9, ms=900.0)], [reply(0.1)] * 10, {}, "its p99 latency"),
        ([reply(0.9), reply(float("nan"))], [reply(0.1)], {}, "it failed 1 of 2 replayed requests"),
        ([reply(0.9), reply(float("nan"))], [reply(0.1), Reply(1.0, error="too slow")], {}, ""),
        (
            [reply(float("nan")), reply(float("nan"))],
            [reply(0.1), Reply(1.0, error="too slow")],
            {},
            "it failed 2 of 2 replayed requests, the limit is a share of 0.5 (the stable version failed 1)",
        ),
        ([reply(float("nan"))], None, {}, "it failed 1 of 1 replayed requests"),
        ([reply(0.9)], [reply(0.1)], {"requests": 50, "errors": 1}, "it failed 1 of 50 shadowed requests"),
        ([reply(0.9)], [reply(0.1)], {"requests": 50, "timeouts": 50}, ""),
    ],
)
def test_errors_and_latency_are_judged_and_scores_are_not(
    canary: list[Reply], stable: list[Reply] | None, shadowed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    reason = objection(report(canary, stable, **shadowed), Settings(state=tmp_path))
    assert reason.startswith(words)
    assert bool(reason) == bool(words)


def test_a_limit_is_a_setting(tmp_path: Path) -> None:
    lenient = {
        "rollout_compare_error_rate": 0.5,
        "rollout_compare_latency_ms": 5000,
        "rollout_compare_p99_ms": 5000,
        "rollout_compare_deadline_share": 1.0,
        "recommender_ranking_ms": 1000,
    }
    found = report([reply(0.9, ms=900.0), reply(float("nan"))], [reply(0.1)])
    assert objection(found, Settings(state=tmp_path, **lenient)) == ""
    for name in lenient:
        less = {other: value for other, value in lenient.items() if other != name}
        assert objection(found, Settings(state=tmp_path, **less)), name


@pytest.mark.parametrize(
    ("canary", "stable", "shadowed", "words"),
    [
        ([reply(0.9)], [reply(0.1)], {}, ""),
        ([reply(0.9)], [reply(0.1)], {"requests": 50, "timeouts": 49}, ""),
        ([reply(0.9)], [reply(0.1)], {"requests": 50, "timeouts": 50}, "of 50 shadowed requests 50 were not answered"),
        ([reply(0.9, ms=149.0)], None, {}, ""),
        ([reply(0.9, ms=151.0)], None, {}, "its p50 latency is 151.0 ms, more than 150.0 ms, the share 0.5 of the rec"),
        ([reply(0.9, ms=190.0)], [reply(0.1, ms=180.0)], {}, "its p50 latency is 190.0 ms, more than 150.0 ms"),
        ([reply(0.9, ms=20.0)], [reply(0.1, ms=180.0)], {}, ""),
        ([reply(float("nan"))], [reply(0.1)], {}, ""),
    ],
)
def test_what_a_busy_machine_may_have_done_is_neither_yes_nor_no(
    canary: list[Reply], stable: list[Reply] | None, shadowed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    found = doubt(report(canary, stable, **shadowed), Settings(state=tmp_path))
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_shadowed_requests_are_asked_for_as_many_as_is_set_where_there_are_any(tmp_path: Path) -> None:
    some = report([reply(0.9)], [reply(0.1)], requests=50, timeouts=1)
    assert doubt(some, Settings(state=tmp_path, rollout_shadow_required=49)) == ""
    assert doubt(some, Settings(state=tmp_path, rollout_shadow_required=50))
    assert doubt(report([reply(0.9)], [reply(0.1)]), Settings(state=tmp_path, rollout_shadow_required=50)) == ""
    none_answered = report([reply(0.9)], [reply(0.1)], requests=50, timeouts=50)
    assert doubt(none_answered, Settings(state=tmp_path, rollout_shadow_required=0)) == ""


def test_the_deadline_is_the_recommenders_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (None, "80"):
        if given:
            monkeypatch.setenv("KESTREL_RECOMMENDER_RANKING_MS", given)
        settings = Settings(state=tmp_path, rollout_compare_deadline_share=0.25)
        assert settings.latency_bound_ms == RecommenderSettings(state=tmp_path).recommender_ranking_ms / 4


@pytest.mark.parametrize(
    ("canary", "stable", "shadowed", "expected"),
    [
        (200, 200, 12, "200 replayed requests, 6 distinct samples, in turns with version 3; 12 shadowed requests"),
        (200, 0, 0, "200 replayed requests, 6 distinct samples, to the canary alone; no shadowed requests"),
        (0, 0, 0, "no replayed requests; no shadowed requests"),
    ],
)
def test_a_result_says_what_was_compared(canary: int, stable: int, shadowed: int, expected: str) -> None:
    found = report([reply(0.9)] * canary, [reply(0.1)] * stable if stable else None, requests=shadowed)
    assert compared(found | {"source": "samples", "distinct": 6, "stable_version": "3"}) == expected


def asked(monkeypatch: pytest.MonkeyPatch, settings: Settings, distinct: int) -> list[tuple[int, int]]:
    """Replay to the versions 2 and 1; return place and version of each call that counts, in order."""
    calls: list[tuple[int, int]] = []

    def ask(_: object, request: int, version: int) -> Reply:
        calls.append((request, version))
        return reply(0.5)

    monkeypatch.setattr(compare, "_ask", ask)
    monkeypatch.setattr(compare, "fits", lambda *_: True)
    model: Any = SimpleNamespace(settings=settings, name="m", server=SimpleNamespace(signatures=lambda *_, **__: {}))
    canary, stable = compare._replay(model, list(range(distinct)), 2, 1)
    counted = calls[2 * min(distinct, 3) :]
    assert len(canary) == len(stable) == len(counted) / 2
    return counted


@pytest.mark.parametrize("distinct", [1, 6, 7, 200])
def test_each_request_goes_to_both_versions_before_the_next_and_to_either_first(
    distinct: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = asked(monkeypatch, Settings(state=tmp_path), distinct)
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    assert len(pairs) == 200
    assert [one[0] for one, _ in pairs] == [number % distinct for number in range(200)]
    assert all(one[0] == other[0] and {one[1], other[1]} == {1, 2} for one, other in pairs)
    assert sum(one[1] == 2 for one, _ in pairs) == 100, "half of the time the canary is first"
    if distinct == 6:
        first = [one[1] for one, _ in pairs if one[0] == 0]
        assert first[:4] == [1, 2, 1, 2], "of each request, too"


def test_slow_requests_are_not_repeated_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(second) for second in range(10_000))
    monkeypatch.setattr(compare.time, "monotonic", lambda: next(clock))
    calls = asked(monkeypatch, Settings(state=tmp_path), 50)
    assert 2 * 50 < len(calls) < 2 * 200
    assert len(asked(monkeypatch, Settings(state=tmp_path), 200)) == 2 * 200, "each is sent once, however slow"
    assert asked(monkeypatch, Settings(state=tmp_path), 0) == []


def test_a_canary_comes_and_goes_without_touching_what_is_promoted(tmp_path: Path) -> None:
    config = read_models_config(tmp_path / "models.config")
    name, base = "mine.ranking", tmp_path
    set_canary(config, name, base, 1)
    assert (labels_of(config, name), promoted_versions(config, name)) == ({CANARY: 1}, frozenset())
    set_promoted(config, name, base, {"stable": 1})
    assert labels_of(config, name) == {"stable": 1}, "what is promoted is no canary any longer"
    set_canary(config, name, base, 2)
    set_promoted(config, name, base, {"stable": 1, "previous": 3})
    assert labels_of(config, name) == {"stable": 1, "previous": 3, CANARY: 2}, "a rollback keeps the canary"
    assert promoted_versions(config, name) == {1, 3}
    set_canary(config, name, base, 3)
    assert promoted_versions(config, name) == {1, 3}, "a canary that is promoted as well stays promoted"
    set_canary(config, name, base, None)
    assert (labels_of(config, name), configured_versions(config, name)) == ({"stable": 1, "previous": 3}, {1, 3})
    set_promoted(config, name, base, {})
    assert not config.model_config_list.config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"a": np.zeros((9, 4), np.float32)}, True),
        ({"a": np.zeros((9, 5), np.float32)}, False),
        ({"a": np.zeros(9, np.float32)}, False),
        ({"a": np.zeros((9, 4), np.int64)}, False),
        ({"b": np.zeros(9, np.float32)}, False),
    ],
)
def test_only_requests_that_fit_the_signature_are_replayed(*, changes: dict[str, Any], expected: bool) -> None:
    signature = SignatureDefMap().signature_def["one_user"]
    signature.inputs["a"].dtype = 1
    for size in (-1, 4):
        signature.inputs["a"].tensor_shape.dim.add().size = size
    signature.outputs["score"].dtype = 1
    inputs = {"a": np.zeros((2, 4), np.float32)} | changes
    request = predict_request("m", inputs, signature_name="one_user", outputs=["score"])
    assert fits(request, {"one_user": signature}) is expected
    assert fits(request, {"serving_default": signature}) is False
    request.output_filter.append("other")
    assert fits(request, {"one_user": signature}) is False
