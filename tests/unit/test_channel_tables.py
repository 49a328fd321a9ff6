"""Tables of channels and the choice of their variants, against loops over sets and the papers' equations."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.channels import channels
from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.questions import LONG_HISTORY, Audience, Role, SimpleList
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.channels.choice import Judged, Validation, choose, variants_of
from pipelines.channels.fits import (
    HALF_LIVES,
    PENALTIES,
    SHRINKAGES,
    VARIANTS,
    Variant,
    all_together,
    ease_weights,
    item_cosines,
)
from pipelines.channels.likes import like_matrix
from pipelines.channels.tables import neighbours_table, scores_table
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import duckdb_session
from pipelines.questions.asked import likes_before, seen_before
from pipelines.questions.origins import validation_origins
from pipelines.questions.simple_lists import write_lists
from pipelines.settings import Settings
from tests.lake_world import DAY_ONE, event
from tests.likes import Liked, arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.lake_world import Row

CLOSE = 1e-6
MANY = 5000
ITEMS = [f"i{number}" for number in range(8)]
liked_by_few = st.dictionaries(
    st.tuples(st.sampled_from([f"u{number}" for number in range(6)]), st.sampled_from(ITEMS)),
    st.sampled_from([0.25, 3.0, 7.0, 7.5, 30.0, 30.01, 200.0]),
    max_size=30,
)


def most_liked(liked: Liked) -> list[str]:
    counts = {item: sum(what == item for _, what in liked) for _, item in liked}
    return sorted(counts, key=lambda item: (-counts[item], item))


def cosines(liked: Liked, shrinkage: float) -> dict[tuple[str, str], float]:
    """Return (liked item, scored item) → weight, by sets of users."""
    fans = {item: {who for who, what in liked if what == item} for item in most_liked(liked)}
    return {
        (one, other): len(fans[one] & fans[other]) / (math.sqrt(len(fans[one]) * len(fans[other])) + shrinkage)
        for one in fans
        for other in fans
        if one != other
    }


def ease(liked: Liked, head: Sequence[str], penalty: float) -> dict[tuple[str, str], float]:
    """Return (liked item, scored item) → weight, as in the listing of Steck (WWW 2019)."""
    users = sorted({who for who, _ in liked})
    x = np.array([[float((who, item) in liked) for item in head] for who in users]).reshape(len(users), len(head))
    p = np.linalg.inv(x.T @ x + penalty * np.eye(len(head)))
    b = p / (-np.diag(p))
    return {
        (one, other): float(b[row, column])
        for row, one in enumerate(head)
        for column, other in enumerate(head)
        if row != column
    }


def assert_neighbours(
    table: pa.Table, known: Sequence[str], weights: Mapping[tuple[str, str], float], most: int
) -> None:
    """Expect of each item the greatest weights by their size, greatest first, without zeros."""
    rows = table.to_pylist()
    assert [row["item_id"] for row in rows] == sorted(known)
    names = sorted(known)
    for row in rows:
        own = {
            other: weight for (one, other), weight in weights.items() if one == row["item_id"] and abs(weight) > 1e-9
        }
        found = {names[place]: weight for place, weight in zip(row["neighbours"], row["weights"], strict=True)}
        assert len(found) == len(row["neighbours"]) == min(most, len(own))
        assert all(weight == pytest.approx(own[other], abs=CLOSE) for other, weight in found.items())
        sizes = [abs(weight) for weight in row["weights"]]
        assert sizes == sorted(sizes, reverse=True)
        assert all(sizes)
        left = [abs(weight) for other, weight in own.items() if other not in found]
        assert not left or max(left) <= min(sizes) + CLOSE
        ties = zip(row["neighbours"], sizes, row["neighbours"][1:], sizes[1:], strict=False)
        assert all(one < other for one, size, other, next_size in ties if size == next_size), "ties by row"


@settings(max_examples=40, deadline=None)
@given(
    liked_by_few,
    st.sampled_from([0.5, *PENALTIES]),
    st.sampled_from([*SHRINKAGES, 1.5]),
    st.sampled_from([1, 3, MANY]),
    st.sampled_from([1, 2, MANY]),
)
def test_neighbours_are_what_loops_and_equations_say(liked, penalty, shrinkage, head, most):
    matrix = like_matrix(arrays(liked))
    popular = most_liked(liked)
    item_cf = neighbours_table(matrix, Variant(SimpleList.ITEM_CF, shrinkage), head, most)
    assert_neighbours(item_cf, popular, cosines(liked, shrinkage), most)
    known = popular[:head]
    weights = neighbours_table(matrix, Variant(SimpleList.EASE, penalty, 30.0), head, most)
    assert_neighbours(weights, known, ease(liked, known, penalty) if known else {}, most)


@settings(max_examples=40, deadline=None)
@given(liked_by_few)
def test_scores_are_shares_of_the_users_who_liked_anything_then(liked):
    matrix = like_matrix(arrays(liked))
    weighings = {
        Variant(SimpleList.MOST_LIKED): lambda _: 1.0,
        Variant(SimpleList.MOST_LIKED_7): lambda age: float(age <= 7),
        Variant(SimpleList.MOST_LIKED_30): lambda age: float(age <= 30),
        **{
            Variant(SimpleList.RECENCY, half_life=days): lambda age, days=days: 0.5 ** (age / days)
            for days in HALF_LIVES
        },
    }
    for variant, weigh in weighings.items():
        found = {row["item_id"]: row["score"] for row in scores_table(matrix, variant).to_pylist()}
        assert list(found) == sorted(found)
        greatest: dict[str, float] = {}
        summed: dict[str, float] = {}
        for (who, what), age in liked.items():
            greatest[who] = max(greatest.get(who, 0.0), weigh(age))
            summed[what] = summed.get(what, 0.0) + weigh(age)
        users = sum(greatest.values())
        expected = {what: weight / users for what, weight in summed.items() if weight}
        assert found == pytest.approx(expected, rel=1e-5)
        assert all(0 < score <= 1 for score in found.values())


def many_likes(users: int = 300, items: int = 700) -> Liked:
    drawn = np.random.default_rng(5)
    return {(f"u{user}", f"i{int(item)}"): 1.0 for user in range(users) for item in drawn.zipf(1.2, 30) % items}


def test_sparse_cosines_are_the_dense_ones_to_the_bit_beyond_a_block_of_rows():
    liked = many_likes()
    matrix = like_matrix(arrays(liked))
    assert len(matrix.items) > 2 * 256
    table = neighbours_table(matrix, Variant(SimpleList.ITEM_CF, 10.0), 1, MANY)
    dense = item_cosines(all_together(matrix.liked), matrix.counts, 10.0)
    columns = {item: place for place, item in enumerate(matrix.items.tolist())}
    names = table.column("item_id").to_pylist()
    for row in table.to_pylist():
        expected = dense[columns[row["item_id"]]]
        found = np.zeros_like(expected)
        found[[columns[names[place]] for place in row["neighbours"]]] = row["weights"]
        assert np.array_equal(found, expected)


def test_ease_beyond_a_block_of_rows_is_the_inverse():
    matrix = like_matrix(arrays(many_likes()))
    x = matrix.liked.toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 50.0 * np.eye(len(matrix.items)))
    expected = np.eye(len(matrix.items)) - inverse / np.diag(inverse)
    assert np.allclose(ease_weights(all_together(matrix.liked), 50.0), expected, atol=CLOSE)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_rough_weights_of_ease_are_the_exact_ones_but_for_what_single_precision_loses(penalty):
    together = all_together(like_matrix(arrays(many_likes())).liked)
    exact, rough = ease_weights(together, penalty), ease_weights(together, penalty, roughly=True)
    assert rough.dtype == exact.dtype == np.float32
    assert np.abs(rough - exact).max() <= 1e-4 * np.abs(exact).max()
    assert not np.array_equal(rough, exact), "another way, indeed"


def test_weights_of_ease_are_exact_where_single_precision_would_lose_too_much():
    """A thousand users like all of thirty items: the greatest eigenvalue is 30,000, and the penalty next to nothing."""
    together = np.full((30, 30), 1000.0, dtype=np.float32)
    assert np.array_equal(ease_weights(together, 1e-3, roughly=True), ease_weights(together, 1e-3))
    assert not np.array_equal(ease_weights(together, 50.0, roughly=True), ease_weights(together, 50.0))


def test_a_channel_has_the_variants_of_its_list_aged_or_not_as_it_is_declared():
    of = {name: variants_of(channel) for name, channel in channels(MOVIELENS).items() if channel.table}
    assert [each.parameters for each in of["ease"]] == [f"λ {penalty:g}" for penalty in PENALTIES]
    assert len(of["ease_aged"]) == len(PENALTIES) * len(HALF_LIVES)
    assert all(each.half_life for each in of["ease_aged"])
    assert len(of["itemcf"]) == len(SHRINKAGES) * (1 + len(HALF_LIVES))
    assert [each.half_life for each in of["liked_lately"]] == list(HALF_LIVES)
    assert [len(of[name]) for name in ("liked_7d", "liked_30d", "liked")] == [1, 1, 1]


def judged_as(history: list[int], best: Variant, figures: list[float], others: list[float]) -> Judged:
    return Judged(
        np.array(history, dtype=np.int64),
        {variant: np.array(figures if variant == best else others) for variant in VARIANTS},
    )


def test_users_of_long_history_choose_and_each_audience_has_its_figure():
    best = Variant(SimpleList.EASE, 500.0)
    choice = choose(
        channels(MOVIELENS)["ease"],
        judged_as([LONG_HISTORY, LONG_HISTORY - 1, 0], best, [0.5, 0.1, 0.2], [0.4, 0.9, 0.9]),
    )
    assert (choice.variant, choice.tried) == (best, 6)
    assert choice.validation == pytest.approx({Audience.KNOWN: 0.5, Audience.NEW: 0.15})


def test_everybody_chooses_where_nobody_has_a_long_history_and_ties_go_to_the_first_by_name():
    best = Variant(SimpleList.EASE, 500.0)
    channel = channels(MOVIELENS)["ease"]
    choice = choose(channel, judged_as([1, 0], best, [0.5, 0.1], [0.1, 0.4]))
    assert (choice.variant, choice.validation) == (best, {Audience.NEW: pytest.approx(0.3)})
    tied = choose(channel, judged_as([9, 9], best, [0.5, 0.1], [0.1, 0.5]))
    assert tied.variant.parameters == min(each.parameters for each in variants_of(channel))
    assert set(tied.validation) == {Audience.KNOWN}


def ndcg(found: list[str], answers: set[str]) -> float:
    gained = sum(1 / math.log2(place + 2) for place, item in enumerate(found[:10]) if item in answers)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(10, len(answers))))


def drawn_log(days: int = 130) -> list[Row]:
    drawn = np.random.default_rng(11)
    return [
        event(f"u{user}", f"i{int(item)}", float(drawn.integers(2, 6)), float(day))
        for user in range(25)
        for item, day in zip(drawn.zipf(1.3, 14) % 40, np.sort(drawn.uniform(user, days, 14)), strict=True)
    ]


def test_the_choice_is_that_of_loops_over_every_written_list(tmp_path: Path):
    """Beside the lists, which have loops of their own: who is asked, who answers, the metric, the pool, the choice."""
    rows, cutoff = drawn_log(), DAY_ONE + timedelta(days=120)
    told = Settings(state=tmp_path)
    with duckdb_session("200MB") as connection:
        connection.register("events", pa.Table.from_pylist(rows, schema=arrow_schema(EVENTS)))
        found = Validation(connection, MOVIELENS.positive, told).before(cutoff)
        figures: dict[tuple[str, str], list[float]] = {}
        histories = []
        for days in (60, 30):
            origin = cutoff - timedelta(days=days)
            end = origin + timedelta(days=30)
            before = [row for row in rows if row["event_time"] < origin]
            had = {(row["user_id"], row["item_id"]) for row in before}
            answers: dict[str, set[str]] = {}
            for row in rows:
                pair = row["user_id"], row["item_id"]
                if origin <= row["event_time"] < end and row["value"] >= 4 and pair not in had:
                    answers.setdefault(pair[0], set()).add(pair[1])
            users = sorted(answers)
            histories += [sum(row["user_id"] == user for row in before) for user in users]
            matrix = like_matrix(likes_before(connection, origin, MOVIELENS.positive))
            seen = seen_before(connection, origin, pa.array(users))
            for row in write_lists(matrix, users, seen, MANY).to_pylist():
                key = row["method"], row["variant"]
                figures.setdefault(key, []).append(ndcg(row["items"], answers[row["user_id"]]))
    assert found.history.tolist() == histories
    assert any(history >= LONG_HISTORY for history in histories)
    assert any(history < LONG_HISTORY for history in histories)
    for variant in VARIANTS:
        assert found.figures[variant].tolist() == pytest.approx(figures[variant.method.value, variant.parameters])
    long = [history >= LONG_HISTORY for history in histories]
    for channel in (each for each in channels(MOVIELENS).values() if each.table):
        means = {
            variant.parameters: float(np.mean(np.array(figures[variant.method.value, variant.parameters])[long]))
            for variant in variants_of(channel)
        }
        chosen = choose(channel, found)
        assert means[chosen.variant.parameters] == pytest.approx(max(means.values()))
        assert chosen.validation[Audience.KNOWN] == pytest.approx(means[chosen.variant.parameters])


def test_an_origin_is_judged_once_for_several_cutoffs_and_later_events_change_nothing(tmp_path: Path):
    # Something happens on every day from the first moment on: both cutoffs count their origins back from themselves.
    rows = [*drawn_log(), *(event("daily", f"i{day % 40}", 3.0, day) for day in range(120))]
    cutoff = DAY_ONE + timedelta(days=120)
    with duckdb_session("200MB") as connection:
        connection.register("events", pa.Table.from_pylist(rows, schema=arrow_schema(EVENTS)))
        validation = Validation(connection, MOVIELENS.positive, Settings(state=tmp_path))
        later = validation.before(cutoff)
        earlier = validation.before(cutoff - timedelta(days=30))
        assert len(validation.done) == 3
        past = [row for row in rows if row["event_time"] < cutoff - timedelta(days=30)]
        connection.register("events", pa.Table.from_pylist(past, schema=arrow_schema(EVENTS)))
        alone = Validation(connection, MOVIELENS.positive, Settings(state=tmp_path)).before(cutoff - timedelta(days=30))
    assert np.array_equal(earlier.history, alone.history)
    assert all(np.array_equal(earlier.figures[variant], alone.figures[variant]) for variant in VARIANTS)
    assert len(later.history) != len(earlier.history)


@pytest.mark.parametrize(
    ("last", "cutoff", "expected"),
    [
        (200, 200, [(140, 170), (170, 200)]),
        (200, 100, [(40, 70), (70, 100)]),
        (90.5, 300, [(31, 61), (61, 91)]),
        (40, 300, [(20, 30), (30, 40)]),
        (2.5, 300, [(1, 2), (2, 3)]),
        (1.5, 300, [(1, 2)]),
        (0.5, 300, []),
    ],
)
def test_origins_to_choose_on_end_their_answers_before_the_cutoff(last, cutoff, expected):
    first, last, cutoff = (DAY_ONE + timedelta(days=day) for day in (0.25, last - 0.001, cutoff))
    origins = validation_origins(first, last, cutoff, 30)
    assert {each.role for each in origins} <= {Role.VALIDATION}
    days = [((each.moment - DAY_ONE) / timedelta(days=1), (each.end - DAY_ONE) / timedelta(days=1)) for each in origins]
    assert all(end <= (cutoff - DAY_ONE) / timedelta(days=1) for _, end in days)
    assert days == expected
