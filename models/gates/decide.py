"""The gates themselves: from scores and checks to a decision. Pure.

A comparison is judged by its interval. Where that lies across the margin, or there are too few users for one, the gate
is undecided: then the champion stays, and where there is none the figure itself has to be on the right side of 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.manifests import Decision
from feature_repo.contracts.objectives import ORDERS, Metric
from models.evaluation.metrics import auc, calibration, gauc, log_loss, rmse
from models.evaluation.table import CANDIDATE_ROW, CHAMPION_ROW, CHANCE, MEANS
from models.gates.bootstrap import (
    Interval,
    Statistic,
    auc_statistic,
    gauc_statistic,
    log_loss_statistic,
    percentile_interval,
    resample,
    rmse_statistic,
)
from models.gates.margins import Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from feature_repo.contracts.objectives import Objective
    from models.gates.margins import Limits, Margin, Margins

_METRICS: dict[Metric, tuple[Callable[..., Statistic], Callable[..., float]]] = {
    Metric.AUC: (auc_statistic, lambda labels, scores, _: auc(labels, scores)),
    Metric.GAUC: (gauc_statistic, gauc),
    Metric.LOG_LOSS: (log_loss_statistic, lambda labels, scores, _: log_loss(labels, scores)),
    Metric.RMSE: (rmse_statistic, lambda values, scores, _: rmse(values, scores)),
}
"""Metric → its figure in each resample, and its figure; both of labels, or of values, scores and users."""
_TITLES = {Metric.AUC: "AUC", Metric.GAUC: "GAUC", Metric.LOG_LOSS: "Log loss", Metric.RMSE: "RMSE"}
_CHANCE = 0.5
"""AUC and GAUC of scores that know nothing."""


class Outcome(StrEnum):
    """What one gate says."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    UNDECIDED = "undecided"
    """The interval lies across the margin, or there are too few users for one."""
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
    reference: str = ""
    """What it compares the candidate with; empty if it does not compare."""

    def as_record(self) -> dict[str, Any]:
        """Return what the Verdict and the report hold."""
        record = asdict(self)
        return record | {"verdict": self.verdict.value, "interval": list(self.interval) if self.interval else None}


@dataclass(frozen=True, slots=True)
class TestScores:
    """Scores of the same test rows by candidate, champion and baselines."""

    __test__ = False  # pytest takes every class called Test... for tests

    labels: NDArray[Any]
    values: NDArray[Any]
    users: NDArray[Any]
    scores: Mapping[str, NDArray[Any]]
    objectives: Mapping[str, Objective]
    """Of each that was trained; the others' scores only order rows."""

    def defined(self, name: str) -> Collection[str]:
        """Return the metrics that somebody's scores have."""
        return self.objectives[name].metrics if name in self.objectives else ORDERS


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
    unregistered: bool = False
    """Whether the registry has the champion no longer: then no tie lets it stay, either."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The gates and the decision that follows from them."""

    gates: list[Gate]
    decision: Decision
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus another by one metric, turned so that more is better."""

    difference: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class _Measured:
    """One slice, measured."""

    figures: dict[tuple[Metric, str], float]
    """Metric and name → figure."""
    draws: dict[str, NDArray[np.float64]]
    """`<metric>.<name>` → the figure of each resample."""
    users: int

    def compare(self, metric: Metric, reference: str, confidence: float) -> Comparison:
        figure, drawn = self.figures[metric, CANDIDATE_ROW], self.draws[f"{metric}.{CANDIDATE_ROW}"]
        if reference == CHANCE:
            return Comparison(figure - _CHANCE, percentile_interval(drawn - _CHANCE, confidence))
        difference = metric.sign * (figure - self.figures[metric, reference])
        drawn_differences = metric.sign * (drawn - self.draws[f"{metric}.{reference}"])
        return Comparison(difference, percentile_interval(drawn_differences, confidence))

    def has(self, metric: Metric, reference: str) -> bool:
        return reference == CHANCE or (metric, reference) in self.figures


def _measure(test: TestScores, margins: Margins, seed: int) -> _Measured:
    figures: dict[tuple[Metric, str], float] = {}
    statistics = {}
    for name, scores in test.scores.items():
        for metric in (metric for metric in _METRICS if metric in test.defined(name)):
            statistic, figure = _METRICS[metric]
            truth = test.values if metric is Metric.RMSE else test.labels
            figures[metric, name] = figure(truth, scores, test.users)
            statistics[f"{metric}.{name}"] = statistic(truth, scores, test.users)
    users = int(test.users.max()) + 1
    return _Measured(figures, resample(statistics, users, margins.resamples, seed), users)


def decide(
    slices: Mapping[Slice, TestScores], evidence: Evidence, margins: Margins, seed: int, ece_bins: int
) -> Outcomes:
    """Return every gate's verdict and the decision.

    Rejected if any gate fails. An undecided one lets the champion stay; where there is none, or it can rank no longer,
    its difference must not be negative. A tie if the interval of the AUC difference from the champion contains 0. On
    hold if the gain over the strongest baseline is beyond belief. Else promoted.

    Args:
        slices: The scores of each slice that a margin names, and of `Slice.MOMENT`.
        evidence: What the gates look at beside the scores.
        margins: What is required.
        seed: Of the bootstrap.
        ece_bins: Bins of the calibration error.
    """
    wanted = {Slice.MOMENT, *(margin.slice for margin in margins.comparisons)}
    measured = {name: _measure(slices[name], margins, seed) for name in sorted(wanted)}
    gates = [
        _eligible(evidence),
        *(
            _compared(margin, slices[margin.slice], measured[margin.slice], evidence, margins)
            for margin in margins.comparisons
        ),
        *_calibrated(slices[Slice.MOMENT], margins.limits, ece_bins),
        _signature(evidence),
        *_serving(evidence.serving_check, margins.limits),
    ]
    return _decision(gates, measured[Slice.MOMENT], evidence, margins)


def _compared(margin: Margin, test: TestScores, measured: _Measured, evidence: Evidence, margins: Margins) -> Gate:
    """Return the gate of one comparison."""
    threshold = f">= {-margin.margin + 0.0:+.4f}"
    if margin.reference == CHAMPION_ROW and evidence.incomparable:
        return Gate(margin.name, None, threshold, Outcome.NOT_APPLICABLE, evidence.incomparable)
    against = _named(margin.reference, evidence)
    for name, who in ((CANDIDATE_ROW, "the candidate"), (margin.reference, against)):
        if name in test.scores and margin.metric not in test.defined(name):
            other = (
                f"{who} has the objective {test.objectives[name].name}, for which {margin.metric.value} is not defined"
            )
            return Gate(margin.name, None, threshold, Outcome.NOT_APPLICABLE, f"{other}.".capitalize())
    if not measured.has(margin.metric, margin.reference):
        return Gate(margin.name, None, threshold, Outcome.FAIL, f"There are no scores of {against}: train it, too.")
    found = measured.compare(margin.metric, margin.reference, margin.confidence or margins.confidence)
    low, high = found.interval.low, found.interval.high
    if not np.isfinite([found.difference, low, high]).all():
        lacking = f"{_TITLES[margin.metric]} cannot be computed: no user, or no resample, has rows of both classes."
        return Gate(margin.name, None, threshold, Outcome.FAIL, lacking)
    few = measured.users < margins.min_users
    verdict = Outcome.PASS if low >= -margin.margin else Outcome.FAIL if high < -margin.margin else Outcome.UNDECIDED
    return Gate(
        name=margin.name,
        figure=found.difference + 0.0,  # no -0.0
        threshold=threshold,
        verdict=Outcome.UNDECIDED if few else verdict,
        details=f"{_TITLES[margin.metric]} is {'better' if found.difference >= 0 else 'worse'} by "
        f"{abs(found.difference):.4f} than {against}, interval {low:+.4f} to {high:+.4f}"
        f"{f'; {measured.users} users are too few to tell, {margins.min_users} are enough' if few else ''}.",
        interval=(low, high),
        reference=margin.reference,
    )


def _named(reference: str, evidence: Evidence) -> str:
    names = {CHANCE: "chance", CHAMPION_ROW: f"champion version {evidence.champion_version}"}
    return names.get(reference, f"the {reference} baseline")


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


def _calibrated(test: TestScores, limits: Limits, bins: int) -> list[Gate]:
    objective = test.objectives[CANDIDATE_ROW]
    if not objective.probability:
        why = f"A score of the objective {objective.name} is no probability."
        return [
            Gate(name, None, "", Outcome.NOT_APPLICABLE, why)
            for name in ("calibration_error", "calibration_in_the_large")
        ]
    found = calibration(test.labels, test.scores[CANDIDATE_ROW], bins)
    error, ratio = found.expected_calibration_error, found.observed_over_expected
    return [
        Gate(
            "calibration_error",
            _finite(error),
            f"<= {limits.calibration_error:.4f}",
            Outcome.PASS if error <= limits.calibration_error else Outcome.FAIL,
            f"Over {len(found.rows)} bins, predicted and observed are {error:.4f} apart on average.",
        ),
        Gate(
            "calibration_in_the_large",
            _finite(ratio),
            f"within 1 +- {limits.calibration_shift:.2f}",
            Outcome.PASS if abs(ratio - 1) <= limits.calibration_shift else Outcome.FAIL,
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


def _serving(check: Mapping[str, Any], limits: Limits) -> list[Gate]:
    difference, p99 = float(check["max_abs_difference"]), float(check["grpc"]["p99_ms"])
    p50, rest = float(check["grpc"]["p50_ms"]), check["rest"]
    return [
        Gate(
            "served_scores",
            difference,
            f"<= {limits.served_difference:g}",
            Outcome.PASS if difference <= limits.served_difference else Outcome.FAIL,
            f"{check['rows']} rows in {check['requests']} requests through a model server on a private port.",
        ),
        Gate(
            "serving_latency_p99_ms",
            p99,
            f"<= {limits.grpc_p99_ms:g}",
            Outcome.PASS if p99 <= limits.grpc_p99_ms else Outcome.FAIL,
            f"gRPC p50 {p50:.2f} ms, p99 {p99:.2f} ms; REST p50 {float(rest['p50_ms']):.2f} ms, "
            f"p99 {float(rest['p99_ms']):.2f} ms{_on_busy_machine(check)}.",
        ),
    ]


def _on_busy_machine(check: Mapping[str, Any]) -> str:
    load = float(check.get("load_per_core", 0.0))
    return (
        f"; the machine was busy before ({load:g} waiting for each core), so that latencies are too long"
        if load > 1
        else ""
    )


def _decision(gates: list[Gate], measured: _Measured, evidence: Evidence, margins: Margins) -> Outcomes:
    if failed := [gate for gate in gates if gate.verdict is Outcome.FAIL]:
        return Outcomes(gates, Decision.REJECT, f"Rejected: {_listed(failed)}.")
    undecided = [gate for gate in gates if gate.verdict is Outcome.UNDECIDED]
    if undecided and evidence.champion_version and not _passing(evidence) and not margins.promote_on_tie:
        return Outcomes(gates, Decision.TIE, f"Undecided: {_listed(undecided)}; the champion stays.")
    # Who may take the place of a champion that is as good, or can rank no longer, need not point beyond it.
    others = [gate for gate in undecided if gate.reference != CHAMPION_ROW]
    if negative := [gate for gate in others if gate.figure is not None and gate.figure < 0]:
        return Outcomes(gates, Decision.REJECT, f"Rejected: undecided, and on the wrong side: {_listed(negative)}.")
    if evidence.incomparable:
        figures = f"AUC {measured.figures[Metric.AUC, CANDIDATE_ROW]:.4f}{_over_means(measured, margins)}"
        reason = f"{_passed(undecided)}, {figures}; {evidence.incomparable}"
        return _unless_suspicious(gates, measured, margins, reason)
    return _beside_champion(gates, measured, evidence, margins)


def _beside_champion(gates: list[Gate], measured: _Measured, evidence: Evidence, margins: Margins) -> Outcomes:
    """Return the decision where no gate says no, and the champion can be compared."""
    comparison = measured.compare(Metric.AUC, CHAMPION_ROW, margins.confidence)
    figures = (
        f"AUC differs from champion version {evidence.champion_version} by {comparison.difference:+.4f} "
        f"({comparison.interval.low:+.4f} to {comparison.interval.high:+.4f})"
    )
    passed = _passed([gate for gate in gates if gate.verdict is Outcome.UNDECIDED])
    equal = evidence.same_weights or comparison.interval.contains(0.0)
    if not equal and comparison.difference > 0:
        return _unless_suspicious(gates, measured, margins, f"{passed} and {figures}")
    why = f"{figures}, which shows no difference" if equal else f"{figures}: it is no better"
    if evidence.same_weights:
        why = "its weights are the champion's"
    if leaving := _passing(evidence):
        return _unless_suspicious(gates, measured, margins, f"{passed}; {why}, but {leaving}")
    if equal and margins.promote_on_tie:
        return _unless_suspicious(gates, measured, margins, f"{passed}; {why}, and promote_on_tie is set")
    return Outcomes(gates, Decision.TIE, f"{'Tie: no' if equal else 'No'} gate failed, but {why}; the champion stays.")


def _unless_suspicious(gates: list[Gate], measured: _Measured, margins: Margins, reason: str) -> Outcomes:
    """Return the promotion, or HOLD where the candidate is better than anybody would believe."""
    baselines = {
        name: figure
        for (metric, name), figure in measured.figures.items()
        if metric is Metric.AUC and name not in {CANDIDATE_ROW, CHAMPION_ROW}
    }
    strongest = max(baselines, key=lambda name: baselines[name])
    gain = measured.figures[Metric.AUC, CANDIDATE_ROW] - baselines[strongest]
    if gain > margins.max_gain:
        return Outcomes(
            gates,
            Decision.HOLD,
            f"On hold: {reason}. But AUC is {gain:.4f} above the strongest baseline, {strongest}, and more than "
            f"{margins.max_gain:g} is likelier knowledge of the future than a better model: look for a feature that "
            "knows the label.",
        )
    return Outcomes(gates, Decision.PROMOTE, f"Promoted: {reason}.")


def _passed(undecided: Sequence[Gate]) -> str:
    if not undecided:
        return "every gate passed"
    return f"no gate failed, {len(undecided)} are undecided and point the right way"


def _over_means(measured: _Measured, margins: Margins) -> str:
    if not measured.has(Metric.AUC, MEANS):
        return ""
    return f" ({measured.compare(Metric.AUC, MEANS, margins.confidence).difference:+.4f} over the mean baseline)"


def _listed(gates: Sequence[Gate]) -> str:
    return "; ".join(f"{gate.name} is {_figure(gate.figure)}, expected {gate.threshold}" for gate in gates)


def _passing(evidence: Evidence) -> str:
    """Return why the champion does not stay even where nothing shows that the candidate is better; empty if it may."""
    champion = f"champion version {evidence.champion_version}"
    if evidence.retired_views:
        views = ", ".join(evidence.retired_views)
        return f"{champion} cannot rank any longer: it reads {views}, refreshed no more"
    return f"{champion} is not in the registry any longer" if evidence.unregistered else ""


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
