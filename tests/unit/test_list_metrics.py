"""Figures of lists: by hand, by their properties, and against loops that know nothing of arrays."""

from __future__ import annotations

import math
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from feature_repo import list_metrics as metrics
from feature_repo.list_metrics import LIST_METRICS
from serving.lists.intervals import interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DISCOUNT = [1 / math.log2(place + 2) for place in range(10)]
CLOSE = 1e-12


def figure(name: str, answers: int, places: set[int], depth: int = 100) -> float:
    """Return a metric of one list of `depth` places, of which some hold an answer."""
    metric, k = LIST_METRICS[name]
    found = np.array([[place in places for place in range(depth)]], dtype=np.bool_).reshape(1, depth)
    (value,) = metric(found, np.array([answers]), k).tolist()
    return value


@pytest.mark.parametrize(
    ("answers", "places", "expected"),
    [
        (1, {0}, {"ndcg": 1, "recall": 1, "hit_rate": 1, "mrr": 1, "map": 1}),
        (1, {1}, {"ndcg": DISCOUNT[1], "recall": 1, "hit_rate": 1, "mrr": 1 / 2, "map": 1 / 2}),
        (1, {9}, {"ndcg": DISCOUNT[9], "recall": 1, "hit_rate": 1, "mrr": 1 / 10, "map": 1 / 10}),
        (1, {10}, {"ndcg": 0, "recall": 0, "hit_rate": 0, "mrr": 0, "map": 0}),
        (1, set(), {"ndcg": 0, "recall": 0, "hit_rate": 0, "mrr": 0, "map": 0}),
        (
            2,
            {0, 2},
            {"ndcg": 1.5 / (1 + DISCOUNT[1]), "recall": 1, "hit_rate": 1, "mrr": 1, "map": (1 + 2 / 3) / 2},
        ),
        (
            4,
            {1, 3},
            {
                "ndcg": (DISCOUNT[1] + DISCOUNT[3]) / sum(DISCOUNT[:4]),
                "recall": 1 / 2,
                "hit_rate": 1,
                "mrr": 1 / 2,
                "map": (1 / 2 + 2 / 4) / 4,
            },
        ),
        (30, set(range(10)), {"ndcg": 1, "recall": 1, "hit_rate": 1, "mrr": 1, "map": 1}),
        (
            30,
            {0, 1, 20},
            {"ndcg": (1 + DISCOUNT[1]) / sum(DISCOUNT), "recall": 2 / 10, "hit_rate": 1, "mrr": 1, "map": 2 / 10},
        ),
    ],
)
def test_figures_by_hand(answers, places, expected):
    received = {name: figure(f"{name}_at_10", answers, places) for name in expected}
    assert received == pytest.approx(expected)


def test_a_hundred_places_hold_what_ten_do_not():
    assert figure("recall_at_100", 4, {0, 10, 99}) == 3 / 4
    assert figure("recall_at_100", 200, set(range(50))) == 1 / 2
    best = sum(1 / math.log2(place + 2) for place in range(2))
    assert figure("ndcg_at_100", 2, {99}) == pytest.approx(1 / math.log2(101) / best)


@pytest.mark.parametrize("name", LIST_METRICS)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_list_that_is_shorter_than_k_places_is_as_one_that_holds_nothing_more(name, depth):
    places = set(range(depth)) - {1}
    assert figure(name, 5, places, depth) == figure(name, 5, places)


@pytest.mark.parametrize("name", LIST_METRICS)
def test_nobody_asked_has_no_figures(name):
    metric, k = LIST_METRICS[name]
    assert metric(np.zeros((0, 100), dtype=np.bool_), np.zeros(0, dtype=np.int64), k).tolist() == []


@st.composite
def asked(draw, depth: int = 100, users: int = 4) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Draw which places hold an answer, and how many answers there are: one or more, and those found at least."""
    rows = draw(st.lists(st.sets(st.integers(0, depth - 1), max_size=min(depth, 25)), min_size=1, max_size=users))
    found = np.array([[place in row for place in range(depth)] for row in rows], dtype=np.bool_)
    more = [draw(st.integers(0 if row else 1, 150)) for row in rows]
    return found, found.sum(axis=1) + np.array(more)


def by_loops(name: str, found: list[bool], answers: int, k: int) -> float:
    """Return a metric of one list, from its definition."""
    kind = name.rpartition("_at_")[0]
    hits = [place for place, is_hit in enumerate(found) if is_hit and place < k]
    if kind == "ndcg":
        ideal = sum(1 / math.log2(2 + place) for place in range(min(k, answers)))
        return sum(1 / math.log2(2 + place) for place in hits) / ideal
    if kind == "recall":
        return len(hits) / min(k, answers)
    if kind == "hit_rate":
        return float(len(hits) > 0)
    if kind == "mrr":
        return 1 / (1 + hits[0]) if hits else 0.0
    return sum((number + 1) / (place + 1) for number, place in enumerate(hits)) / min(k, answers)


@given(st.one_of(asked(), asked(depth=7)))
def test_figures_are_what_loops_find(case):
    found, answers = case
    figures = metrics.by_question(found, answers)
    assert list(figures) == list(LIST_METRICS)
    for name, (_, k) in LIST_METRICS.items():
        expected = [by_loops(name, row, count, k) for row, count in zip(found.tolist(), answers.tolist(), strict=True)]
        assert figures[name] == pytest.approx(expected)


@given(asked(depth=120), st.sampled_from([1, 5, 10, 100]))
def test_ndcg_is_scikit_learn_s(case, k):
    """Its ideal is the best order of what is shown: all answers are shown, at places beyond the list if need be."""
    found, answers = case
    beyond = int(answers.max())
    for row, count in zip(found, answers.tolist(), strict=True):
        absent = count - int(row.sum())
        relevant = np.concatenate([row, np.arange(beyond) < absent]).astype(np.float64)
        expected = ndcg_score([relevant], [-np.arange(len(relevant))], k=k)
        assert metrics.ndcg(row[None, :], np.array([count]), k).item() == pytest.approx(expected)


@given(asked())
def test_figures_lie_between_0_and_1(case):
    for values in metrics.by_question(*case).values():
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (values <= 1 + CLOSE).all()


@given(st.integers(1, 300))
def test_a_perfect_list_has_1_however_many_answers_there_are(answers):
    found = (np.arange(100) < answers)[None, :]
    assert {name: values.item() for name, values in metrics.by_question(found, np.array([answers])).items()} == (
        pytest.approx(dict.fromkeys(LIST_METRICS, 1.0))
    )


@given(asked(), st.randoms(use_true_random=False))
def test_the_order_below_k_changes_nothing(case, random):
    found, answers = case
    for name, (metric, k) in LIST_METRICS.items():
        places = list(range(k, 100))
        random.shuffle(places)
        shuffled = found[:, [*range(k), *places]]
        assert metric(shuffled, answers, k).tolist() == metric(found, answers, k).tolist(), name
        assert metric(found[:, :k], answers, k).tolist() == metric(found, answers, k).tolist(), name


@given(asked(), st.integers(1, 99))
def test_a_longer_list_holds_no_fewer_answers(case, k):
    """Unnormalised: what the first k places gain, the first k + 1 have too."""
    found, answers = case
    discounts = 1 / np.log2(np.arange(2, 102))
    for n in (k, k + 1):
        ideal = np.array([discounts[: min(n, count)].sum() for count in answers.tolist()])
        assert metrics.ndcg(found, answers, n) * ideal == pytest.approx(found[:, :n] @ discounts[:n])
        assert metrics.recall(found, answers, n) * np.minimum(answers, n) == pytest.approx(found[:, :n].sum(axis=1))
    assert (metrics.hit_rate(found, answers, k + 1) >= metrics.hit_rate(found, answers, k)).all()
    assert (metrics.reciprocal_rank(found, answers, k + 1) >= metrics.reciprocal_rank(found, answers, k)).all()


@given(asked(), st.integers(1, 99))
def test_an_answer_one_place_higher_is_no_worse(case, place):
    found, answers = case
    better = found.copy()
    better[:, place - 1] |= found[:, place]
    better[:, place] = found[:, place] & found[:, place - 1]
    for name, values in metrics.by_question(better, answers).items():
        assert (values >= metrics.by_question(found, answers)[name] - CLOSE).all()


@given(asked(depth=10))
def test_the_deciding_metric_and_average_precision_agree_on_perfection(case):
    found, answers = case
    perfect = {name: np.isclose(metrics.by_question(found, answers)[name], 1) for name in ("ndcg_at_10", "map_at_10")}
    full = found.sum(axis=1) == np.minimum(answers, 10)
    first = np.array([row.tolist() == sorted(row.tolist(), reverse=True) for row in found])
    assert perfect["ndcg_at_10"].tolist() == perfect["map_at_10"].tolist() == (full & first).tolist()


ITEMS = 12


@st.composite
def lists_and_answers(draw) -> tuple[NDArray[np.intp], list[set[int]]]:
    """Draw lists of distinct items, -1 where one has ended, and who likes what; -1 for what no list can hold."""
    depth = draw(st.integers(1, 8))
    users = draw(st.integers(1, 5))
    lists = np.full((users, depth), -1, dtype=np.intp)
    for row in lists:
        items = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=depth))
        row[: len(items)] = items
    return lists, [draw(st.sets(st.integers(-1, ITEMS - 1), max_size=6)) for _ in range(users)]


def pairs(wanted: list[set[int]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    flat = [(user, item) for user, items in enumerate(wanted) for item in sorted(items)]
    owners, answers = np.array(flat, dtype=np.intp).reshape(len(flat), 2).T
    return owners, answers


@given(lists_and_answers())
def test_hits_are_what_loops_find(case):
    lists, wanted = case
    expected = [[item >= 0 and item in own for item in row] for row, own in zip(lists.tolist(), wanted, strict=True)]
    assert metrics.hits(lists, *pairs(wanted), ITEMS).tolist() == expected


def test_one_user_s_end_of_a_list_is_not_another_s_last_item():
    """-1 of the second row, coded as the pairs are, is the last item of the first."""
    lists = np.array([[0, -1], [-1, -1]])
    assert metrics.hits(lists, np.array([0]), np.array([ITEMS - 1]), ITEMS).tolist() == [[False] * 2] * 2
    assert metrics.hits(lists, np.array([1]), np.array([-1]), ITEMS).tolist() == [[False] * 2] * 2


def test_no_hits_without_answers_or_lists():
    nothing = np.zeros(0, dtype=np.intp)
    assert metrics.hits(np.array([[0, 1]]), nothing, nothing, ITEMS).tolist() == [[False, False]]
    assert metrics.hits(np.zeros((0, 3), dtype=np.intp), nothing, nothing, ITEMS).shape == (0, 3)
    assert metrics.hits(np.full((1, 3), -1), np.array([0]), np.array([-1]), 0).tolist() == [[False] * 3]


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 8), st.integers(0, 4))
def test_the_best_possible_is_the_best_of_all_orders(candidates, k, absent):
    answers = np.array([sum(candidates) + absent])
    assume(answers[0] > 0)
    orders = np.array(list(permutations(candidates)), dtype=np.bool_)
    reached = metrics.ndcg(orders, np.repeat(answers, len(orders)), k)
    best = metrics.best_possible(np.array([candidates]), answers, k).item()
    assert best == pytest.approx(reached.max())
    assert best >= reached.max() - CLOSE


@given(asked(), st.sampled_from([1, 10, 100, 150]))
def test_no_order_of_candidates_beats_the_best_possible(case, k):
    assert (metrics.best_possible(*case, k) >= metrics.ndcg(*case, k) - CLOSE).all()


def test_the_best_possible_of_no_candidates_is_nothing():
    assert metrics.best_possible(np.zeros((2, 0), dtype=np.bool_), np.array([1, 30]), 10).tolist() == [0.0, 0.0]
    assert metrics.best_possible(np.ones((1, 3), dtype=np.bool_), np.array([3]), 10).item() == pytest.approx(1)


def means(figures: list[float]) -> float | None:
    return sum(figures) / len(figures) if figures else None


def shown(lists: NDArray[np.intp], k: int) -> list[list[int]]:
    return [[item for item in row if item >= 0] for row in lists[:, :k].tolist()]


@given(lists_and_answers(), st.integers(1, 8))
def test_overlap_and_coverage_are_what_loops_find(case, k):
    lists, _ = case
    tops = [set(row) for row in shown(lists, k)]
    expected = means([len(one & other) / k for one, other in combinations(tops, 2)])
    assert metrics.overlap(lists, k, ITEMS) == (None if expected is None else pytest.approx(expected))
    assert metrics.coverage(lists, k, ITEMS) == len(set().union(*tops)) / ITEMS


@given(lists_and_answers(), st.integers(1, 8), st.lists(st.integers(0, 9), min_size=ITEMS, max_size=ITEMS))
def test_novelty_is_what_loops_find(case, k, events):
    lists, _ = case
    expected = None
    if sum(events):
        bits = [-math.log2(max(events[item], 1) / sum(events)) for row in shown(lists, k) for item in row]
        expected = means(bits)
    received = metrics.novelty(lists, k, np.array(events))
    assert received == (None if expected is None else pytest.approx(expected))
    assert received is None or received >= 0


@given(
    lists_and_answers(),
    st.integers(1, 8),
    st.lists(st.sets(st.integers(0, 3)), min_size=ITEMS, max_size=ITEMS),
)
def test_diversity_is_what_loops_find(case, k, terms):
    lists, _ = case
    has = np.array([[term in own for term in range(4)] for own in terms], dtype=np.bool_)
    of_users = []
    for row in shown(lists, k):
        own = [terms[item] for item in row if terms[item]]
        distances = [1 - len(one & other) / len(one | other) for one, other in combinations(own, 2)]
        if distances:
            of_users.append(means(distances))
    expected = means(of_users)
    assert metrics.diversity(lists, k, has) == (None if expected is None else pytest.approx(expected))


def test_what_is_undefined_is_none():
    two = np.array([[0, 1], [1, 2]])
    nothing, nobody = np.full((2, 2), -1), np.zeros((0, 2), dtype=np.intp)
    events, terms = np.array([3, 2, 1]), np.eye(3, dtype=np.bool_)
    assert metrics.overlap(two[:1], 2, 3) is None
    assert metrics.overlap(nobody, 2, 3) is None
    assert metrics.coverage(two, 2, 0) is None
    assert metrics.novelty(nothing, 2, events) is None
    assert metrics.novelty(nobody, 2, events) is None
    assert metrics.novelty(two, 2, np.zeros(3, dtype=np.int64)) is None
    assert metrics.diversity(nothing, 2, terms) is None
    assert metrics.diversity(two[:, :1], 2, terms) is None
    assert metrics.diversity(two, 2, np.zeros((3, 3), dtype=np.bool_)) is None
    assert metrics.diversity(two, 2, np.zeros((3, 0), dtype=np.bool_)) is None


def test_what_is_defined_where_little_was_shown():
    nothing = np.full((2, 2), -1)
    assert metrics.overlap(nothing, 2, 3) == 0.0
    assert metrics.coverage(nothing, 2, 3) == 0.0
    assert metrics.overlap(np.array([[0, 1], [1, 0]]), 2, 3) == 1.0
    assert metrics.diversity(np.array([[0, 1]]), 2, np.eye(3, dtype=np.bool_)) == 1.0
    assert metrics.diversity(np.array([[0, 1]]), 2, np.ones((3, 2), dtype=np.bool_)) == 0.0
    assert metrics.novelty(np.array([[0, 2]]), 2, np.array([2, 2, 0])) == pytest.approx((1 + 2) / 2)


def own_numbers(values: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.arange(len(values))


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0, -3.5])
@pytest.mark.parametrize("users", [2, 3, 64])
def test_a_constant_has_an_interval_without_width(value, users):
    values = np.full(users, value)
    assert interval(values, own_numbers(values), 1) == (pytest.approx(value), pytest.approx(value))


@pytest.mark.parametrize("questions", [0, 1, 5])
def test_fewer_than_two_users_have_no_interval(questions):
    values = np.linspace(0, 1, questions)
    assert interval(values, np.full(questions, 3, dtype=np.intp), 1) is None


figures = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0]), min_size=2, max_size=40).map(np.array)


@settings(max_examples=40, deadline=None)
@given(figures, st.integers(2, 4), st.randoms(use_true_random=False))
def test_a_user_s_questions_are_resampled_together(values, times, random):
    """Asking everybody the same again says nothing new: an interval over questions would be narrower."""
    users = own_numbers(values)
    again, order = np.tile(users, times), list(range(len(values) * times))
    random.shuffle(order)
    once = interval(values, users, 5)
    assert interval(np.tile(values, times)[order], again[order], 5) == pytest.approx(once)


@settings(max_examples=40, deadline=None)
@given(figures, st.integers(0, 1000))
def test_an_interval_lies_around_the_mean_within_the_values(values, seed):
    low, high = interval(values, own_numbers(values), seed)
    assert values.min() - CLOSE <= low <= high <= values.max() + CLOSE
    assert low <= values.mean() + 0.1
    assert high >= values.mean() - 0.1
    assert interval(values, own_numbers(values), seed) == (low, high)


@settings(max_examples=20, deadline=None)
@given(figures)
def test_numbers_of_users_need_not_follow_each_other(values):
    assert interval(values, own_numbers(values) * 7 + 2, 1) == interval(values, own_numbers(values), 1)


def test_an_interval_is_about_as_wide_as_theory_says():
    values = np.random.default_rng(3).normal(0.3, 0.2, size=400)
    low, high = interval(values, own_numbers(values), 1)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (values.mean() - low, high - values.mean()) == pytest.approx((half, half), rel=0.15)


def test_intervals_by_a_loop_over_resamples():
    """Users of one and of many questions: the mean is over questions, the draw over users."""
    random = np.random.default_rng(11)
    users = np.repeat(np.arange(60), random.integers(1, 9, size=60))
    values = random.random(len(users)) * 0.3 + (users % 5 == 0) * 0.5
    own: dict[int, list[float]] = {}
    for user, value in zip(users.tolist(), values.tolist(), strict=True):
        own.setdefault(user, []).append(value)
    resampled = []
    for _ in range(2000):
        drawn = [value for user in random.integers(0, 60, size=60).tolist() for value in own[user]]
        resampled.append(sum(drawn) / len(drawn))
    assert interval(values, users, 1) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])), abs=0.01)


def test_metrics_are_what_their_names_say():
    forms: dict[str, Callable[..., NDArray[np.float64]]] = {
        "ndcg": metrics.ndcg,
        "recall": metrics.recall,
        "hit_rate": metrics.hit_rate,
        "mrr": metrics.reciprocal_rank,
        "map": metrics.average_precision,
    }
    for name, (metric, k) in LIST_METRICS.items():
        form, _, depth = name.rpartition("_at_")
        assert (metric, k) == (forms[form], int(depth))
    assert next(iter(LIST_METRICS)) == metrics.DECIDING
