"""Slices: which rows they hold, their figures beside scikit-learn's, and when a gate says that one lags."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mlflow.utils.validation import _validate_metric
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.manifests import Decision
from feature_repo.contracts.objectives import PAIRWISE, PROBABILITY
from models.errors import MarginsError
from models.evaluation.lists import list_figures
from models.evaluation.slices import (
    DeclaredSlices,
    NumberSlices,
    Sliced,
    figures_by_slice,
    sizes,
    slice_metrics,
    slice_rows,
    slices_record,
)
from models.gates.decide import Evidence, Outcome, TestScores, decide
from models.gates.margins import TestSplit, read_margins
from models.gates.slices import judge_slices
from tests.lists_record import unmeasured_record
from tests.model_plane import CHECK

MARGINS = read_margins("ranking").model_copy(update={"resamples": 200})
FIRST = Evidence(
    model="deepfm",
    may_be_champion=True,
    champion_version="",
    incomparable="there is no champion yet",
    same_weights=False,
    signature_differences=[],
    serving_check=CHECK,
    lists=list_figures(unmeasured_record("the log is too short")),
)
SECOND = replace(FIRST, champion_version="1", incomparable="")


def _members(sliced):
    return [sliced.names[code] for code in sliced.codes]


def test_numbers_are_sliced_by_their_starts_and_a_missing_one_is_of_the_lowest():
    kind = NumberSlices(name="history", column="user_event_count", starts={"heavy": 20, "new": 0, "known": 5})
    features = {"user_event_count": np.array([-1, 0, 4, 5, 19, 20, 900])}
    (sliced,) = slice_rows(DeclaredSlices(numbers=(kind,)), features, ()).values()
    assert sliced.names == ("new", "known", "heavy")
    assert _members(sliced) == ["new", "new", "new", "known", "known", "heavy", "heavy"]


def test_an_items_age_is_of_the_request_and_an_item_without_events_is_new():
    kind = NumberSlices(name="age", column="item_age_days", starts={"new": 0, "old": 7})
    day = 86_400
    features = {
        "request_time": np.full(4, 900_000_000),
        "item_first_event_time": 900_000_000 - np.array([6 * day, 7 * day, 30 * day, 900_000_000]),
    }
    (sliced,) = slice_rows(DeclaredSlices(numbers=(kind,)), features, ()).values()
    assert _members(sliced) == ["new", "old", "old", "new"], "0 stands for no event"


def test_attributes_are_sliced_by_their_common_terms_and_ids_and_lists_are_none():
    columns = [
        Column("item_id", Dtype.STRING, "id"),
        Column("user_town", Dtype.STRING, "town", missing=""),
        Column("item_genres", Dtype.STRING, "genres", length=2, missing=""),
        Column("user_age", Dtype.FLOAT32, "age", missing=-1.0),
        Column("user_trade", Dtype.STRING, "not in these rows", missing=""),
    ]
    features = {
        "item_id": np.array(["a"] * 6, object),
        "user_town": np.array(["b", "b", "b", "", "", "c"], object),
        "item_genres": np.full((6, 2), "x", object),
        "user_age": np.zeros(6),
    }
    (kind, sliced), *others = slice_rows(DeclaredSlices(attribute_terms=2), features, columns).items()
    assert (kind, others) == ("user_town", [])
    assert _members(sliced) == ["b", "b", "b", "missing", "missing", "others"]
    assert slice_rows(DeclaredSlices(), features, columns) == {}


def test_what_is_no_number_is_missing_and_a_column_without_numbers_is_refused():
    kind = NumberSlices(name="price", column="item_price", starts={"low": 0, "high": 5})
    declared = DeclaredSlices(numbers=(kind,))
    features = {"item_price": np.array([np.nan, np.inf, -np.inf, 7.0])}
    assert _members(slice_rows(declared, features, ())["price"]) == ["low", "low", "low", "high"]
    for values, received in ((np.array(["a"], object), "texts"), (np.zeros((2, 3)), "lists")):
        with pytest.raises(MarginsError, match=f"slices price: expected .* item_price, which has {received}"):
            slice_rows(declared, {"item_price": values}, ())


def test_terms_that_are_called_as_slices_or_kinds_are_told_apart_and_long_ones_cut():
    column = Column("item_age", Dtype.STRING, "an attribute, such as of comics", missing="")
    terms = ["missing", "", "others", "x" * 5000, *"abc"]
    features = {
        "item_age": np.array(terms + terms[:4], object),
        "request_time": np.zeros(11),
        "item_first_event_time": np.zeros(11),
    }
    kind = NumberSlices(name="item_age", column="item_age_days", starts={"new": 0, "old": 7})
    found = slice_rows(DeclaredSlices(numbers=(kind,), attribute_terms=4), features, [column])
    assert found.keys() == {"item_age", "item_age_term"}
    assert found["item_age"].names == ("new", "old")
    names = found["item_age_term"].names
    assert set(names) == {'"missing"', "missing", '"others"', "x" * 99 + "…", "others"}
    assert _members(found["item_age_term"])[-4:] == ['"missing"', "missing", '"others"', "x" * 99 + "…"]


def test_each_slice_has_a_metric_of_its_own_by_a_name_that_mlflow_takes():
    names = ["a/b", "a.b", "a_b", "男", "女", "..", "x" * 99 + "…", '"missing"']
    record = {"user_town": [{"slice": name, "figures": {"candidate": {"auc": 0.5}}} for name in names]}
    logged = slice_metrics(record)
    assert len(logged) == len(names)
    assert "slices/user_town/男/auc" in logged
    assert "slices/user_town/a_b.1/auc" in logged
    for name, value in logged.items():
        _validate_metric(name, value, 0, 0)


def test_a_kind_whose_column_the_rows_have_not_is_left_out():
    assert slice_rows(MARGINS.slices, {"user_event_count": np.arange(3)}, ()).keys() == {"user_history"}


def _rows(seed=5, rows=3000, users=60):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    scores = np.round(np.clip(random.normal(0.5 + 0.1 * labels, 0.2), 0.01, 0.99), 2)
    return labels, scores, random.integers(0, users, rows), random.integers(0, 3, rows)


def test_every_figure_is_what_others_compute_of_the_slices_rows_alone():
    labels, scores, users, codes = _rows()
    sliced = Sliced(("a", "b", "c", "empty"), codes)
    found = figures_by_slice({"kind": sliced}, labels, scores, users, PROBABILITY.metrics)["kind"]
    for code, figures in enumerate(found[:3]):
        mine = codes == code
        areas, weights = [], []
        for user in range(60):
            of = mine & (users == user)
            if len(set(labels[of])) == 2:
                areas.append(roc_auc_score(labels[of], scores[of]))
                weights.append(of.sum())
        assert figures == pytest.approx(
            {
                "auc": roc_auc_score(labels[mine], scores[mine]),
                "gauc": np.average(areas, weights=weights),
                "log_loss": log_loss(labels[mine], scores[mine]),
                "brier": brier_score_loss(labels[mine], scores[mine]),
                "observed_over_expected": labels[mine].sum() / scores[mine].sum(),
            },
            abs=1e-9,
        )
        (size,) = [size for place, size in enumerate(sizes(sliced, labels, users)) if place == code]
        assert (size.rows, size.users, size.judged_users) == (mine.sum(), len(set(users[mine])), len(areas))
    assert np.isnan(list(found[3].values())).all()
    assert figures_by_slice({"kind": sliced}, labels, scores, users, PAIRWISE.metrics)["kind"][0].keys() == {"gauc"}


def test_the_record_has_null_for_what_the_rows_do_not_define_and_mlflow_gets_none_of_it():
    labels, scores, users, codes = _rows()
    slices = {"kind": Sliced(("a/1", "b", "c", "empty"), codes)}
    metrics = {"candidate": PROBABILITY.metrics, "means": PAIRWISE.metrics}
    record = slices_record(slices, labels, users, {"candidate": scores, "means": -scores}, metrics)
    assert record["kind"][3]["figures"]["candidate"]["gauc"] is None
    first = record["kind"][0]["figures"]
    assert first["means"]["gauc"] == pytest.approx(1 - first["candidate"]["gauc"])
    logged = slice_metrics(record)
    assert logged["slices/kind/a_1/gauc"] == first["candidate"]["gauc"]
    assert not any("empty" in name for name in logged)


def _test_scores(*, broken="", of_reference=False, better="", users=300, reference="lr", seed=3):
    """Return scores of three slices, each of all users: a signal with noise, none of it in a broken slice."""
    random = np.random.default_rng(seed)
    rows = users * 36
    names, codes = ("new", "known", "heavy"), np.arange(rows) // users % 3
    signal = random.normal(size=rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-1.5 * signal))).astype(np.int64)
    noise = random.normal(size=(2, rows))
    share = {name: np.full(rows, 0.4) for name in ("candidate", reference)}
    for name, spoilt in (("candidate", True), (reference, of_reference)):
        if broken and spoilt:
            share[name][codes == names.index(broken)] = 50.0
    if better:
        share["candidate"][codes != names.index(better)] = 0.0
        share[reference][:] = 2.0
        share["candidate"][codes == names.index(better)] = 2.0
    scores = {
        name: 1 / (1 + np.exp(-1.2 * (signal + part * noise[row]) / np.sqrt(1 + part**2)))
        for row, (name, part) in enumerate(share.items())
    }
    return TestScores(
        labels,
        3.0 + labels,
        np.arange(rows) % users,
        scores,
        dict.fromkeys(scores, PROBABILITY),
        {"user_history": Sliced(names, codes)},
    )


def _gate(test, evidence=FIRST, margins=MARGINS):
    # Nothing but slices is asked: other gates have tests of their own.
    margins = margins.model_copy(update={"comparisons": margins.comparisons[:1]})
    margins = margins.model_copy(update={"limits": margins.limits.model_copy(update={"calibration_shift": 1.0})})
    outcomes = decide({TestSplit.MOMENT: test}, evidence, margins, seed=1, ece_bins=10)
    return next(gate for gate in outcomes.gates if gate.name == "slices_user_history"), outcomes


@pytest.mark.parametrize("reference", ["lr", "champion"])
def test_a_broken_slice_rejects_and_the_gate_says_which_one_beside_whom(reference):
    gate, outcomes = _gate(
        _test_scores(broken="new", reference=reference), SECOND if reference == "champion" else FIRST
    )
    assert (gate.verdict, gate.reference) == (Outcome.FAIL, reference)
    assert outcomes.decision is Decision.REJECT
    assert "GAUC of the slice new is 0.49" in gate.details
    assert gate.figure < -0.1
    assert gate.interval[1] < -0.1


def test_a_slice_that_lags_by_chance_keeps_nobody_from_promotion():
    """Eleven slices of some rows for each user: the candidate is better, and the worst slice's interval is wide."""
    random = np.random.default_rng(2)
    rows, users = 24_000, np.arange(24_000) % 3000
    signal = random.normal(size=rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-1.5 * signal))).astype(np.int64)
    scores = {
        name: 1 / (1 + np.exp(-(signal + noise * random.normal(size=rows))))
        for name, noise in (("candidate", 0.8), ("champion", 0.9))
    }
    sliced = Sliced(tuple("abcdefghijk"), random.integers(0, 11, rows))
    test = TestScores(labels, labels, users, scores, dict.fromkeys(scores, PROBABILITY), {"user_history": sliced})
    gate, _ = _gate(test, SECOND)
    assert gate.interval[0] < -0.1 < gate.figure, "it does not surely keep within the limit"
    assert gate.verdict is Outcome.PASS
    lagging = MARGINS.model_copy(update={"limits": MARGINS.limits.model_copy(update={"slice_lag": 0.01})})
    warned, outcomes = _gate(test, SECOND, lagging)
    assert warned.figure < -0.01 < warned.interval[1]
    assert warned.verdict is Outcome.WARNING
    assert outcomes.decision is not Decision.REJECT


def test_a_gap_that_the_reference_has_too_is_no_fault():
    gate, _ = _gate(_test_scores(broken="new", of_reference=True))
    assert gate.verdict is Outcome.PASS
    assert gate.figure == pytest.approx(0.0, abs=0.05)


def test_a_gap_that_grew_as_the_other_slices_got_better_is_no_harm():
    test = _test_scores(better="new")
    gate, _ = _gate(test)
    judged = judge_slices(test.slices, test.labels, test.users, *test.scores.values(), margins=MARGINS, seed=1)[
        "user_history"
    ]
    assert judged.gaps[0] - judged.gaps[1] > 0.1, "the gap is wider than the limit"
    assert gate.verdict is Outcome.PASS


def test_a_slice_with_few_users_decides_nothing_and_one_alone_has_no_gap():
    test = _test_scores(broken="new")
    kept = (test.slices["user_history"].codes != 0) | (test.users < 100)
    sliced = Sliced(test.slices["user_history"].names, test.slices["user_history"].codes[kept])
    scores = {name: values[kept] for name, values in test.scores.items()}
    test = TestScores(test.labels[kept], test.values[kept], test.users[kept], scores, test.objectives)
    thin, _ = _gate(replace(test, slices={"user_history": sliced}))
    assert thin.verdict is Outcome.PASS
    assert "too few users have rows of both classes in new" in thin.details
    few = sliced.codes == 0
    alone, _ = _gate(replace(test, slices={"user_history": Sliced(sliced.names, np.where(few, 0, 1))}))
    assert alone.verdict is Outcome.NOT_APPLICABLE
    assert "Fewer than two slices" in alone.details


def test_scores_without_gauc_beside_them_are_not_judged_by_slices():
    test = _test_scores()
    alone = replace(test, scores={"candidate": test.scores["candidate"]})
    gate, _ = _gate(alone)
    assert gate.verdict is Outcome.NOT_APPLICABLE


def test_intervals_hold_for_all_slices_at_once():
    """Ten slices of pure chance: an interval each would miss 0 in four kinds of ten, these in one of twenty."""
    margins = MARGINS.model_copy(update={"min_users": 2, "confidence": 0.9})
    missed = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        rows, users = 6000, np.arange(6000) % 150
        sliced = Sliced(tuple("abcdefghij"), random.integers(0, 10, rows))
        labels = random.integers(0, 2, rows)
        found = judge_slices(
            {"kind": sliced}, labels, users, random.random(rows), random.random(rows), margins=margins, seed=seed
        )["kind"]
        # A lag is no plain difference (its maximum leans to one side): only what is said to lag counts.
        missed += any(each.interval.high < -0.03 for each in found.judged)
    assert missed <= 6


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([{"name": "a", "column": "c", "starts": {"x": 0, "y": 0}}], "expected a start of its own for each"),
        ([{"name": "a", "column": "c", "starts": {"x": 0, "y": 1}}] * 2, r"slices \['a'\] are declared twice"),
        ([{"name": "a", "column": "c", "starts": {"x": 0}}], "at least 2 items"),
    ],
)
def test_slices_that_make_no_sense_are_refused(numbers, told):
    with pytest.raises(ValueError, match=told):
        DeclaredSlices(numbers=numbers)
