"""The gates themselves: from scores and checks to a decision. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.manifests import Decision
from models.evaluation.baselines import MEANS
from models.evaluation.metrics import auc, calibration, gauc, log_loss
from models.evaluation.table import BASELINE_ROW, CANDIDATE_ROW, CHAMPION_ROW, UNTRAINED
from models.gates.bootstrap import (
    Interval,
    Statistic,
    auc_statistic,
    gauc_statistic,
    log_loss_statistic,
    percentile_interval,
    resample,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from models.gates.settings import GateSettings

AUC, GAUC, LOG_LOSS = "auc", "gauc", "log_loss"
_METRICS: dict[str, tuple[Callable[..., Statistic], Callable[..., float]]] = {
    AUC: (auc_statistic, lambda labels, scores, _: auc(labels, scores)),
    GAUC: (gauc_statistic, gauc),
    LOG_LOSS: (log_loss_statistic, lambda labels, scores, _: log_loss(labels, scores)),
}


class Outcome(StrEnum):
    """What one gate says."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate's figure against its threshold."""

    name: str
    figure: float | None
    threshold: str
    """Such as `>= 0.003`."""
    verdict: Outcome
    details: str
    """One sentence for a person."""
    interval: tuple[float, float] | None = None
    """The bootstrap interval of the figure."""

    def as_record(self) -> dict[str, Any]:
        """Return what the Verdict and the report hold."""
        record = asdict(self)
        return record | {"verdict": self.verdict.value, "interval": list(self.interval) if self.interval else None}


@dataclass(frozen=True, slots=True)
class TestScores:
    """Scores of the same test rows by candidate, champion and baselines."""

    __test__ = False  # pytest takes every class called Test... for tests

    labels: NDArray[Any]
    users: NDArray[Any]
    scores: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the gates look at beside the scores."""

    model: str
    may_be_champion: bool
    champion_version: str
    incomparable: str
    """Why champion gates do not apply; empty where they do."""
    same_weights: bool
    """Whether candidate and champion have identical weights."""
    signature_differences: list[str]
    serving_check: Mapping[str, Any]
    retired_views: list[str] = field(default_factory=list)
    """Feature views of the champion that are refreshed no more: it cannot rank any longer, so no tie lets it stay."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The gates and the decision that follows from them."""

    gates: list[Gate]
    decision: Decision
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus another, by one metric."""

    difference: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class _Measured:
    figures: dict[tuple[str, str], float]
    """Metric and name → figure."""
    draws: dict[str, NDArray[np.float64]]
    """`<metric>.<name>` → the figure of each resample."""
    confidence: float

    def interval(self, metric: str, name: str) -> Interval:
        return percentile_interval(self.draws[f"{metric}.{name}"], self.confidence)

    def compare(self, metric: str, other: str) -> Comparison:
        return Comparison(
            difference=self.figures[metric, CANDIDATE_ROW] - self.figures[metric, other],
            interval=percentile_interval(
                self.draws[f"{metric}.{CANDIDATE_ROW}"] - self.draws[f"{metric}.{other}"], self.confidence
            ),
        )


def _measure(test: TestScores, settings: GateSettings, seed: int) -> _Measured:
    figures: dict[tuple[str, str], float] = {}
    statistics = {}
    for name, scores in test.scores.items():
        for metric, (statistic, figure) in _METRICS.items():
            if metric == LOG_LOSS and name in UNTRAINED:
                continue
            figures[metric, name] = figure(test.labels, scores, test.users)
            statistics[f"{metric}.{name}"] = statistic(test.labels, scores, test.users)
    draws = resample(statistics, int(test.users.max()) + 1, settings.resamples, seed)
    return _Measured(figures, draws, settings.confidence)


def decide(test: TestScores, evidence: Evidence, settings: GateSettings, seed: int, ece_bins: int) -> Outcomes:
    """Return every gate's verdict and the decision.

    Rejected if any gate fails; a tie if a champion can be compared and the interval of the AUC difference contains 0
    (the champion stays, unless the setting says otherwise, or its feature views are gone); else promoted.
    """
    measured = _measure(test, settings, seed)
    gates = [
        _eligible(evidence),
        _floor(measured, settings),
        *(_against_simple(measured, name, settings) for name in UNTRAINED),
        *(_gauc_against_simple(measured, name, settings) for name in UNTRAINED),
        *_against_lr(measured, settings),
        *_against_champion(measured, evidence, settings),
        *_calibrated(test, settings, ece_bins),
        _signature(evidence),
        *_serving(evidence.serving_check, settings),
    ]
    return _decision(gates, measured, evidence, settings)


def _not_worse(name: str, comparison: Comparison, limit: float, against: str, *, higher_is_better: bool = True) -> Gate:
    """Return a gate that lets the candidate be worse by no more than `limit` (negative: it has to be better)."""
    if higher_is_better:
        passed, threshold = comparison.difference >= -limit, f">= {-limit + 0.0:+.4f}"
    else:
        passed, threshold = comparison.difference <= limit, f"<= {limit:+.4f}"
    low, high = comparison.interval.low, comparison.interval.high
    return Gate(
        name=name,
        figure=_finite(comparison.difference),
        threshold=threshold,
        verdict=Outcome.PASS if passed else Outcome.FAIL,
        details=f"Difference from {against} is {comparison.difference:+.4f}, interval {low:+.4f} to {high:+.4f}.",
        interval=(low, high) if np.isfinite([low, high]).all() else None,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _eligible(evidence: Evidence) -> Gate:
    passed = evidence.may_be_champion
    details = (
        f"{evidence.model} may become champion."
        if passed
        else f"{evidence.model} is a baseline: it is trained to be beaten and can never become champion."
    )
    return Gate("eligible", float(passed), "== 1", Outcome.PASS if passed else Outcome.FAIL, details)


def _floor(measured: _Measured, settings: GateSettings) -> Gate:
    interval = measured.interval(AUC, CANDIDATE_ROW)
    figure = measured.figures[AUC, CANDIDATE_ROW]
    return Gate(
        name="auc_above_chance",
        figure=_finite(interval.low),
        threshold=f">= {settings.min_auc:.4f}",
        verdict=Outcome.PASS if interval.low >= settings.min_auc else Outcome.FAIL,
        details=f"AUC is {figure:.4f}; the lower end of its interval counts. Chance gives 0.5.",
        interval=(interval.low, interval.high) if np.isfinite([interval.low, interval.high]).all() else None,
    )


def _against_simple(measured: _Measured, name: str, settings: GateSettings) -> Gate:
    comparison = measured.compare(AUC, name)
    return _not_worse(f"auc_vs_{name}", comparison, -settings.min_gain_over_simple, f"the {name} baseline")


def _gauc_against_simple(measured: _Measured, name: str, settings: GateSettings) -> Gate:
    comparison = measured.compare(GAUC, name)
    return _not_worse(f"gauc_vs_{name}", comparison, settings.max_gauc_loss_to_simple, f"the {name} baseline")


def _against_lr(measured: _Measured, settings: GateSettings) -> list[Gate]:
    other, name = "logistic regression", BASELINE_ROW
    return [
        _not_worse("auc_vs_lr", measured.compare(AUC, name), settings.max_auc_loss_to_lr, other),
        _not_worse("gauc_vs_lr", measured.compare(GAUC, name), settings.max_gauc_loss_to_lr, other),
        _not_worse(
            "log_loss_vs_lr",
            measured.compare(LOG_LOSS, name),
            settings.max_log_loss_rise_over_lr,
            other,
            higher_is_better=False,
        ),
    ]


def _against_champion(measured: _Measured, evidence: Evidence, settings: GateSettings) -> list[Gate]:
    names = {
        AUC: ("auc_vs_champion", settings.max_auc_loss_to_champion),
        GAUC: ("gauc_vs_champion", settings.max_gauc_loss_to_champion),
        LOG_LOSS: ("log_loss_vs_champion", settings.max_log_loss_rise_over_champion),
    }
    if evidence.incomparable:
        return [
            Gate(
                name=name,
                figure=None,
                threshold=f"<= {limit:+.4f}" if metric == LOG_LOSS else f">= {-limit:+.4f}",
                verdict=Outcome.NOT_APPLICABLE,
                details=evidence.incomparable,
            )
            for metric, (name, limit) in names.items()
        ]
    other = f"champion version {evidence.champion_version}"
    return [
        _not_worse(name, measured.compare(metric, CHAMPION_ROW), limit, other, higher_is_better=metric != LOG_LOSS)
        for metric, (name, limit) in names.items()
    ]


def _calibrated(test: TestScores, settings: GateSettings, bins: int) -> list[Gate]:
    found = calibration(test.labels, test.scores[CANDIDATE_ROW], bins)
    error, ratio = found.expected_calibration_error, found.observed_over_expected
    return [
        Gate(
            "calibration_error",
            _finite(error),
            f"<= {settings.max_ece:.4f}",
            Outcome.PASS if error <= settings.max_ece else Outcome.FAIL,
            f"Over {len(found.rows)} bins, predicted and observed are {error:.4f} apart on average.",
        ),
        Gate(
            "calibration_in_the_large",
            _finite(ratio),
            f"within 1 +- {settings.max_calibration_shift:.2f}",
            Outcome.PASS if abs(ratio - 1) <= settings.max_calibration_shift else Outcome.FAIL,
            f"There are {ratio:.3f} positives for each one predicted.",
        ),
    ]


def _signature(evidence: Evidence) -> Gate:
    differences = evidence.signature_differences
    return Gate(
        "signature",
        float(len(differences)),
        "== 0",
        Outcome.FAIL if differences else Outcome.PASS,
        "; ".join(differences) if differences else "The exported signatures are the contract's.",
    )


def _serving(check: Mapping[str, Any], settings: GateSettings) -> list[Gate]:
    difference, p99 = float(check["max_abs_difference"]), float(check["grpc"]["p99_ms"])
    p50, rest = float(check["grpc"]["p50_ms"]), check["rest"]
    return [
        Gate(
            "served_scores",
            difference,
            f"<= {settings.max_serving_difference:g}",
            Outcome.PASS if difference <= settings.max_serving_difference else Outcome.FAIL,
            f"{check['rows']} rows in {check['requests']} requests through a model server on a private port.",
        ),
        Gate(
            "serving_latency_p99_ms",
            p99,
            f"<= {settings.max_grpc_p99_ms:g}",
            Outcome.PASS if p99 <= settings.max_grpc_p99_ms else Outcome.FAIL,
            f"gRPC p50 {p50:.2f} ms, p99 {p99:.2f} ms; REST p50 {float(rest['p50_ms']):.2f} ms, "
            f"p99 {float(rest['p99_ms']):.2f} ms.",
        ),
    ]


def _decision(gates: list[Gate], measured: _Measured, evidence: Evidence, settings: GateSettings) -> Outcomes:
    failed = [gate for gate in gates if gate.verdict is Outcome.FAIL]
    if failed:
        reason = "Rejected: " + "; ".join(
            f"{gate.name} is {_figure(gate.figure)}, expected {gate.threshold}" for gate in failed
        )
        return Outcomes(gates, Decision.REJECT, f"{reason}.")
    score = measured.figures[AUC, CANDIDATE_ROW]
    over_means = measured.compare(AUC, MEANS).difference
    if evidence.incomparable:
        reason = f"Promoted: every gate passed, AUC {score:.4f} ({over_means:+.4f} over the mean baseline)"
        return Outcomes(gates, Decision.PROMOTE, f"{reason}; {evidence.incomparable}.")
    comparison = measured.compare(AUC, CHAMPION_ROW)
    version = evidence.champion_version
    figures = (
        f"AUC differs from champion version {version} by {comparison.difference:+.4f} "
        f"({comparison.interval.low:+.4f} to {comparison.interval.high:+.4f})"
    )
    worse = comparison.difference < 0
    equal = evidence.same_weights or comparison.interval.contains(0.0)
    if not equal and not worse:
        return Outcomes(gates, Decision.PROMOTE, f"Promoted: every gate passed and {figures}.")
    why = f"{figures}, which shows no difference" if equal else f"{figures}: it is no better"
    if evidence.same_weights:
        why = "its weights are the champion's"
    if evidence.retired_views:
        return Outcomes(gates, Decision.PROMOTE, f"Promoted: every gate passed; {why}, but {_retired(evidence)}.")
    if equal and settings.promote_on_tie:
        return Outcomes(gates, Decision.PROMOTE, f"Promoted on a tie, as KESTREL_GATE_PROMOTE_ON_TIE says: {why}.")
    return Outcomes(
        gates, Decision.TIE, f"{'Tie: every' if equal else 'Every'} gate passed, but {why}; the champion stays."
    )


def _retired(evidence: Evidence) -> str:
    views = ", ".join(evidence.retired_views)
    return f"champion version {evidence.champion_version} cannot rank any longer: it reads {views}, refreshed no more"


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
