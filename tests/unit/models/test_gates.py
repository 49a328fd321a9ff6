"""The decision: what passes, what fails, what ties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.contracts.manifests import Decision
from models.gates.decide import Evidence, Outcome, TestScores, decide
from models.gates.settings import GateSettings

SETTINGS = GateSettings(resamples=200)
CHECK = {
    "requests": 6,
    "rows": 700,
    "max_abs_difference": 1e-7,
    "grpc": {"p50_ms": 1.0, "p99_ms": 3.0},
    "rest": {"p50_ms": 2.0, "p99_ms": 5.0},
}
FIRST = Evidence("deepfm", True, "", "there is no champion yet", False, [], CHECK)  # noqa: FBT003 - a record's fields
SECOND = replace(FIRST, champion_version="1", incomparable="")


def _scores(*, candidate=1.5, champion=None, lr=1.2, shuffled=False):
    """Return scores of 4,000 rows whose log odds are `strength` times a signal that the label follows with 1.5."""
    random = np.random.default_rng(11)
    signal = random.normal(size=4000)
    truth = 1 / (1 + np.exp(-1.5 * signal))
    labels = (random.random(4000) < truth).astype(np.int64)
    if shuffled:
        labels = random.permutation(labels)
    noise = random.normal(size=(4, 4000))

    def model(quality, row):
        return 1 / (1 + np.exp(-(quality * signal + (1.5 - quality) * noise[row])))

    scores = {"candidate": model(candidate, 0), "lr": model(lr, 1), "means": model(1.0, 2), "popularity": noise[3]}
    if champion is not None:
        scores["champion"] = model(champion, 3)
    return TestScores(labels, random.integers(0, 100, 4000), scores)


def _decide(test, evidence, settings=SETTINGS):
    return decide(test, evidence, settings, seed=1, ece_bins=10)


def _failed(outcomes):
    return {gate.name for gate in outcomes.gates if gate.verdict is Outcome.FAIL}


def test_the_first_good_candidate_is_promoted_and_champion_gates_do_not_apply():
    outcomes = _decide(_scores(), FIRST)
    assert outcomes.decision is Decision.PROMOTE
    verdicts = {gate.name: gate.verdict for gate in outcomes.gates}
    champion = [verdict for name, verdict in verdicts.items() if name.endswith("_vs_champion")]
    assert champion == [Outcome.NOT_APPLICABLE] * 3
    assert set(verdicts.values()) == {Outcome.PASS, Outcome.NOT_APPLICABLE}


def test_shuffled_labels_are_rejected():
    outcomes = _decide(_scores(shuffled=True), FIRST)
    assert outcomes.decision is Decision.REJECT
    assert "auc_above_chance" in _failed(outcomes)
    assert "auc_above_chance" in outcomes.reason


def test_a_better_candidate_replaces_the_champion():
    assert _decide(_scores(champion=1.2), SECOND).decision is Decision.PROMOTE


def test_a_worse_candidate_is_rejected():
    outcomes = _decide(_scores(candidate=1.25, champion=1.5, lr=1.0), SECOND)
    assert outcomes.decision is Decision.REJECT
    assert "auc_vs_champion" in _failed(outcomes)


def test_equal_scores_are_a_tie_unless_the_setting_promotes_ties():
    test = _scores()
    test = replace(test, scores={**test.scores, "champion": test.scores["candidate"]})
    assert _decide(test, SECOND).decision is Decision.TIE
    promoting = SETTINGS.model_copy(update={"promote_on_tie": True})
    assert _decide(test, SECOND, promoting).decision is Decision.PROMOTE


def test_equal_weights_are_a_tie():
    outcomes = _decide(_scores(champion=1.2), replace(SECOND, same_weights=True))
    assert outcomes.decision is Decision.TIE
    assert "its weights are the champion's" in outcomes.reason


def test_a_champion_that_can_rank_no_longer_does_not_stay_on_a_tie():
    evidence = replace(SECOND, retired_views=["user_activity_00000000"])
    test = _scores()
    test = replace(test, scores={**test.scores, "champion": test.scores["candidate"]})
    outcomes = _decide(test, evidence)
    assert _decide(test, SECOND).decision is Decision.TIE
    assert outcomes.decision is Decision.PROMOTE
    assert "cannot rank any longer: it reads user_activity_00000000" in outcomes.reason


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


def test_a_candidate_no_better_than_the_means_is_rejected():
    test = _scores()
    outcomes = _decide(replace(test, scores={**test.scores, "means": test.scores["candidate"]}), FIRST)
    assert _failed(outcomes) == {"auc_vs_means"}


def test_bad_calibration_is_rejected():
    test = _scores()
    high = test.scores["candidate"] ** 0.3
    failed = _failed(_decide(replace(test, scores={**test.scores, "candidate": high}), FIRST))
    assert {"calibration_error", "calibration_in_the_large"} <= failed


def test_margins_are_declared_in_settings(monkeypatch):
    monkeypatch.setenv("KESTREL_GATE_MIN_GAIN_OVER_SIMPLE", "0.2")
    assert "auc_vs_means" in _failed(_decide(_scores(), FIRST, GateSettings(resamples=200)))
    monkeypatch.setenv("KESTREL_GATE_MIN_GAIN_OVER_SIMPLE", "7")
    with pytest.raises(ValueError, match="less than or equal"):
        GateSettings()
