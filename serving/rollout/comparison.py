"""Figures of two versions that answered the same requests, and what of them is a reason to withdraw the new one.

Scores of a new model may differ from the old one's by design, so differences are reported and never judged. Errors,
scores that are not finite, and latency are judged, beside those of the stable version. A server that had no thread for
a request says nothing of the version: such refusals are counted and not judged. Nor does a machine on which both
versions are slow, or shadowed requests that nobody answered in time: that is a doubt, and neither yes nor no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from feature_repo.contracts.manifests import ShadowSummary
    from serving.rollout.settings import Settings

Figures = dict[str, Any]
"""What a report holds: numbers, None where there is nothing to say, texts."""
_P50, _P99 = 50, 99


@dataclass(frozen=True, slots=True)
class Reply:
    """What one version made of one request."""

    ms: float
    scores: NDArray[Any] | None = None
    """`[num_candidates]`; None where the call failed."""
    error: str = ""
    refusals: int = 0
    """How often the server had no thread for the request before this reply."""

    @property
    def fault(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.scores is None:
            return self.error
        return "" if np.isfinite(self.scores).all() else "a score is not finite"


def side(replies: Sequence[Reply]) -> Figures:
    """Return requests, errors, refusals, and latency in milliseconds of one version."""
    faults = [reply.fault for reply in replies if reply.fault]
    return {
        "requests": len(replies),
        "errors": len(faults),
        "not_finite": sum(bool(reply.fault) and reply.scores is not None for reply in replies),
        "last_error": faults[-1] if faults else "",
        "refusals": sum(reply.refusals for reply in replies),
        **_latency([reply.ms for reply in replies if not reply.fault]),
    }


def differences(canary: Sequence[Reply], stable: Sequence[Reply]) -> Figures:
    """Return how the scores of two versions differ, over the requests that both answered well.

    `rank_correlation` is Spearman's within a request, averaged over the requests in which there is an order.
    """
    both = ((_flat(one), _flat(other)) for one, other in zip(canary, stable, strict=True))
    pairs = [(one, other) for one, other in both if one.size and one.size == other.size]
    absolute = np.concatenate([np.abs(one - other) for one, other in pairs]) if pairs else np.empty(0)
    correlations = [correlation for one, other in pairs if (correlation := _rank_correlation(one, other)) is not None]
    return {
        "requests": len(pairs),
        "scores": int(absolute.size),
        "mean_abs": _mean(absolute),
        "p99_abs": _percentile(absolute, _P99),
        "max_abs": float(absolute.max()) if absolute.size else None,
        "rank_correlation": _mean(correlations),
    }


def shadow(summaries: Sequence[ShadowSummary]) -> Figures:
    """Return what all recommenders together saw of the canary."""
    canary_ms = [ms for one in summaries for ms in one.canary_ms]
    stable_ms = [ms for one in summaries for ms in one.stable_ms]
    faults = [one.last_error for one in summaries if one.last_error]
    return {
        "requests": sum(one.requests for one in summaries),
        "errors": sum(one.errors for one in summaries),
        "timeouts": sum(one.timeouts for one in summaries),
        "left_out": sum(one.left_out for one in summaries),
        "last_error": faults[-1] if faults else "",
        "canary": _latency(canary_ms),
        "stable": _latency(stable_ms),
        "mean_abs": _mean([one for summary in summaries for one in summary.mean_differences]),
        "max_abs": max((one for summary in summaries for one in summary.max_differences), default=None),
    }


def objection(report: Mapping[str, Any], settings: Settings) -> str:
    """Return why the canary must not be promoted, in one sentence; empty if it may be."""
    # Recommenders shadow what the stable version answered, so there it has no errors to compare with.
    for what, figures, stable in (
        ("replayed", report["canary"], report["stable"]),
        ("shadowed", report["shadow"], None),
    ):
        limit = max(settings.rollout_compare_error_rate, _error_share(stable))
        if _error_share(figures) > limit:
            return (
                f"it failed {figures['errors']} of {figures['requests']} {what} requests, the limit is a share of "
                f"{limit:g}{_of_stable(stable)}; the last: {figures['last_error']}"
            )
    if report["stable"] is None:
        return ""
    for name in ("p50_ms", "p99_ms"):
        canary, stable = report["canary"][name], report["stable"][name]
        if canary is None or stable is None:
            continue
        limit = _latency_limit(name, stable, settings)
        if canary > limit:
            return (
                f"its {name.removesuffix('_ms')} latency is {canary:.1f} ms, the stable version's {stable:.1f} ms, the "
                f"limit {limit:.1f} ms"
            )
    return ""


def doubt(report: Mapping[str, Any], settings: Settings) -> str:
    """Return why nothing can be said of a canary to which there is no objection; empty if it may be promoted."""
    if unanswered(report["shadow"], settings):
        return (
            f"of {report['shadow']['requests']} shadowed requests {report['shadow']['timeouts']} were not answered in "
            f"time, and KESTREL_ROLLOUT_SHADOW_REQUIRED asks for {settings.rollout_shadow_required} that were"
        )
    p50 = report["canary"]["p50_ms"]
    if p50 is not None and p50 > settings.latency_bound_ms:
        return (
            f"its p50 latency is {p50:.1f} ms, more than {settings.latency_bound_ms:.1f} ms, the share "
            f"{settings.rollout_compare_deadline_share:g} of the recommender's deadline, and no faster stable version "
            "shows that this is not the machine"
        )
    return ""


def unanswered(shadow: Figures, settings: Settings) -> bool:
    """Tell whether recommenders sent the canary requests, and too few of them were answered."""
    sent, answered = shadow["requests"], shadow["requests"] - shadow["timeouts"]
    return bool(sent) and answered < settings.rollout_shadow_required


def compared(report: Mapping[str, Any]) -> str:
    """Return what a comparison stands on, in one sentence."""
    replayed, shadowed = report["canary"]["requests"], report["shadow"]["requests"]
    beside = f"in turns with version {report['stable_version']}" if report["stable"] else "to the canary alone"
    said = f"{replayed} replayed requests, {report['distinct']} distinct {report['source']}, {beside}"
    return f"{said if replayed else 'no replayed requests'}; {shadowed or 'no'} shadowed requests"


def _latency_limit(name: str, stable: float, settings: Settings) -> float:
    """Return the canary's limit in milliseconds.

    The median moves when half of the requests do, so a low floor is sound for it. p99 is moved by the third slowest of
    200 requests, which a busy machine may well make slow on one side alone.
    """
    limit = settings.rollout_compare_latency_ratio * stable
    if name == "p99_ms":
        return max(limit, settings.rollout_compare_p99_ms)
    limit = max(limit, settings.rollout_compare_latency_ms)
    return min(limit, settings.latency_bound_ms) if stable <= settings.latency_bound_ms else limit


def _error_share(figures: Figures | None) -> float:
    return figures["errors"] / figures["requests"] if figures and figures["requests"] else 0.0


def _of_stable(stable: Figures | None) -> str:
    return f" (the stable version failed {stable['errors']})" if stable and stable["errors"] else ""


def _flat(reply: Reply) -> NDArray[Any]:
    scores = np.empty(0) if reply.fault or reply.scores is None else reply.scores
    return np.asarray(scores, dtype=np.float64).ravel()


def _latency(milliseconds: Sequence[float]) -> Figures:
    return {"p50_ms": _percentile(milliseconds, _P50), "p99_ms": _percentile(milliseconds, _P99)}


def _percentile(values: Sequence[float] | NDArray[Any], percent: int) -> float | None:
    return round(float(np.percentile(values, percent)), 6) if len(values) else None


def _mean(values: Sequence[float] | NDArray[Any]) -> float | None:
    return round(float(np.mean(values)), 6) if len(values) else None


def _rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    if min(np.ptp(one), np.ptp(other)) == 0:
        return None
    from scipy.stats import spearmanr  # noqa: PLC0415 - takes a second

    return float(spearmanr(one, other).statistic)
