"""The gates themselves: from scores and checks to a decision. Pure.

A comparison is judged by its interval. Where that lies across the margin, or there are too few users for one, the gate
is undecided: then the champion stays, and where there is none the figure itself has to be within the margin, or on the
right side of 0 where the margin asks for more. Lists decide who is better, where they were measured; rows guard.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.manifests import Decision, champion_named
from feature_repo.contracts.objectives import ORDERS, Metric
from models.evaluation.drift import score_drift
from models.evaluation.metrics import auc, gauc, log_loss, rmse
from models.evaluation.table import CANDIDATE_ROW, CHAMPION_ROW, CHANCE, MEANS, UNTRAINED
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
from models.gates.calibration import judge_calibration
from models.gates.margins import BEST_SIMPLE, TestSplit
from models.gates.slices import judge_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from feature_repo.contracts.objectives import Objective
    from models.evaluation.lists import ListFigures
    from models.evaluation.slices import Sliced
    from models.gates.calibration import Bin, CalibrationFigures
    from models.gates.margins import DriftLimit, Limits, ListMargin, Margin, Margins

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
    WARNING = "warning"
    """It passed, and a person should look."""


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
    least: float = 0.0
    """What the figure itself has to reach where the gate is undecided and no champion stays."""

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
    slices: Mapping[str, Sliced] = field(default_factory=dict)
    """Kind → its rows."""

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
    lists: ListFigures
    """The lists that users would be shown at the test origin."""
    input_drift: Mapping[str, float] = field(default_factory=dict)
    """Input of the candidate → how far the test rows are from the train rows."""
    export: Mapping[str, Any] = field(default_factory=dict)
    """What `export_cost` measured; empty where nothing was."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Trained baseline without scores of these rows → why."""
    retired_views: list[str] = field(default_factory=list)
    """Feature views of the champion that are refreshed no more: it cannot rank any longer, so no tie lets it stay."""
    unregistered: bool = False
    """Whether the registry has the champion no longer: then no tie lets it stay, either."""
    champion_named: str = ""
    """What is compared in the champion's name, where that says more than its version: its spec fitted again."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The gates and the decision that follows from them."""

    gates: list[Gate]
    decision: Decision
    reason: str
    calibration: list[Bin] = field(default_factory=list)
    """Of the candidate's probabilities on the test rows; empty where its scores are none."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus another by one metric, turned so that more is better."""

    title: str
    """The metric's, for people."""
    difference: float
    interval: Interval
    """Without ends where there are too few users for one."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """The rows of one split, measured."""

    figures: dict[tuple[Metric, str], float]
    """Metric and name → figure."""
    draws: dict[str, NDArray[np.float64]]
    """`<metric>.<name>` → the figure of each resample."""
    users: int

    def compare(self, metric: Metric, reference: str, confidence: float) -> Comparison:
        figure, drawn = self.figures[metric, CANDIDATE_ROW], self.draws[f"{metric}.{CANDIDATE_ROW}"]
        if reference == CHANCE:
            return Comparison(_TITLES[metric], figure - _CHANCE, percentile_interval(drawn - _CHANCE, confidence))
        difference = metric.sign * (figure - self.figures[metric, reference])
        drawn_differences = metric.sign * (drawn - self.draws[f"{metric}.{reference}"])
        return Comparison(_TITLES[metric], difference, percentile_interval(drawn_differences, confidence))

    def has(self, metric: Metric, reference: str) -> bool:
        return reference == CHANCE or (metric, reference) in self.figures

    def both_have(self, metric: Metric, reference: str) -> bool:
        return self.has(metric, CANDIDATE_ROW) and self.has(metric, reference)


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
    splits: Mapping[TestSplit, TestScores], evidence: Evidence, margins: Margins, seed: int, ece_bins: int
) -> Outcomes:
    """Return every gate's verdict and the decision.

    Rejected if any gate fails. An undecided one lets the champion stay; where there is none, or it can rank no longer,
    its difference must not be on the wrong side. A tie if the interval of the difference from the champion contains 0:
    of the lists' NDCG@10 where both have lists, else of AUC, or of GAUC where a score compares a user's rows alone. On
    hold if the gain over the strongest baseline that learns nothing, or over the best simple list, is beyond belief.
    Else promoted.

    Args:
        splits: The scores of each split that a margin names, and of `TestSplit.MOMENT`.
        evidence: What the gates look at beside the scores.
        margins: What is required.
        seed: Of the bootstrap.
        ece_bins: Bins of the calibration error.
    """
    wanted = {TestSplit.MOMENT, *(margin.split for margin in margins.comparisons)}
    measured = {name: _measure(splits[name], margins, seed) for name in sorted(wanted)}
    calibrated = _calibration(splits[TestSplit.MOMENT], margins, seed, ece_bins)
    gates = [
        *(_lists_compared(margin, evidence, margins) for margin in margins.lists),
        _eligible(evidence),
        *(
            _compared(margin, splits[margin.split], measured[margin.split], evidence, margins)
            for margin in margins.comparisons
        ),
        *_calibrated(calibrated, splits[TestSplit.MOMENT].objectives[CANDIDATE_ROW], margins.limits),
        *_slices_judged(splits[TestSplit.MOMENT], measured[TestSplit.MOMENT], evidence, margins, seed),
        *_drifted(splits[TestSplit.MOMENT], evidence, margins.limits),
        _signature(evidence),
        *_serving(evidence.serving_check, margins.limits),
        *_exported(evidence.export, margins.limits),
    ]
    outcomes = _decision(gates, measured[TestSplit.MOMENT], evidence, margins)
    return replace(outcomes, calibration=calibrated.bins if calibrated else [])


def _lists_compared(margin: ListMargin, evidence: Evidence, margins: Margins) -> Gate:
    """Return the gate of one comparison of lists."""
    lists, threshold = evidence.lists, _at_least(margin.margin)
    reference = lists.best_simple if margin.reference == BEST_SIMPLE else margin.reference
    if why := lists.why_not(reference):
        return Gate(margin.name, None, threshold, Outcome.NOT_APPLICABLE, why)
    against = f"{reference}, the best simple list" if margin.reference == BEST_SIMPLE else _named(reference, evidence)
    found = _of_lists(lists, reference)
    return _judged(
        Gate(margin.name, None, threshold, Outcome.FAIL, "", reference=margin.reference),
        found,
        margin.margin,
        f"{found.title} is {lists.figures[CANDIDATE_ROW]:.4f}, {_by(found)} than {against}",
        _few(lists.users, margins),
    )


def _compared(margin: Margin, test: TestScores, measured: _Measured, evidence: Evidence, margins: Margins) -> Gate:
    """Return the gate of one comparison."""
    metric, reference = margin.metric, margin.reference
    allowed = margin.allowed(measured.figures.get((metric, reference), float("nan")))
    threshold = _at_least(allowed)
    if reference == CHAMPION_ROW and evidence.incomparable:
        return Gate(margin.name, None, threshold, Outcome.NOT_APPLICABLE, evidence.incomparable)
    if reference in evidence.left_out:
        return Gate(margin.name, None, threshold, Outcome.NOT_APPLICABLE, evidence.left_out[reference])
    against = _named(reference, evidence)
    for name, who in ((CANDIDATE_ROW, "the candidate"), (reference, against)):
        if name in test.scores and metric not in test.defined(name):
            other = f"{who} has the objective {test.objectives[name].name}, for which {metric.value} is not defined"
            return Gate(margin.name, None, threshold, Outcome.NOT_APPLICABLE, f"{other}.".capitalize())
    if not measured.has(metric, reference):
        return Gate(margin.name, None, threshold, Outcome.FAIL, f"There are no scores of {against}: train it, too.")
    found = measured.compare(metric, reference, margin.confidence or margins.confidence)
    if not np.isfinite([found.difference, found.interval.low, found.interval.high]).all():
        lacking = f"{_TITLES[metric]} cannot be computed: no user, or no resample, has rows of both classes."
        return Gate(margin.name, None, threshold, Outcome.FAIL, lacking)
    return _judged(
        Gate(margin.name, None, threshold, Outcome.FAIL, "", reference=reference),
        found,
        allowed,
        f"{found.title} is {_by(found)} than {against}",
        _few(measured.users, margins),
    )


def _judged(gate: Gate, found: Comparison, allowed: float, said: str, few: str) -> Gate:
    """Return the gate with the verdict of a comparison; an interval of too few users decides nothing."""
    low, high = found.interval.low, found.interval.high
    verdict = Outcome.PASS if low >= -allowed else Outcome.FAIL if high < -allowed else Outcome.UNDECIDED
    ends = found.interval.ends
    return replace(
        gate,
        figure=found.difference + 0.0,  # no -0.0
        verdict=Outcome.UNDECIDED if few else verdict,
        details=f"{said}{f', interval {low:+.4f} to {high:+.4f}' if ends else ''}{few}.",
        interval=ends,
        least=min(0.0, -allowed),
    )


def _of_lists(lists: ListFigures, reference: str) -> Comparison:
    found = lists.against[reference]
    bounds = found.interval or (float("-inf"), float("inf"))
    return Comparison("NDCG@10 of the lists", found.difference, Interval(*bounds))


def _at_least(allowed: float) -> str:
    return f">= {-allowed + 0.0:+.4f}" if np.isfinite(allowed) else ""


def _by(found: Comparison) -> str:
    return f"{'better' if found.difference >= 0 else 'worse'} by {abs(found.difference):.4f}"


def _few(users: int, margins: Margins) -> str:
    """Return what is to be said of too few users; empty where there are enough."""
    if users >= margins.min_users:
        return ""
    return f"; {users} users are too few to tell, {margins.min_users} are enough"


def _named(reference: str, evidence: Evidence) -> str:
    champion = evidence.champion_named or champion_named(evidence.champion_version)
    names = {CHANCE: "chance", CHAMPION_ROW: champion}
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


def _calibration(test: TestScores, margins: Margins, seed: int, bins: int) -> CalibrationFigures | None:
    """Return how well the candidate's probabilities fit; None where its scores are none."""
    if not test.objectives[CANDIDATE_ROW].probability:
        return None
    scores = test.scores[CANDIDATE_ROW]
    return judge_calibration(test.labels, scores, test.users, bins=bins, margins=margins, seed=seed)


def _calibrated(found: CalibrationFigures | None, objective: Objective, limits: Limits) -> list[Gate]:
    if found is None:
        why = f"A score of the objective {objective.name} is no probability."
        return [
            Gate(name, None, "", Outcome.NOT_APPLICABLE, why)
            for name in ("calibration_error", "calibration_in_the_large")
        ]
    return [
        Gate(
            "calibration_error",
            _finite(found.error),
            f"<= {limits.calibration_error:.4f}",
            Outcome.PASS if found.error <= limits.calibration_error else Outcome.FAIL,
            f"Over {len(found.bins)} bins, predicted and observed are {found.error:.4f} apart on average.",
        ),
        Gate(
            "calibration_in_the_large",
            _finite(found.ratio),
            f"within 1 +- {limits.calibration_shift:.2f}",
            Outcome.PASS if abs(found.ratio - 1) <= limits.calibration_shift else Outcome.FAIL,
            f"There are {found.ratio:.3f} positives for each one predicted.",
            interval=found.interval.ends,
        ),
    ]


def _slices_judged(
    test: TestScores, measured: _Measured, evidence: Evidence, margins: Margins, seed: int
) -> Iterator[Gate]:
    """Yield a gate for each kind of slices."""
    limit = margins.limits.slice_lag
    if limit is None:
        return
    others = [row for metric, row in measured.figures if metric is Metric.GAUC and row != CANDIDATE_ROW]
    reference = (
        CHAMPION_ROW
        if CHAMPION_ROW in others
        else max(others, key=lambda row: np.nan_to_num(measured.figures[Metric.GAUC, row]), default="")
    )
    can_judge = bool(reference) and measured.has(Metric.GAUC, CANDIDATE_ROW)
    judged = (
        judge_slices(
            test.slices,
            test.labels,
            test.users,
            test.scores[CANDIDATE_ROW],
            test.scores[reference],
            margins=margins,
            seed=seed,
        )
        if can_judge
        else {}
    )
    for kind in test.slices:
        nothing = Gate(f"slices_{kind}", None, _at_least(limit), Outcome.NOT_APPLICABLE, "", reference=reference)
        if not can_judge:
            yield replace(nothing, details="There is no GAUC of the candidate, or of anything beside it.")
            continue
        found = judged[kind]
        thin = f"; too few users have rows of both classes in {', '.join(found.thin)}" if found.thin else ""
        if not found.judged:
            yield replace(nothing, details=f"Fewer than two slices can be judged{thin}.")
            continue
        worst, (gap, other_gap) = found.worst, found.gaps
        against = _named(reference, evidence)
        said = (
            f"GAUC of the slice {worst.name} is {worst.candidate:.4f}, that of {against} {worst.reference:.4f}; the "
            f"largest gap between slices is {gap:.4f}, that of {against} {other_gap:.4f}{thin}. "
            f"Beyond what every slice loses, {worst.name} differs by {worst.lag:+.4f}"
        )
        # All intervals hold at once: whether any slice surely lags, or none, is told by the lowest of each end.
        ends = Interval(*(min(getattr(each.interval, end) for each in found.judged) for end in ("low", "high")))
        gate = _judged(nothing, Comparison("GAUC", worst.lag, ends), limit, said, "")
        # The worst of many thin slices is bad by chance: only one that surely lags keeps a candidate from promotion.
        likely = Outcome.WARNING if worst.lag < -limit else Outcome.PASS
        yield replace(gate, verdict=likely) if gate.verdict is Outcome.UNDECIDED else gate


def _drifted(test: TestScores, evidence: Evidence, limits: Limits) -> Iterator[Gate]:
    """Yield the gates of drift that have a limit."""
    if limits.input_drift:
        yield _inputs_drifted(evidence.input_drift, limits.input_drift)
    if limits.score_drift:
        yield _scores_drifted(test, evidence, limits.score_drift)


def _of_index(gate: Gate, index: float, limit: DriftLimit) -> Gate:
    """Return the gate with the verdict of a population stability index."""
    fails = limit.fail is not None and index > limit.fail
    verdict = Outcome.FAIL if fails else Outcome.WARNING if index > limit.warn else Outcome.PASS
    return replace(gate, figure=index, threshold=f"<= {limit.fail or limit.warn:g}", verdict=verdict)


def _inputs_drifted(drift: Mapping[str, float], limit: DriftLimit) -> Gate:
    gate = Gate("input_drift", None, "", Outcome.NOT_APPLICABLE, "No input has an encoding.")
    if not drift:
        return gate
    ordered = sorted(drift, key=lambda name: -drift[name])
    over = [name for name in ordered if drift[name] > limit.warn]
    told = ", ".join(f"{name} {drift[name]:.2f}" for name in over[:5] or ordered[:1])
    more = f" and {len(over) - 5} more" if len(over) > 5 else ""  # noqa: PLR2004 - as many as are told
    said = f"{len(over)} of {len(drift)} inputs moved by more than {limit.warn:g} from train to test rows"
    details = f"{said}: {told}{more}." if over else f"{said}; most did {told}."
    return _of_index(replace(gate, details=details), drift[ordered[0]], limit)


def _scores_drifted(test: TestScores, evidence: Evidence, limit: DriftLimit) -> Gate:
    gate = Gate("score_drift", None, "", Outcome.NOT_APPLICABLE, "")
    if CHAMPION_ROW not in test.scores:
        return replace(gate, details=evidence.incomparable)
    if not all(test.objectives[row].probability for row in (CANDIDATE_ROW, CHAMPION_ROW)):
        return replace(gate, details="Scores that are no probabilities have no scale in common.")
    own, theirs = test.scores[CANDIDATE_ROW], test.scores[CHAMPION_ROW]
    said = f"Scores have a mean of {own.mean():.4f}, those of {_named(CHAMPION_ROW, evidence)} {theirs.mean():.4f}."
    return _of_index(replace(gate, details=said), score_drift(theirs, own), limit)


def _exported(cost: Mapping[str, Any], limits: Limits) -> Iterator[Gate]:
    """Yield the gates of the export's size and time that have a limit; none where these were not measured."""
    if not cost:
        return
    size, p50, p99 = (float(cost[name]) for name in ("bytes", "p50_ms", "p99_ms"))
    timed = f"{cost['candidates']} candidates for one user, without a server: p50 {p50:.2f} ms, p99 {p99:.2f} ms."
    for name, figure, limit, said in (
        ("export_bytes", size, limits.export_bytes, f"The SavedModel has {size / 1e6:.1f} MB."),
        ("one_user_latency_p50_ms", p50, limits.one_user_p50_ms, timed),
    ):
        if limit is not None:
            yield Gate(name, figure, f"<= {limit:g}", Outcome.PASS if figure <= limit else Outcome.FAIL, said)


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
    # A tail that others on the machine may have made is no reason to reject; half of all calls are.
    slow = Outcome.WARNING if _load(check) > 1 and p50 <= limits.grpc_p99_ms else Outcome.FAIL
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
            Outcome.PASS if p99 <= limits.grpc_p99_ms else slow,
            f"gRPC p50 {p50:.2f} ms, p99 {p99:.2f} ms; REST p50 {float(rest['p50_ms']):.2f} ms, "
            f"p99 {float(rest['p99_ms']):.2f} ms{_on_busy_machine(check)}.",
        ),
    ]


def _load(check: Mapping[str, Any]) -> float:
    return float(check.get("load_per_core", 0.0))


def _on_busy_machine(check: Mapping[str, Any]) -> str:
    load = _load(check)
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
    if wrong := [gate for gate in others if gate.figure is not None and gate.figure < gate.least]:
        return Outcomes(gates, Decision.REJECT, f"Rejected: undecided, and on the wrong side: {_listed(wrong)}.")
    if (found := _from_champion(measured, evidence, margins)) is not None:
        return _beside_champion(gates, measured, evidence, margins, found)
    reason = f"{_passed(gates)}, {_figures_alone(measured, evidence, margins)}; {evidence.incomparable}"
    return _unless_suspicious(gates, measured, evidence, margins, reason)


def _from_champion(measured: _Measured, evidence: Evidence, margins: Margins) -> Comparison | None:
    """Return how the candidate differs from the champion by what decides; None where nothing compares the two."""
    if evidence.champion_version and not evidence.lists.why_not(CHAMPION_ROW):
        return _of_lists(evidence.lists, CHAMPION_ROW)
    if evidence.incomparable:
        return None
    metric = next(metric for metric in ORDERS if measured.both_have(metric, CHAMPION_ROW))
    return measured.compare(metric, CHAMPION_ROW, margins.confidence)


def _beside_champion(
    gates: list[Gate], measured: _Measured, evidence: Evidence, margins: Margins, found: Comparison
) -> Outcomes:
    """Return the decision where no gate says no, and the champion can be compared."""
    figures = (
        f"{found.title} differs from {_named(CHAMPION_ROW, evidence)} by {found.difference:+.4f} "
        f"({found.interval.low:+.4f} to {found.interval.high:+.4f})"
    )
    passed = _passed(gates)
    equal = evidence.same_weights or found.interval.contains(0.0)
    if not equal and found.difference > 0:
        return _unless_suspicious(gates, measured, evidence, margins, f"{passed} and {figures}")
    why = f"{figures}, which shows no difference" if equal else f"{figures}: it is no better"
    if evidence.same_weights:
        why = "its weights are the champion's"
    if leaving := _passing(evidence):
        return _unless_suspicious(gates, measured, evidence, margins, f"{passed}; {why}, but {leaving}")
    if equal and margins.promote_on_tie:
        return _unless_suspicious(gates, measured, evidence, margins, f"{passed}; {why}, and promote_on_tie is set")
    return Outcomes(gates, Decision.TIE, f"{'Tie: no' if equal else 'No'} gate failed, but {why}; the champion stays.")


def _unless_suspicious(
    gates: list[Gate], measured: _Measured, evidence: Evidence, margins: Margins, reason: str
) -> Outcomes:
    """Return the promotion, or HOLD where the candidate is better than anybody would believe."""
    suspicion = _beyond_rows(measured, margins) or _beyond_lists(evidence.lists, margins)
    if suspicion:
        return Outcomes(
            gates,
            Decision.HOLD,
            f"On hold: {reason}. But {suspicion} is likelier knowledge of the future than a better model: look for a "
            "feature that knows the label.",
        )
    return Outcomes(gates, Decision.PROMOTE, f"Promoted: {reason}.")


def _beyond_rows(measured: _Measured, margins: Margins) -> str:
    """Return what is beyond belief of AUC; empty where nothing is, or where scores do not order all rows.

    Baselines that learn are no measure: they read the same features, and what knows the label tells them, too.
    """
    baselines = {
        name: figure
        for (metric, name), figure in measured.figures.items()
        if metric is Metric.AUC and name in UNTRAINED
    }
    if (Metric.AUC, CANDIDATE_ROW) not in measured.figures or not baselines:
        return ""
    strongest = max(baselines, key=lambda name: baselines[name])
    gain = measured.figures[Metric.AUC, CANDIDATE_ROW] - baselines[strongest]
    if gain <= margins.max_gain:
        return ""
    return (
        f"AUC is {gain:.4f} above {strongest}, the strongest baseline that learns nothing, and more than "
        f"{margins.max_gain:g}"
    )


def _beyond_lists(lists: ListFigures, margins: Margins) -> str:
    """Return what is beyond belief of the lists; empty where nothing is, or they were not measured."""
    if margins.max_list_gain is None or lists.why_not(lists.best_simple):
        return ""
    own, simple = lists.figures[CANDIDATE_ROW], lists.figures[lists.best_simple]
    if not simple or own <= margins.max_list_gain * simple:  # anything is endlessly more than nothing
        return ""
    return (
        f"NDCG@10 of the lists is {own:.4f}, that of the best simple list, {lists.best_simple}, {simple:.4f}, and more "
        f"than {margins.max_list_gain:g} times as much"
    )


def _passed(gates: Sequence[Gate]) -> str:
    undecided = sum(gate.verdict is Outcome.UNDECIDED for gate in gates)
    warning = [gate.name for gate in gates if gate.verdict is Outcome.WARNING]
    warned = f" (with a warning: {', '.join(warning)})" if warning else ""
    if not undecided:
        return f"every gate passed{warned}"
    return f"no gate failed{warned}, {undecided} are undecided and on the right side"


def _figures_alone(measured: _Measured, evidence: Evidence, margins: Margins) -> str:
    """Return the figures of a candidate that no champion is compared with."""
    lists = evidence.lists
    shown = ""
    if not lists.why_not(lists.best_simple):
        best = lists.against[lists.best_simple].difference
        shown = f"NDCG@10 of the lists {lists.figures[CANDIDATE_ROW]:.4f} ({best:+.4f} over {lists.best_simple}), "
    metric = next(metric for metric in ORDERS if (metric, CANDIDATE_ROW) in measured.figures)
    over_means = ""
    if measured.has(metric, MEANS):
        difference = measured.compare(metric, MEANS, margins.confidence).difference
        over_means = f" ({difference:+.4f} over the mean baseline)"
    return f"{shown}{_TITLES[metric]} {measured.figures[metric, CANDIDATE_ROW]:.4f}{over_means}"


def _listed(gates: Sequence[Gate]) -> str:
    return "; ".join(f"{gate.name} is {_figure(gate.figure)}, expected {gate.threshold}" for gate in gates)


def _passing(evidence: Evidence) -> str:
    """Return why the champion does not stay even where nothing shows that the candidate is better; empty if it may."""
    champion = champion_named(evidence.champion_version)
    if evidence.retired_views:
        views = ", ".join(evidence.retired_views)
        return f"{champion} cannot rank any longer: it reads {views}, refreshed no more"
    return f"{champion} is not in the registry any longer" if evidence.unregistered else ""


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
