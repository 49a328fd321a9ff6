"""Drift of inputs and scores: the index by hand, what moves it, and what its gates say."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding
from feature_repo.contracts.objectives import PAIRWISE, PROBABILITY
from feature_repo.contracts.signatures import SCORE, ModelInput, Scope, Signature
from models.errors import MarginsError
from models.evaluation.drift import input_drift, score_drift, stability_index
from models.evaluation.lists import list_figures
from models.gates.decide import Evidence, Outcome, TestScores, decide
from models.gates.margins import Limits, TestSplit, read_margins
from tests.lists_record import unmeasured_record
from tests.model_plane import CHECK

ROWS = 4000


def _number(name, encoding=Encoding.STANDARD, **options):
    return Column(name, Dtype.FLOAT32, "a number", missing=-1.0, encoding=encoding, **options)


COLUMNS = (
    Column("item_id", Dtype.STRING, "id"),
    _number("usual"),
    _number("bucketed", Encoding.QUANTILES, buckets=4, curve=Curve.LOG),
    Column("moment", Dtype.INT64, "a time", missing=0),
    Column("town", Dtype.STRING, "a term", missing="", encoding=Encoding.VOCABULARY, vocabulary="town"),
    Column("genres", Dtype.STRING, "terms", length=3, missing="", encoding=Encoding.VOCABULARY, vocabulary="genres"),
)
SIGNATURE = Signature("ranking", tuple(ModelInput(column, Scope.ITEM) for column in COLUMNS), SCORE, PROBABILITY)


def _columns(seed):
    random = np.random.default_rng(seed)
    usual = random.exponential(5, ROWS)
    genres = random.choice(np.array(["a", "b", "c"], object), (ROWS, 3))
    genres[:, 2] = ""
    genres[random.random(ROWS) < 0.1] = ""
    return {
        "item_id": np.array(["i"] * ROWS, object),
        "usual": np.where(random.random(ROWS) < 0.1, -1.0, usual),
        "bucketed": random.random(ROWS),
        "moment": np.arange(ROWS) + seed * ROWS,
        "town": random.choice(np.array(["x", "y", ""], object), ROWS, p=[0.6, 0.3, 0.1]),
        "genres": genres,
    }


def _drift(**changes):
    return input_drift(_columns(1), _columns(2) | changes, SIGNATURE)


def test_the_index_by_hand():
    # Half a row more in each bucket: 60.5 and 40.5 of 101, 30.5 and 70.5.
    before, after = (np.array([60.5, 40.5]) / 101, np.array([30.5, 70.5]) / 101)
    expected = float(((after - before) * np.log(after / before)).sum())
    assert stability_index(np.array([60, 40]), np.array([30, 70])) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=12))
@settings(max_examples=50)
def test_the_index_is_0_of_the_same_never_less_and_the_same_both_ways(counts):
    before, after = np.array(counts).T
    assert stability_index(before, before) == pytest.approx(0)
    assert stability_index(before, after) >= -1e-12
    assert stability_index(before, after) == pytest.approx(stability_index(after, before))


def test_rows_of_the_same_kind_hardly_differ_and_ids_and_times_are_not_asked():
    found = _drift()
    assert found.keys() == {"usual", "bucketed", "town", "genres"}
    assert max(found.values()) < 0.02


@pytest.mark.parametrize(
    ("column", "changed", "least"),
    [
        ("usual", lambda values: np.where(values < 0, values, values * 1000), 6.0),  # another unit
        ("usual", lambda values: np.full_like(values, -1.0), 7.5),  # gone
        ("bucketed", lambda values: values * 0.05, 6.0),
        ("town", lambda values: np.where(values == "x", "z", values), 5.0),  # a term by another name
        ("town", lambda values: np.full_like(values, ""), 9.0),
        ("genres", lambda values: np.full_like(values, ""), 9.0),
    ],
)
def test_what_breaks_an_input_moves_it_alone(column, changed, least):
    found = _drift(**{column: changed(_columns(2)[column])})
    assert found.pop(column) > least
    assert max(found.values()) < 0.02


def test_an_input_without_any_value_before_and_after_has_not_moved():
    nothing = {"usual": np.full(ROWS, -1.0)}
    assert input_drift(_columns(1) | nothing, _columns(2) | nothing, SIGNATURE)["usual"] < 0.02
    back = input_drift(_columns(1) | nothing, _columns(2), SIGNATURE)["usual"]
    assert back > 6


def test_scores_of_many_ties_are_compared_by_what_they_are():
    same = np.repeat([0.1, 0.9], 500)
    assert score_drift(same, same) == pytest.approx(0)
    assert score_drift(same, np.repeat([0.1, 0.9], (900, 100))) > 0.5
    assert score_drift(same, np.full(1000, 0.9)) > 3


def _outcomes(drift=None, *, candidate=None, champion=None, export=None, objectives=None, margins=None):
    random = np.random.default_rng(4)
    labels = random.integers(0, 2, ROWS)
    scores = {"candidate": random.random(ROWS) if candidate is None else candidate}
    if champion is not None:
        scores["champion"] = champion
    evidence = Evidence(
        model="deepfm",
        may_be_champion=True,
        champion_version="" if champion is None else "1",
        incomparable="there is no champion yet" if champion is None else "",
        same_weights=False,
        signature_differences=[],
        serving_check=CHECK,
        lists=list_figures(unmeasured_record("the log is too short")),
        input_drift=drift or {},
        export=export or {},
    )
    test = TestScores(labels, labels, np.arange(ROWS) % 300, scores, objectives or dict.fromkeys(scores, PROBABILITY))
    margins = margins or read_margins("ranking")
    margins = margins.model_copy(update={"comparisons": margins.comparisons[:1], "resamples": 100})
    outcomes = decide({TestSplit.MOMENT: test}, evidence, margins, seed=1, ece_bins=10)
    return {gate.name: gate for gate in outcomes.gates}


def _with_fail(**fails):
    margins = read_margins("ranking")
    limits = {name: {"warn": 1.0, "fail": fail} for name, fail in fails.items()}
    return margins.model_copy(update={"limits": Limits.model_validate(margins.limits.model_dump() | limits)})


def test_a_moved_input_warns_and_fails_only_where_a_file_says_so():
    assert _outcomes({"a": 0.2, "b": 0.1})["input_drift"].verdict is Outcome.PASS
    warned = _outcomes({"a": 0.2, "b": 7.0})["input_drift"]
    assert (warned.verdict, warned.figure, warned.threshold) == (Outcome.WARNING, 7.0, "<= 1")
    assert "1 of 2 inputs moved by more than 1 from train to test rows: b 7.00." in warned.details
    strict = _outcomes({"b": 7.0}, margins=_with_fail(input_drift=6.0))["input_drift"]
    assert (strict.verdict, strict.threshold) == (Outcome.FAIL, "<= 6")
    assert _outcomes()["input_drift"].verdict is Outcome.NOT_APPLICABLE


def _events_so_far(items):
    """Return how many events each row's item had before."""
    codes = np.unique(items, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    before = np.empty(len(items))
    before[order] = np.arange(len(items)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return before


def test_time_alone_rejects_nobody_however_far_it_moves_a_count():
    """Sixty items that are all as popular: at the end each has more events than any had when the model learned."""
    count = _events_so_far(np.random.default_rng(0).integers(0, 60, 30_000))
    column = _number("count")
    signature = Signature("ranking", (ModelInput(column, Scope.ITEM),), SCORE, PROBABILITY)
    drift = input_drift({"count": count[:24_000]}, {"count": count[27_000:]}, signature)
    assert drift["count"] > 6, "as far as a change of unit would"
    assert _outcomes(drift)["input_drift"].verdict is Outcome.WARNING


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_missing_as_it_is_to_the_encoder_and_hides_nothing(number):
    before, after = _columns(1), _columns(2)
    before["usual"][:5] = number
    assert input_drift(before, after, SIGNATURE)["usual"] < 0.02
    after["usual"] *= 1000
    assert input_drift(before, after, SIGNATURE)["usual"] > 6
    assert input_drift(before, after | {"usual": np.full(ROWS, number)}, SIGNATURE)["usual"] > 6


def test_one_long_term_takes_no_room_in_the_other_rows():
    columns = _columns(1)
    columns["town"] = np.resize(np.array(["x", "y"], object), 200_000)
    columns["town"][0] = "t" * 20_000  # as a NumPy array of texts: 16 GB
    tracemalloc.start()
    try:
        assert _drift(town=columns["town"])["town"] < 2
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_scores_are_compared_with_the_champions_where_both_are_probabilities():
    scores = np.random.default_rng(4).random(ROWS)
    assert _outcomes(champion=scores)["score_drift"].verdict is Outcome.PASS
    assert _outcomes(champion=scores**2)["score_drift"].verdict is Outcome.WARNING
    narrow = _outcomes(champion=np.full(ROWS, 0.5) + scores / 1000)["score_drift"]
    assert narrow.verdict is Outcome.WARNING, "a champion that says the same of every row may be replaced"
    assert narrow.figure > 5
    assert _outcomes()["score_drift"].verdict is Outcome.NOT_APPLICABLE
    others = {"candidate": PAIRWISE, "champion": PROBABILITY}
    assert _outcomes(champion=scores, objectives=others)["score_drift"].verdict is Outcome.NOT_APPLICABLE


def test_an_export_that_is_too_large_or_too_slow_fails_by_its_own_figure():
    cost = {"bytes": 1_000_000, "candidates": 200, "p50_ms": 3.0, "p99_ms": 90.0}
    fine = _outcomes(export=cost)
    assert fine["one_user_latency_p50_ms"].verdict is Outcome.PASS, "its tail is the machine's"
    assert fine["export_bytes"].verdict is Outcome.PASS
    assert _outcomes(export=cost | {"p50_ms": 31.0})["one_user_latency_p50_ms"].verdict is Outcome.FAIL
    assert _outcomes(export=cost | {"bytes": 3_000_000_000})["export_bytes"].verdict is Outcome.FAIL


def test_a_warning_alone_rejects_nobody(tmp_path):
    gates = _outcomes({"a": 2.0})
    assert [gate.name for gate in gates.values() if gate.verdict is Outcome.WARNING] == ["input_drift"]
    own = tmp_path / "margins.yaml"
    shipped = read_margins("ranking").model_dump_json()
    own.write_text(shipped.replace('"warn":1.0,"fail":null', '"warn":6.0,"fail":1.0'), encoding="utf-8")
    with pytest.raises(MarginsError, match=r"expected warn below fail, received 6\.0 and 1\.0"):
        read_margins("ranking", own)
