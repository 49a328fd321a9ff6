"""Sends recorded requests to the canary and to the stable version, and withdraws a canary that fails or is too slow.

Both get the same requests in turns, each of them several times where few were recorded: a latency is a figure of many.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc

from feature_repo.contracts.manifests import ShadowSummary
from feature_repo.contracts.publishing import CorruptRecordError, read_json, write_json
from serving.protocol.client import busy_pause
from serving.protocol.errors import BusyServerError, CallError
from serving.protocol.golden import OUTPUT
from serving.rollout import candidate
from serving.rollout.admission import require_number
from serving.rollout.comparison import Reply, compared, differences, doubt, objection, shadow, side, unanswered
from serving.rollout.errors import RolloutError, UndecidedCanaryError, WorseCanaryError
from serving.rollout.recorded_requests import fits, recorded_requests
from serving.rollout.switching import at_work
from serving.rollout.verdict import gated_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from feature_repo.contracts.manifests import Part, Release
    from serving.rollout.registry import RegisteredVersion
    from serving.rollout.serving_model import ServingModel

log = logging.getLogger(__name__)

COMPARISON_TAG = "kestrel.comparison"
COMPARISON_ARTIFACT = "rollout/comparison.json"
_WARM_UP = 3
"""Requests to each side that are not counted."""
_LOOK_S = 0.25
_BUSY_S = 10.0
"""How long one request is sent again to a server that has no thread for it."""
_REPEAT_S = 60.0
"""For how long requests are sent more than once; the model's lock is held meanwhile, and a rollback waits."""


def compare(model: ServingModel, version: int) -> dict[str, object]:
    """Compare the canary with the stable version; the report lies beside the release and in the MLflow run.

    Raises:
        WorseCanaryError: It fails requests or is too slow; it is withdrawn, the champion keeps serving.
        RolloutError: The version is no canary.
        UndecidedCanaryError: Too little was found out; it stays the canary.
        TransientCallError: The server is away, or too busy to be measured.
    """
    _wait_for_shadows(model, version)
    with at_work(model):
        current = model.current()
        registered = gated_version(model, version)
        if current is not None and current.version == str(version):
            require_number(model, registered)
            nothing = {"requests": 0, "source": "in force already", "compared": "nothing: it is in force already"}
            return {"model": model.name, "version": str(version), **nothing}
        canary = _canary_release(model, version)
        if not registered.is_of(canary.parts[model.part]):
            raise _another(model, registered, canary.parts[model.part])
        if not candidate.is_available(model, version):
            candidate.label_canary(model, canary)
        report = _measure(model, registered, current)
        reason = objection(report, model.settings)
        if not reason and (unknown := doubt(report, model.settings)):
            raise _undecided(model, version, unknown)
        _keep(model, registered, report | {"passed": not reason, "reason": reason})
        if reason:
            candidate.withdraw(model, version)
            raise _worse(model, version, reason)
    return {
        "model": model.name,
        "version": str(version),
        "requests": report["canary"]["requests"],
        "source": report["source"],
        "distinct": report["distinct"],
        "compared": report["compared"],
        "errors": report["canary"]["errors"],
        "refusals": report["canary"]["refusals"],
        "p50_ms": report["canary"]["p50_ms"],
        "p99_ms": report["canary"]["p99_ms"],
        "mean_abs_difference": report["differences"] and report["differences"]["mean_abs"],
        "rank_correlation": report["differences"] and report["differences"]["rank_correlation"],
        "shadowed": report["shadow"]["requests"],
    }


def _canary_release(model: ServingModel, version: int) -> Release:
    release, part = model.canary_release(), model.canary()
    if release is not None and part is not None and part.version == str(version):
        return release
    try:
        earlier = read_json(
            model.comparison_path(version), f"remove it, and run {model.command('canary')} with version {version} again"
        )
    except FileNotFoundError:
        earlier = {}
    if earlier.get("reason"):  # withdrawn by a comparison that was killed before it could say so
        raise _worse(model, version, str(earlier["reason"]))
    msg = (
        f"{model.name}: expected version {version} to be the canary, found {part and part.version}; "
        f"{model.command('canary', f'--version {version}')} makes it one"
    )
    raise RolloutError(msg)


def _worse(model: ServingModel, version: int, reason: str) -> WorseCanaryError:
    return WorseCanaryError(
        f"{model.name} version {version}: as a canary {reason}; it is withdrawn, {model.meanwhile}: see "
        f"{model.comparison_path(version)}"
    )


def _undecided(model: ServingModel, version: int, unknown: str) -> UndecidedCanaryError:
    return UndecidedCanaryError(
        f"{model.name} version {version}: as a canary {unknown}; it stays the canary, and {model.meanwhile}: compare "
        f"again when the machine is less busy, or end it with "
        f"{model.command('withdraw', f'--version {version}')}"
    )


def _another(model: ServingModel, registered: RegisteredVersion, canary: Part) -> RolloutError:
    return RolloutError(
        f"{model.name} version {canary.version}: expected run {canary.run_id}, the canary, found run "
        f"{registered.run_id} in the registry, which was begun anew; "
        f"{model.command('canary', f'--version {canary.version}')} makes that one the canary"
    )


def _measure(model: ServingModel, registered: RegisteredVersion, current: Part | None) -> dict[str, Any]:
    version = registered.version
    stable = int(current.version) if current is not None else None
    recorded = recorded_requests(
        model, registered, model.server.signatures(model.name, version=version), model.settings.rollout_compare_requests
    )
    canary_replies, stable_replies = _replay(model, recorded.requests, version, stable)
    once = len(recorded.requests)
    report = {
        "model": model.name,
        "version": str(version),
        "run_id": registered.run_id,
        "stable_version": current.version if current is not None else None,
        "source": recorded.source,
        "distinct": once,
        "canary": side(canary_replies),
        "stable": side(stable_replies) if stable_replies else None,
        "differences": differences(canary_replies[:once], stable_replies[:once]) if stable_replies else None,
        "shadow": shadow(_shadows(model, version)),
    }
    return report | {"compared": compared(report)}


def _replay(
    model: ServingModel, requests: Sequence[Any], version: int, stable: int | None
) -> tuple[list[Reply], list[Reply]]:
    """Ask both in turns: what slows the machine down slows both. A stable version of other inputs is left out."""
    if stable is not None:
        signatures = model.server.signatures(model.name, version=stable)
        if not all(fits(request, signatures) for request in requests):
            log.warning("%s version %d does not take the inputs of version %d", model.name, stable, version)
            stable = None
    sides = [version] if stable is None else [version, stable]
    for request in requests[:_WARM_UP]:
        for one in sides:
            _ask(model, request, one)
    replies: dict[int, list[Reply]] = {one: [] for one in sides}
    end = time.monotonic() + _REPEAT_S
    for turn, place in _turns(len(requests), model.settings.rollout_compare_requests):
        if turn and time.monotonic() > end:
            break
        for one in sides if (turn + place) % 2 else reversed(sides):
            replies[one].append(_ask(model, requests[place], one))
    return replies[version], replies[stable] if stable is not None else []


def _turns(distinct: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield turn and place of `count` requests of which so many are distinct: all of them, then all again."""
    return (divmod(number, distinct) for number in range(count if distinct else 0))


def _ask(model: ServingModel, request: Any, version: int) -> Reply:  # noqa: ANN401 - a message class made at run time
    """Ask until the server has a thread for it: a refusal says nothing of the version, so it is counted by itself.

    Raises:
        TransientCallError: The server is away, or has had no thread for `_BUSY_S` seconds.
    """
    request.model_spec.version.value = version
    refusals, deadline = 0, time.monotonic() + _BUSY_S
    while True:
        try:
            return dataclasses.replace(_reply(model, request), refusals=refusals)
        except BusyServerError:
            if time.monotonic() >= deadline:
                raise
            refusals += 1
            time.sleep(busy_pause())


def _reply(model: ServingModel, request: Any) -> Reply:  # noqa: ANN401 - a message class made at run time
    start = time.perf_counter()
    try:
        outputs = model.predictions.send(request, timeout_s=model.settings.rollout_compare_call_seconds, busy_s=0)
    except CallError as error:
        if isinstance(error, BusyServerError) or error.code is grpc.StatusCode.UNAVAILABLE:
            raise  # the server is busy or away: that says nothing of the version
        return Reply((time.perf_counter() - start) * 1000, error=str(error))
    milliseconds = (time.perf_counter() - start) * 1000
    if OUTPUT not in outputs:
        return Reply(milliseconds, error=f"expected the output {OUTPUT}, received {sorted(outputs)}")
    return Reply(milliseconds, outputs[OUTPUT])


def _wait_for_shadows(model: ServingModel, version: int) -> None:
    """Wait for shadowed requests, if so set; without the lock, so that a rollback need not wait as well."""
    wanted, seconds = model.settings.rollout_shadow_requests, model.settings.rollout_shadow_seconds
    deadline = time.monotonic() + seconds
    # Without a version in force nobody ranks, and nobody shadows.
    while model.current() is not None and model.canary_release() is not None:
        seen = shadow(_shadows(model, version))
        if seen["requests"] >= wanted and not unanswered(seen, model.settings):
            return
        if time.monotonic() >= deadline:
            log.warning(
                "%s version %d: %d shadowed requests, %d of them not answered in time, within %g s, waited for %d",
                *(model.name, version, seen["requests"], seen["timeouts"], seconds, wanted),
            )
            return
        time.sleep(_LOOK_S)


def _shadows(model: ServingModel, version: int) -> list[ShadowSummary]:
    """Return what every recommender saw of this canary beside the version in force."""
    current = model.current()
    found = []
    for path in sorted(model.shadows_path(version).glob("[!.]*.json")):
        try:
            summary = ShadowSummary.read(path)
        except (CorruptRecordError, FileNotFoundError) as error:
            log.warning("a recommender's figures are left out: %s", error)
            continue
        if current is not None and summary.stable_version == current.version:
            found.append(summary)
    return found


def _keep(model: ServingModel, registered: RegisteredVersion, report: dict[str, Any]) -> None:
    write_json(model.comparison_path(registered.version), report)
    model.registry.keep_record(registered.run_id, COMPARISON_ARTIFACT, report)
    said = f"failed: {report['reason']}" if report["reason"] else "passed"
    model.registry.set_tag(model.name, registered.version, COMPARISON_TAG, said)
