"""The decision: what passes, what fails, what ties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from feature_repo.contracts.manifests import Decision
from feature_repo.contracts.objectives import PAIRWISE, PROBABILITY, REGRESSION
from models.errors import MarginsError
from models.evaluation.lists import Difference, ListFigures, list_figures
from models.gates.decide import Evidence, Outcome, TestScores, decide
from models.gates.margins import TestSplit, read_margins
from tests.lists_record import lists_record, unmeasured_record

MARGINS = read_margins("ranking").model_copy(update={"resamples": 200})
USERS = 400
CHECK = {
    "requests": 6,
    "rows": 700,
    "max_abs_difference": 1e-7,
    "grpc": {"p50_ms": 1.0, "p99_ms": 3.0},
    "rest": {"p50_ms": 2.0, "p99_ms": 5.0},
}
NOT_ASKED = list_figures(unmeasured_record("the log is too short"))
FIRST = Evidence("deepfm", True, "", "there is no champion yet", False, [], CHECK, NOT_ASKED)  # noqa: FBT003 - a record's fields
SECOND = replace(FIRST, champion_version="1", incomparable="")


def _scores(*, candidate=1.5, champion=None, lr=1.2, shuffled=False, users=USERS, rows=8000, objectives=None):
    """Return scores of rows whose log odds are `strength` times a signal that the label follows with 1.5."""
    random = np.random.default_rng(11)
    signal = random.normal(size=rows)
    truth = 1 / (1 + np.exp(-1.5 * signal))
    labels = (random.random(rows) < truth).astype(np.int64)
    if shuffled:
        labels = random.permutation(labels)
    noise = random.normal(size=(4, rows))

    def model(quality, row):
        return 1 / (1 + np.exp(-(quality * signal + (1.5 - quality) * noise[row])))

    scores = {"candidate": model(candidate, 0), "lr": model(lr, 1), "means": model(1.0, 2), "popularity": noise[3]}
    if champion is not None:
        scores["champion"] = model(champion, 3)
    objectives = dict.fromkeys(scores.keys() - {"means", "popularity"}, PROBABILITY) | (objectives or {})
    return TestScores(labels, 3.0 + labels, np.arange(rows) % users, scores, objectives)


def _champion_too(test):
    """Return the same where the champion has the candidate's scores."""
    scores = {**test.scores, "champion": test.scores["candidate"]}
    return replace(test, scores=scores, objectives={**test.objectives, "champion": PROBABILITY})


def _decide(test, evidence, margins=MARGINS):
    return decide({TestSplit.MOMENT: test}, evidence, margins, seed=1, ece_bins=10)


def _with(**changes):
    return MARGINS.model_copy(update=changes)


def _only(*comparisons):
    """Return the margins with these comparisons alone."""
    return type(MARGINS).model_validate(MARGINS.model_dump() | {"comparisons": comparisons})


def _gate(outcomes, name):
    return next(gate for gate in outcomes.gates if gate.name == name)


def _failed(outcomes):
    return {gate.name for gate in outcomes.gates if gate.verdict is Outcome.FAIL}


def test_the_first_good_candidate_is_promoted_and_champion_gates_do_not_apply():
    outcomes = _decide(_scores(), FIRST)
    assert outcomes.decision is Decision.PROMOTE
    verdicts = {gate.name: gate.verdict for gate in outcomes.gates}
    champion = [verdict for name, verdict in verdicts.items() if name.endswith("_vs_champion")]
    assert champion == [Outcome.NOT_APPLICABLE] * 4, "three of rows, one of lists"
    assert set(verdicts.values()) == {Outcome.PASS, Outcome.NOT_APPLICABLE}


def test_shuffled_labels_are_rejected():
    outcomes = _decide(_scores(shuffled=True), FIRST)
    assert outcomes.decision is Decision.REJECT
    assert "auc_vs_chance" in _failed(outcomes)
    assert "auc_vs_chance" in outcomes.reason


def test_a_better_candidate_replaces_the_champion():
    assert _decide(_scores(champion=1.2), SECOND).decision is Decision.PROMOTE


def test_a_worse_candidate_is_rejected():
    outcomes = _decide(_scores(candidate=1.25, champion=1.5, lr=1.0), SECOND)
    assert outcomes.decision is Decision.REJECT
    assert "auc_vs_champion" in _failed(outcomes)


def test_equal_scores_are_a_tie_unless_the_setting_promotes_ties():
    test = _champion_too(_scores())
    assert _decide(test, SECOND).decision is Decision.TIE
    assert _decide(test, SECOND, _with(promote_on_tie=True)).decision is Decision.PROMOTE


def test_equal_weights_are_a_tie():
    outcomes = _decide(_scores(champion=1.2), replace(SECOND, same_weights=True))
    assert outcomes.decision is Decision.TIE
    assert "its weights are the champion's" in outcomes.reason


def test_a_champion_that_can_rank_no_longer_does_not_stay_on_a_tie():
    evidence = replace(SECOND, retired_views=["user_activity_00000000"])
    test = _champion_too(_scores())
    outcomes = _decide(test, evidence)
    assert _decide(test, SECOND).decision is Decision.TIE
    assert outcomes.decision is Decision.PROMOTE
    assert "cannot rank any longer: it reads user_activity_00000000" in outcomes.reason


def test_a_champion_that_the_registry_lost_does_not_stay_on_a_tie():
    test = _champion_too(_scores())
    outcomes = _decide(test, replace(SECOND, same_weights=True, unregistered=True))
    assert outcomes.decision is Decision.PROMOTE
    assert "its weights are the champion's, but champion version 1 is not in the registry any longer" in outcomes.reason
    few = _scores(users=150)
    few = _champion_too(few)
    assert _decide(few, replace(SECOND, unregistered=True)).decision is Decision.PROMOTE


def test_a_champion_that_cannot_be_compared_says_so_in_the_reason():
    outcomes = _decide(_scores(), replace(SECOND, incomparable="its inputs are defined otherwise now"))
    assert outcomes.decision is Decision.PROMOTE
    assert "defined otherwise" in outcomes.reason


def test_logistic_regression_can_never_become_champion():
    outcomes = _decide(_scores(), replace(FIRST, model="lr", may_be_champion=False))
    assert _failed(outcomes) == {"eligible"}
    assert outcomes.decision is Decision.REJECT


@pytest.mark.parametrize(
    ("evidence", "gate"),
    [
        (replace(FIRST, signature_differences=["input item_id: ..."]), "signature"),
        (replace(FIRST, serving_check={**CHECK, "max_abs_difference": 1e-3}), "served_scores"),
        (replace(FIRST, serving_check={**CHECK, "max_abs_difference": float("nan")}), "served_scores"),
        (replace(FIRST, serving_check={**CHECK, "grpc": {"p50_ms": 1, "p99_ms": 900}}), "serving_latency_p99_ms"),
    ],
)
def test_one_failing_gate_rejects(evidence, gate):
    outcomes = _decide(_scores(), evidence)
    assert _failed(outcomes) == {gate}
    assert outcomes.decision is Decision.REJECT


def test_a_latency_that_was_measured_on_a_busy_machine_says_so():
    for load, told in ((0.4, False), (3.5, True)):
        outcomes = _decide(_scores(), replace(FIRST, serving_check={**CHECK, "load_per_core": load}))
        details = _gate(outcomes, "serving_latency_p99_ms").details
        assert ("the machine was busy before (3.5 waiting for each core)" in details) is told


@pytest.mark.parametrize(
    ("load", "p50", "verdict"), [(0.4, 5, Outcome.FAIL), (3.5, 5, Outcome.WARNING), (3.5, 60, Outcome.FAIL)]
)
def test_a_slow_tail_on_a_busy_machine_warns_and_rejects_nobody(load, p50, verdict):
    check = {**CHECK, "load_per_core": load, "grpc": {"p50_ms": p50, "p99_ms": 900}}
    outcomes = _decide(_scores(), replace(FIRST, serving_check=check))
    assert _gate(outcomes, "serving_latency_p99_ms").verdict is verdict
    assert (outcomes.decision is Decision.REJECT) is (verdict is Outcome.FAIL)


def test_a_candidate_that_is_worse_than_the_means_is_rejected():
    test = _scores()
    better = 0.5 * test.scores["candidate"] + 0.5 * test.labels
    outcomes = _decide(replace(test, scores={**test.scores, "means": better}), FIRST)
    assert {"auc_vs_means", "gauc_vs_means"} <= _failed(outcomes)
    assert outcomes.decision is Decision.REJECT


def test_an_interval_across_the_margin_is_undecided():
    test = _scores()
    equal = replace(test, scores={**test.scores, "means": test.scores["candidate"]})
    assert _gate(_decide(equal, FIRST), "auc_vs_means").verdict is Outcome.FAIL, (
        "0.003 more are asked for, 0 is certain"
    )
    close = _scores(candidate=1.5, lr=1.48)
    gate = _gate(_decide(close, FIRST, _only({"metric": "auc", "reference": "lr", "margin": 0})), "auc_vs_lr")
    assert gate.verdict is Outcome.UNDECIDED
    assert gate.interval[0] < 0 < gate.interval[1]
    wide = _decide(close, FIRST, _only({"metric": "auc", "reference": "lr", "margin": 0.2}))
    assert _gate(wide, "auc_vs_lr").verdict is Outcome.PASS


@pytest.mark.parametrize(
    ("better", "evidence", "decision"),
    [
        ("candidate", FIRST, Decision.PROMOTE),
        ("lr", FIRST, Decision.REJECT),
        ("candidate", SECOND, Decision.TIE),
        ("lr", SECOND, Decision.TIE),
        ("candidate", replace(SECOND, retired_views=["user_activity_00000000"]), Decision.PROMOTE),
        ("lr", replace(SECOND, retired_views=["user_activity_00000000"]), Decision.REJECT),
    ],
    ids=["none, better", "none, worse", "champion, better", "champion, worse", "retired, better", "retired, worse"],
)
def test_what_is_undecided_lets_a_champion_stay_and_else_goes_by_its_figure(better, evidence, decision):
    test = _scores(champion=1.2)
    others = {"candidate": "lr", "lr": "candidate"}
    scores = dict(test.scores)
    # The other one is the same with a little noise, and so a little worse.
    noisy = scores["candidate"] + np.random.default_rng(3).normal(size=len(test.labels)) * 0.02
    scores[better], scores[others[better]] = test.scores["candidate"], np.clip(noisy, 0, 1)
    across = -0.001 if better == "candidate" else 0.0005
    margins = _only({"metric": "auc", "reference": "lr", "margin": across})
    outcomes = _decide(replace(test, scores=scores), evidence, margins)
    assert _gate(outcomes, "auc_vs_lr").verdict is Outcome.UNDECIDED
    assert outcomes.decision is decision
    assert "ndecided" in outcomes.reason


def test_few_users_decide_nothing():
    outcomes = _decide(_scores(users=150), FIRST)
    compared = [gate for gate in outcomes.gates if gate.reference]
    assert {gate.verdict for gate in compared} == {Outcome.UNDECIDED}
    assert "150 users are too few to tell, 200 are enough" in compared[0].details
    assert outcomes.decision is Decision.PROMOTE, "every difference points the right way, and there is no champion"
    assert _decide(_scores(users=150, champion=1.0), SECOND).decision is Decision.TIE, "the champion stays"
    assert _decide(_scores(users=150, candidate=1.0, lr=1.5), FIRST).decision is Decision.REJECT


def test_what_cannot_be_computed_fails_and_is_not_undecided():
    test = _scores()
    outcomes = _decide(replace(test, users=np.arange(len(test.labels))), FIRST)
    gate = _gate(outcomes, "gauc_vs_lr")
    assert (gate.verdict, gate.figure) == (Outcome.FAIL, None)
    assert "cannot be computed" in gate.details
    absent = replace(test, scores={name: values for name, values in test.scores.items() if name != "lr"})
    assert {"auc_vs_lr", "gauc_vs_lr", "log_loss_vs_lr"} <= _failed(_decide(absent, FIRST))


def test_a_log_loss_that_is_lower_is_better():
    outcomes = _decide(_scores(lr=0.9), FIRST)
    assert _gate(outcomes, "log_loss_vs_lr").figure > 0
    assert _gate(outcomes, "log_loss_vs_lr").verdict is Outcome.PASS


def test_a_gain_beyond_belief_is_held_for_a_person():
    test = _scores()
    leaky = replace(test, scores={**test.scores, "candidate": 0.3 * test.scores["candidate"] + 0.7 * test.labels})
    loose = _with(limits=MARGINS.limits.model_copy(update={"calibration_error": 1.0, "calibration_shift": 1.0}))
    outcomes = _decide(leaky, FIRST, loose)
    assert outcomes.decision is Decision.HOLD
    assert "the strongest baseline that learns nothing, and more than 0.15" in outcomes.reason
    told = replace(leaky, scores={**leaky.scores, "lr": leaky.scores["candidate"] * 0.999})
    assert _decide(told, FIRST, loose).decision is Decision.HOLD, "a baseline that reads the same feature knows, too"
    assert _decide(leaky, FIRST, loose.model_copy(update={"max_gain": 0.5})).decision is Decision.PROMOTE


def test_a_split_has_rows_of_its_own():
    margins = _only({"metric": "auc", "split": "test_as_of_refresh", "reference": "lr", "margin": 0})
    splits = {TestSplit.MOMENT: _scores(), TestSplit.REFRESH: _scores(candidate=0.5, lr=1.5)}
    outcomes = decide(splits, FIRST, margins, seed=1, ece_bins=10)
    assert _failed(outcomes) == {"auc_vs_lr_as_of_refresh"}


def test_bad_calibration_is_rejected():
    test = _scores()
    high = test.scores["candidate"] ** 0.3
    failed = _failed(_decide(replace(test, scores={**test.scores, "candidate": high}), FIRST))
    assert {"calibration_error", "calibration_in_the_large"} <= failed


def test_observed_over_expected_has_intervals_whole_and_by_tenth():
    test = _scores()
    outcomes = _decide(test, FIRST)
    whole = _gate(outcomes, "calibration_in_the_large")
    low, high = whole.interval
    assert low < whole.figure < high
    assert whole.figure == pytest.approx(test.labels.sum() / test.scores["candidate"].sum())
    order = np.argsort(test.scores["candidate"], kind="stable")
    for place, found in enumerate(outcomes.calibration):
        rows = order[place * 800 : (place + 1) * 800]
        ratio = test.labels[rows].sum() / test.scores["candidate"][rows].sum()
        assert (found.rows, found.as_record()["observed_over_expected"]) == (800, pytest.approx(ratio))
        assert found.interval.contains(ratio)
        binomial = np.sqrt((1 - found.observed) / found.observed / found.rows) * ratio
        assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * binomial, rel=0.35)
    assert place == 9


def test_scores_that_are_no_probability_have_no_observed_over_expected():
    outcomes = _decide(_scores(objectives={"candidate": PAIRWISE}), FIRST)
    assert not outcomes.calibration
    assert _gate(outcomes, "calibration_in_the_large").verdict is Outcome.NOT_APPLICABLE


def test_margins_are_a_file_of_ones_own(tmp_path):
    own = tmp_path / "margins.yaml"
    own.write_text(yaml.safe_dump(MARGINS.model_dump(mode="json") | {"max_gain": 0.01}), encoding="utf-8")
    assert _decide(_scores(lr=1.0), FIRST, read_margins("ranking", own)).decision is Decision.HOLD
    assert _decide(_scores(lr=1.0), FIRST).decision is Decision.PROMOTE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_gain": 7}, "max_gain: Input should be less than or equal to 1, received 7"),
        ({"max_gian": 0.1}, "max_gian: Extra inputs are not permitted"),
        (
            {"comparisons": [{"metric": "log_loss", "reference": "means", "margin": 0}]},
            "only puts rows in an order, log_loss is not defined",
        ),
        (
            {"comparisons": [{"metric": "auc", "reference": "lr", "margin": 0}] * 2},
            r"\['auc_vs_lr'\] are declared twice",
        ),
        (
            {"comparisons": [{"metric": "ndcg", "reference": "lr", "margin": 0}]},
            "comparisons.0.metric: Input should be",
        ),
        (
            {"comparisons": [{"metric": "ndcg_at_10", "reference": "lr", "margin": 0}]},
            "expected a metric of rows, received ndcg_at_10; declare it in `lists`",
        ),
        (
            {"comparisons": [{"metric": "auc", "reference": "lr", "margin": 0, "margin_share": 0.1}]},
            "auc_vs_lr: expected either margin or margin_share, received",
        ),
        (
            {"comparisons": [{"metric": "auc", "reference": "chance", "margin_share": 0.1}]},
            "chance has no figure to take a share of",
        ),
        ({"lists": [{"reference": "lr", "margin": 0}]}, "lists.0.reference: Input should be"),
        (
            {"lists": [{"reference": "champion", "margin": 0}] * 2},
            r"\['lists_vs_champion'\] are declared twice",
        ),
        ({"max_list_gain": 0.5}, "max_list_gain: Input should be greater than 1, received 0.5"),
    ],
)
def test_a_wrong_file_of_margins_is_refused(tmp_path, change, told):
    own = tmp_path / "margins.yaml"
    own.write_text(yaml.safe_dump(MARGINS.model_dump(mode="json") | change), encoding="utf-8")
    with pytest.raises(MarginsError, match=told):
        read_margins("ranking", own)


@pytest.mark.parametrize("content", [None, "- a\n", "a: [", ""])
def test_a_file_that_is_none_of_margins_is_refused(tmp_path, content):
    own = tmp_path / "margins.yaml"
    if content is not None:
        own.write_text(content, encoding="utf-8")
    with pytest.raises(MarginsError, match=r"margins\.yaml: "):
        read_margins("ranking", own)


def test_a_margin_that_was_a_setting_before_is_not_passed_over():
    with pytest.raises(MarginsError, match=r"\['KESTREL_GATE_MAX_ECE'\]: margins are declared in a file"):
        read_margins("ranking", environ={"KESTREL_GATE_MAX_ECE": "0.2", "KESTREL_GATE_MARGINS": "m.yaml"})


def test_gates_apply_that_the_objective_has():
    orders = _scores(objectives={"candidate": PAIRWISE})
    outcomes = _decide(replace(orders, scores=orders.scores | {"candidate": orders.scores["candidate"] * 40}), FIRST)
    assert outcomes.decision is Decision.PROMOTE
    assert "GAUC 0." in outcomes.reason
    applied = {gate.name for gate in outcomes.gates if gate.reference and gate.verdict is not Outcome.NOT_APPLICABLE}
    assert applied == {"gauc_vs_means", "gauc_vs_popularity", "gauc_vs_lr"}, "a score compares a user's rows alone"
    assert _gate(outcomes, "calibration_error").verdict is Outcome.NOT_APPLICABLE
    assert _gate(outcomes, "log_loss_vs_lr").details == (
        "The candidate has the objective pairwise, for which log_loss is not defined."
    )


def test_a_champion_of_another_objective_is_compared_by_what_both_have():
    outcomes = _decide(_scores(champion=1.2, objectives={"champion": PAIRWISE}), SECOND)
    assert outcomes.decision is Decision.PROMOTE
    assert "GAUC differs from champion version 1 by +" in outcomes.reason
    assert _gate(outcomes, "gauc_vs_champion").verdict is Outcome.PASS
    assert _gate(outcomes, "auc_vs_champion").verdict is Outcome.NOT_APPLICABLE
    assert _gate(outcomes, "log_loss_vs_champion").verdict is Outcome.NOT_APPLICABLE
    assert _gate(outcomes, "log_loss_vs_lr").verdict is Outcome.PASS


def test_predicted_values_are_compared_by_their_error():
    test = _scores(objectives={"candidate": REGRESSION, "lr": REGRESSION})
    scores = test.scores | {"candidate": test.values + 0.1, "lr": test.values + 0.4}
    margins = _only({"metric": "rmse", "reference": "lr", "margin": -0.2})
    outcomes = _decide(replace(test, scores=scores), replace(FIRST, incomparable="none"), margins)
    gate = _gate(outcomes, "rmse_vs_lr")
    assert (gate.verdict, round(gate.figure, 6)) == (Outcome.PASS, 0.3)
    assert gate.interval == pytest.approx((0.3, 0.3))


def _lists(*, simple=None, champion=None, users=USERS, own=0.2):
    """Return lists' figures: differences with intervals from the best simple list and the champion's, where given."""
    given = {"ease": simple, "champion": champion}
    against = {name: Difference(*each) for name, each in given.items() if each}
    figures = {"candidate": own} | {name: own - each.difference for name, each in against.items()}
    absent = {name: "there is no champion yet" for name in ("champion",) if not champion}
    return ListFigures(users, figures, against, "ease", absent)


BETTER, ACROSS, WORSE = (0.02, (0.01, 0.03)), (0.002, (-0.014, 0.018)), (-0.03, (-0.04, -0.02))
PARITY, BELOW = (-0.005, (-0.02, 0.01)), (-0.012, (-0.025, 0.001))


@pytest.mark.parametrize(
    ("evidence", "lists", "verdicts", "decision"),
    [
        (FIRST, _lists(simple=BETTER), ("pass", "not applicable"), Decision.PROMOTE),
        (FIRST, _lists(simple=ACROSS), ("undecided", "not applicable"), Decision.PROMOTE),
        (FIRST, _lists(simple=PARITY), ("undecided", "not applicable"), Decision.PROMOTE),
        (FIRST, _lists(simple=BELOW), ("undecided", "not applicable"), Decision.REJECT),
        (FIRST, _lists(simple=WORSE), ("fail", "not applicable"), Decision.REJECT),
        (FIRST, _lists(simple=WORSE, users=199), ("undecided", "not applicable"), Decision.REJECT),
        (FIRST, _lists(simple=(0.01, None)), ("undecided", "not applicable"), Decision.PROMOTE),
        (FIRST, NOT_ASKED, ("not applicable", "not applicable"), Decision.PROMOTE),
        (SECOND, _lists(simple=BETTER, champion=BETTER), ("pass", "pass"), Decision.PROMOTE),
        (SECOND, _lists(simple=BETTER, champion=ACROSS), ("pass", "undecided"), Decision.TIE),
        (SECOND, _lists(simple=BETTER, champion=WORSE), ("pass", "fail"), Decision.REJECT),
        (SECOND, _lists(simple=ACROSS, champion=BETTER), ("undecided", "pass"), Decision.TIE),
    ],
)
def test_lists_decide_where_they_were_measured(evidence, lists, verdicts, decision):
    test = _scores(champion=1.2 if evidence.champion_version else None)
    outcomes = _decide(test, replace(evidence, lists=lists))
    first = outcomes.gates[:2]
    assert [gate.name for gate in first] == ["lists_vs_best_simple", "lists_vs_champion"], "they come first"
    assert tuple(gate.verdict.value for gate in first) == verdicts
    assert outcomes.decision is decision, outcomes.reason


def test_the_champion_is_compared_by_lists_whatever_rows_say():
    """AUC is far better, lists are no better; and the other way round."""
    margins = _with(lists=())
    better = replace(SECOND, lists=_lists(champion=BETTER))
    outcomes = _decide(_champion_too(_scores()), better, margins)
    assert outcomes.decision is Decision.PROMOTE
    assert "NDCG@10 of the lists differs from champion version 1 by +0.0200 (+0.0100 to +0.0300)" in outcomes.reason
    equal = replace(SECOND, lists=_lists(champion=ACROSS))
    assert _decide(_scores(champion=1.2), equal, margins).decision is Decision.TIE
    assert _decide(_scores(champion=1.2), SECOND, margins).decision is Decision.PROMOTE


def test_a_champion_that_rows_cannot_compare_is_compared_by_lists():
    apart = replace(SECOND, incomparable="it reads pair features")
    for lists, decision in ((_lists(champion=BETTER), Decision.PROMOTE), (_lists(champion=ACROSS), Decision.TIE)):
        outcomes = _decide(_scores(), replace(apart, lists=lists), _with(lists=()))
        assert outcomes.decision is decision
        assert _gate(outcomes, "gauc_vs_champion").details == "it reads pair features"


def test_lists_beyond_belief_are_held_for_a_person():
    wild = replace(FIRST, lists=_lists(own=0.7, simple=(0.5, (0.4, 0.6))))
    outcomes = _decide(_scores(), wild)
    assert outcomes.decision is Decision.HOLD
    assert "NDCG@10 of the lists is 0.7000, that of the best simple list, ease, 0.2000, and more than 3 times" in (
        outcomes.reason
    )
    assert _decide(_scores(), wild, _with(max_list_gain=None)).decision is Decision.PROMOTE
    assert _decide(_scores(), replace(FIRST, lists=_lists(own=0.59, simple=(0.39, (0.3, 0.5))))).decision is (
        Decision.PROMOTE
    )


def test_margins_of_before_there_were_lists_read_as_they_did(tmp_path):
    own = tmp_path / "margins.yaml"
    record = MARGINS.model_dump(mode="json", exclude={"lists", "max_list_gain"})
    own.write_text(yaml.safe_dump(record), encoding="utf-8")
    outcomes = _decide(_scores(), replace(FIRST, lists=_lists(simple=WORSE)), read_margins("ranking", own))
    assert outcomes.decision is Decision.PROMOTE
    assert not any(gate.name.startswith("lists") for gate in outcomes.gates)


def test_margins_of_before_rows_had_slices_judge_what_they_did(tmp_path):
    own = tmp_path / "margins.yaml"
    record = MARGINS.model_dump(mode="json", exclude={"slices"})
    for comparison in record["comparisons"]:
        comparison["slice"] = comparison.pop("split")
    added = ("slice_lag", "input_drift", "score_drift", "one_user_p50_ms", "export_bytes")
    record["limits"] = {name: value for name, value in record["limits"].items() if name not in added}
    own.write_text(yaml.safe_dump(record), encoding="utf-8")
    then, now = _decide(_scores(), FIRST, read_margins("ranking", own)), _decide(_scores(), FIRST)
    names = {gate.name for gate in now.gates} - {gate.name for gate in then.gates}
    assert then.decision is now.decision
    assert names <= {"slices_user_history", "slices_item_popularity", "slices_item_age", "input_drift", "score_drift"}
    assert [gate for gate in now.gates if gate.name not in names] == then.gates


def test_a_log_loss_a_little_above_the_baseline_s_is_no_harm():
    """It is worse by 1 %, where AUC is better: few users leave it undecided, and many pass it."""
    margins = _only(
        {"metric": "auc", "reference": "lr", "margin": 0},
        {"metric": "log_loss", "reference": "lr", "margin_share": 0.02},
    )
    for users, verdict in ((150, Outcome.UNDECIDED), (USERS, Outcome.PASS)):
        test = _scores(lr=1.35, users=users)
        loss = _figure_of(test, "lr")
        # Scores that are too sure have the same order, and a greater loss.
        powers = np.linspace(1, 3, 400)
        odds = np.log(test.scores["candidate"] / (1 - test.scores["candidate"]))
        sure = next(s for s in (1 / (1 + np.exp(-p * odds)) for p in powers) if _loss(test, s) > 1.01 * loss)
        worse = replace(test, scores=test.scores | {"candidate": sure})
        outcomes = _decide(worse, FIRST, _loose_calibration(margins))
        gate = _gate(outcomes, "log_loss_vs_lr")
        assert gate.figure < -0.005
        assert gate.threshold == f">= {-0.02 * loss:+.4f}"
        assert gate.verdict is verdict
        assert outcomes.decision is Decision.PROMOTE, outcomes.reason
    strict = _only({"metric": "log_loss", "reference": "lr", "margin": 0})
    assert _decide(worse, FIRST, _loose_calibration(strict)).decision is Decision.REJECT


def _loss(test, scores):
    return -np.mean(np.where(test.labels == 1, np.log(scores), np.log(1 - scores)))


def _figure_of(test, name):
    return _loss(test, test.scores[name])


def _loose_calibration(margins):
    limits = margins.limits.model_copy(update={"calibration_error": 1.0, "calibration_shift": 1.0})
    return margins.model_copy(update={"limits": limits})


def test_a_baseline_without_scores_of_these_rows_is_not_compared_and_says_why():
    test = _scores()
    without = replace(test, scores={name: values for name, values in test.scores.items() if name != "lr"})
    outcomes = _decide(without, replace(FIRST, left_out={"lr": "The lr baseline reads ..."}))
    assert outcomes.decision is Decision.PROMOTE
    gate = _gate(outcomes, "gauc_vs_lr")
    assert (gate.verdict, gate.details) == (Outcome.NOT_APPLICABLE, "The lr baseline reads ...")


def test_what_verdicts_read_is_what_the_serving_plane_wrote():
    record = lists_record()
    found = list_figures(record)
    (first, *_) = record["tables"]
    assert found.users == first["users"]
    assert found.figures == {row["list"]: row["ndcg_at_10"] for row in first["rows"]}
    assert found.why_not(record["best_simple"]) == ""
    best = found.against[record["best_simple"]]
    assert best.difference == pytest.approx(found.figures["candidate"] - found.figures[record["best_simple"]])
    assert best.interval[0] <= best.difference <= best.interval[1]
    assert found.why_not("champion") == "Lists of champion were not measured: there is no champion yet."
    without = list_figures(lists_record(candidate=False))
    assert without.why_not(record["best_simple"]) == "The candidate's lists were not measured: no SavedModel was given."
    assert NOT_ASKED.why_not("ease") == "Lists were not measured: the log is too short."
    alone = list_figures(lists_record(history=(2, 1)))
    assert "nobody with a history long enough" in alone.why_not(record["best_simple"])


def test_a_champion_whose_spec_was_fitted_again_is_named_so_in_gates_and_reason():
    named = "champion version 1 (its spec fitted again on events before May, as version 1 has learned from July's)"
    evidence = replace(SECOND, champion_named=named)
    outcomes = _decide(_scores(champion=1.2), evidence)
    assert (
        f"AUC is better by {_gate(outcomes, 'auc_vs_champion').figure:.4f} than {named}, interval"
        in _gate(outcomes, "auc_vs_champion").details
    )
    assert f"AUC differs from {named} by" in outcomes.reason
    assert (
        "than champion version 1, interval" in _gate(_decide(_scores(champion=1.2), SECOND), "auc_vs_champion").details
    )
