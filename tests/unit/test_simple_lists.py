"""Lists that anybody could make, against the same lists made by loops over users and by the papers' equations."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.questions import LIST_DEPTH, SIMPLE_LISTS, SimpleList
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.channels.fits import (
    HALF_LIVES,
    PENALTIES,
    SHRINKAGES,
    VARIANTS,
    all_together,
    ease_weights,
    item_cosines,
)
from pipelines.channels.likes import like_matrix
from pipelines.channels.lists import fitted_variants, top
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import duckdb_session
from pipelines.questions.asked import likes_before, seen_before
from pipelines.questions.simple_lists import write_lists
from tests.lake_world import DAY_ONE, event
from tests.likes import Liked, arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.lake_world import Row

Lists = dict[tuple[str, str], dict[str, list[str]]]
"""(method, variant) → user → items."""
ALL_ITEMS = 5000


def ids(names: Sequence[str]) -> np.ndarray:
    return np.array(sorted(names), dtype=np.str_)


def lists_of(table: pa.Table) -> Lists:
    assert table.schema == arrow_schema(SIMPLE_LISTS)
    found: Lists = {}
    for row in table.to_pylist():
        found.setdefault((row["method"], row["variant"]), {})[row["user_id"]] = row["items"]
    return found


def made(
    liked: Liked,
    catalogue: Sequence[str],
    users: Sequence[str],
    seen: Sequence[tuple[str, str]] | None = None,
    ease_items: int = ALL_ITEMS,
) -> Lists:
    """Make every list; users have seen what they liked, unless it is said what they have seen."""
    pairs = sorted(pair for pair in (liked if seen is None else seen) if pair[0] in users)
    table = pa.table({
        "user_id": pa.array([user for user, _ in pairs], pa.string()),
        "item_id": pa.array([item for _, item in pairs], pa.string()),
    })  # fmt: skip
    return lists_of(write_lists(like_matrix(arrays(liked), ids(catalogue)), sorted(users), table, ease_items))


def popularity(liked: Liked, catalogue: Sequence[str]) -> dict[str, int]:
    """Return item → how many users like it, the most liked first, ties by id."""
    counts = {item: sum(other == item for _, other in liked) for item in catalogue}
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def cosine_scores(liked: Liked, head: Sequence[str], user: str, shrinkage: float, half_life: float) -> dict[str, float]:
    """Return item → its score by ItemCF, from sets of users."""
    fans = {item: {who for who, what in liked if what == item} for item in head}
    scores = dict.fromkeys(head, 0.0)
    for (who, what), age in liked.items():
        if who != user or what not in fans:
            continue
        weight = 0.5 ** (age / half_life) if half_life else 1.0
        for item in head:
            if item != what:
                norm = math.sqrt(len(fans[item]) * len(fans[what]))
                scores[item] += weight * len(fans[item] & fans[what]) / (norm + shrinkage)
    return scores


def ease_scores(liked: Liked, head: Sequence[str], user: str, penalty: float, half_life: float) -> dict[str, float]:
    """Return item → its score by EASE, as in the listing of Steck (WWW 2019)."""
    users = sorted({who for who, _ in liked})
    x = np.array([[float((who, item) in liked) for item in head] for who in users]).reshape(len(users), len(head))
    p = np.linalg.inv(x.T @ x + penalty * np.eye(len(head)))
    b = p / (-np.diag(p))
    b[np.diag_indices(len(head))] = 0
    own = np.zeros(len(head))
    for place, item in enumerate(head):
        if (user, item) in liked:
            own[place] = 0.5 ** (liked[user, item] / half_life) if half_life else 1.0
    return dict(zip(head, (own @ b).tolist(), strict=True))


def assert_in_order(found: Sequence[str], scores: Mapping[str, float], popular: Sequence[str], seen: set[str]) -> None:
    """Expect the unseen items by falling score, what has none last by popularity, as long as a list may be."""
    left = [item for item in popular if item not in seen]
    assert len(found) == len(set(found)) == min(len(left), LIST_DEPTH)
    scored = [item for item in found if item in scores]
    assert found == scored + [item for item in left if item not in scores][: len(found) - len(scored)]
    values = [scores[item] for item in scored]
    assert all(values[n] >= values[n + 1] - 1e-6 for n in range(len(values) - 1))
    omitted = [scores[item] for item in left if item in scores and item not in set(found)]
    assert not omitted or max(omitted) <= values[-1] + 1e-6


ALPHABET = [f"i{number}" for number in range(8)]
liked_by_few = st.dictionaries(
    st.tuples(st.sampled_from([f"u{number}" for number in range(6)]), st.sampled_from([*ALPHABET, "gone"])),
    st.sampled_from([0.25, 3.0, 7.0, 7.5, 30.0, 30.01, 200.0]),
    max_size=30,
)
seen_by_few = st.sets(st.tuples(st.sampled_from(["u0", "u1", "u9"]), st.sampled_from([*ALPHABET, "gone"])), max_size=12)


@settings(max_examples=25, deadline=None)
@given(liked_by_few, seen_by_few, st.sampled_from([1, 3, ALL_ITEMS]))
def test_every_list_is_what_loops_make(liked, seen, ease_items):
    users = ["u0", "u1", "u9"]
    lists = made(liked, ALPHABET, users, sorted(seen), ease_items)
    counts = popularity(liked, ALPHABET)
    popular = list(counts)
    head = [item for item in popular if counts[item]][:ease_items]
    ages = {item: [age for (_, what), age in liked.items() if what == item] for item in ALPHABET}
    by_item = {
        (SimpleList.MOST_LIKED, ""): {item: float(counts[item]) for item in ALPHABET},
        (SimpleList.MOST_LIKED_7, ""): {item: sum(age <= 7 for age in ages[item]) for item in ALPHABET},
        (SimpleList.MOST_LIKED_30, ""): {item: sum(age <= 30 for age in ages[item]) for item in ALPHABET},
    } | {
        (SimpleList.RECENCY, f"half-life {days:g} days"): {
            item: sum(0.5 ** (age / days) for age in ages[item]) for item in ALPHABET
        }
        for days in HALF_LIVES
    }
    for user in users:
        own = {item for who, item in seen if who == user}
        for key, scores in by_item.items():
            assert_in_order(lists[key][user], scores, popular, own)
        for half_life, suffix in ((0.0, ""), *((days, f", half-life {days:g} days") for days in HALF_LIVES)):
            for shrinkage in SHRINKAGES:
                scores = cosine_scores(liked, head, user, shrinkage, half_life)
                assert_in_order(lists["ItemCF", f"shrinkage {shrinkage:g}{suffix}"][user], scores, popular, own)
            for penalty in PENALTIES:
                scores = ease_scores(liked, head, user, penalty, half_life)
                assert_in_order(lists["EASE", f"λ {penalty:g}{suffix}"][user], scores, popular, own)


@settings(max_examples=25, deadline=None)
@given(liked_by_few, st.sampled_from([0.5, *PENALTIES]), st.sampled_from([*SHRINKAGES, 1.5]))
def test_similarities_are_those_of_the_equations(liked, penalty, shrinkage):
    matrix = like_matrix(arrays(liked), ids(ALPHABET))
    head = matrix.items[matrix.counts > 0].tolist()
    x = matrix.liked.toarray()[:, : len(head)]
    together = all_together(matrix.liked[:, : len(head)])
    assert np.array_equal(together, x.T @ x)
    counts = matrix.counts[: len(head)]
    fans = [{user for user, what in liked if what == item} for item in head]
    cosines = [
        [len(one & other) / (math.sqrt(len(one) * len(other)) + shrinkage) * (one is not other) for other in fans]
        for one in fans
    ]
    assert np.allclose(item_cosines(together, counts, shrinkage), np.reshape(cosines, together.shape), atol=1e-6)
    if head:
        inverse = np.linalg.inv(x.T @ x + penalty * np.eye(len(head)))
        weights = np.eye(len(head)) - inverse @ np.diag(1 / np.diag(inverse))
        assert np.allclose(ease_weights(together, penalty), weights, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(liked_by_few)
def test_the_matrix_has_every_like_of_the_catalogue_once_and_items_by_popularity(liked):
    matrix = like_matrix(arrays(liked), ids(ALPHABET))
    known = {pair: age for pair, age in liked.items() if pair[1] != "gone"}
    coded = matrix.ages.tocoo()
    users, items = matrix.users[coded.row].tolist(), matrix.items[coded.col].tolist()
    ages = dict(zip(zip(users, items, strict=True), (coded.data - 1).tolist(), strict=True))
    assert ages == pytest.approx(known)
    assert coded.nnz == matrix.liked.sum() == len(known)
    assert dict(zip(matrix.items.tolist(), matrix.counts.tolist(), strict=True)) == popularity(known, ALPHABET)
    assert matrix.items.tolist() == list(popularity(known, ALPHABET))
    assert matrix.users.tolist() == sorted({user for user, _ in known})


@given(
    st.lists(
        st.lists(st.sampled_from([-np.inf, -1.0, 0.0, -0.0, 0.5, 2.0]), min_size=7, max_size=7), min_size=1, max_size=4
    ),
    st.integers(0, 9),
)
def test_top_is_a_stable_sort(rows, k):
    for row, found in zip(rows, top(np.array(rows), k).tolist(), strict=True):
        kept = [place for place in range(len(row)) if row[place] > -np.inf]
        best = sorted(kept, key=lambda place: -row[place])[:k]
        assert found == best + [-1] * (min(k, len(row)) - len(best))


def test_ties_go_to_the_more_liked_and_then_by_id():
    liked = {("ann", "d"): 40.0, ("bob", "d"): 40.0, ("ann", "c"): 40.0, ("ann", "b"): 1.0, ("cem", "a"): 40.0}
    lists = made(liked, ["a", "b", "c", "d", "e", "f"], ["new"])
    assert lists[SimpleList.MOST_LIKED, ""]["new"] == ["d", "a", "b", "c", "e", "f"]
    assert lists[SimpleList.MOST_LIKED_7, ""]["new"] == ["b", "d", "a", "c", "e", "f"]
    assert lists[SimpleList.MOST_LIKED_30, ""]["new"] == ["b", "d", "a", "c", "e", "f"]


def test_a_window_holds_its_first_moment():
    liked = {("ann", "in"): 7.0, ("bob", "out"): 7.0 + 1 / 86_400_000_000, ("cem", "out"): 30.0}
    lists = made(liked, ["in", "out"], ["new"])
    assert lists[SimpleList.MOST_LIKED_7, ""]["new"] == ["in", "out"]
    assert lists[SimpleList.MOST_LIKED_30, ""]["new"] == ["out", "in"]


def test_a_recent_like_weighs_as_much_as_two_of_a_half_life_ago():
    liked = {("ann", "b"): 0.0} | {(user, "a"): 7.0 for user in ("bob", "cem")}
    lists = made(liked, ["a", "b"], ["new"])
    assert lists["most liked, recency-weighted", "half-life 7 days"]["new"] == ["a", "b"]  # a tie
    assert lists["most liked, recency-weighted", "half-life 365 days"]["new"] == ["a", "b"]
    del liked["cem", "a"]
    assert made(liked, ["a", "b"], ["new"])["most liked, recency-weighted", "half-life 7 days"]["new"] == ["b", "a"]


def test_users_without_likes_get_the_most_liked_in_every_list_of_likes():
    liked = {(f"user {n}", item): 1.0 for n in range(9) for item in "abcdef"[: n + 1]}
    lists = made(liked, list("abcdefxy"), ["new"], seen=[("new", "b")])
    assert {tuple(users["new"]) for users in lists.values()} == {tuple("acdefxy")}


def test_what_was_seen_is_never_shown_whether_it_was_liked_or_not():
    liked = {(f"user {n}", f"i{(n * k) % 11}"): float(n) for n in range(12) for k in range(5)}
    seen = [("user 0", "i0"), ("user 0", "i5"), ("user 3", "i3"), ("user 3", "unknown"), ("user 3", "i9")]
    lists = made(liked, [f"i{n}" for n in range(11)], ["user 0", "user 3"], seen)
    for users in lists.values():
        assert set(users["user 0"]) == {f"i{n}" for n in range(11)} - {"i0", "i5"}
        assert set(users["user 3"]) == {f"i{n}" for n in range(11)} - {"i3", "i9"}


def test_who_has_seen_everything_has_empty_lists():
    lists = made({("ann", "a"): 1.0, ("ann", "b"): 1.0}, ["a", "b"], ["ann", "new"])
    assert {tuple(users["ann"]) for users in lists.values()} == {()}
    assert {tuple(users["new"]) for users in lists.values()} == {("a", "b")}


def test_a_list_has_as_many_items_as_it_may_where_the_catalogue_has_more():
    catalogue = [f"{number:03}" for number in range(LIST_DEPTH + 20)]
    lists = made({("ann", "110"): 1.0, ("ann", "119"): 1.0, ("bob", "119"): 1.0}, catalogue, ["ann", "bob"])
    assert lists[SimpleList.MOST_LIKED, ""]["ann"] == catalogue[:LIST_DEPTH]
    assert {tuple(users["bob"]) for users in lists.values()} == {("110", *catalogue[: LIST_DEPTH - 1])}


def test_an_item_that_everybody_likes():
    liked = {(f"user {n}", "all"): float(n) for n in range(5)} | {("user 0", "a"): 1.0, ("user 1", "b"): 1.0}
    lists = made(liked, ["a", "all", "b"], ["new", "user 0", "user 4"])
    assert {tuple(users["user 4"]) for users in lists.values()} >= {("a", "b")}
    assert {tuple(users["user 0"]) for users in lists.values()} == {("b",)}
    assert lists[SimpleList.MOST_LIKED, ""]["new"] == ["all", "a", "b"]
    assert {users["new"][0] for (method, _), users in lists.items() if method in {"ItemCF", "EASE"}} == {"all"}


def test_the_same_is_liked_by_all_twice_over():
    """Two items that nothing tells apart: X'X is singular without the penalty."""
    liked = {(f"user {n}", item): 1.0 for n in range(4) for item in ("a", "b")}
    lists = made(liked, ["a", "b", "c"], ["user 0"], seen=[("user 0", "c")])
    assert {tuple(users["user 0"]) for users in lists.values()} == {("a", "b")}


@pytest.mark.parametrize("liked", [{}, {("ann", "gone"): 1.0}], ids=["no likes", "likes of other items alone"])
def test_nobody_likes_anything(liked):
    lists = made(liked, ["a", "b", "c"], ["ann", "bob"], seen=[("ann", "a")])
    assert {tuple(users["ann"]) for users in lists.values()} == {("b", "c")}
    assert {tuple(users["bob"]) for users in lists.values()} == {("a", "b", "c")}
    assert len(lists) == 7 + (len(SHRINKAGES) + len(PENALTIES)) * (1 + len(HALF_LIVES))


def test_one_user_who_likes_one_item():
    lists = made({("ann", "b"): 3.0}, ["a", "b", "c"], ["ann"])
    assert {tuple(users["ann"]) for users in lists.values()} == {("a", "c")}


def test_an_empty_catalogue():
    lists = made({("ann", "b"): 3.0}, [], ["ann"])
    assert {tuple(users["ann"]) for users in lists.values()} == {()}


def test_nobody_is_asked():
    assert made({("ann", "b"): 3.0}, ["a", "b"], []) == {}


def test_the_most_liked_alone_are_known_to_item_cf_and_ease():
    """`b` and `c` are liked together, but beyond the head: neither leads to the other."""
    liked = {(f"user {n}", "a"): 1.0 for n in range(3)} | {(f"user {n}", item): 1.0 for n in (8, 9) for item in "bc"}
    for ease_items, first in ((ALL_ITEMS, "c"), (1, "a")):
        lists = made(liked | {("ann", "b"): 1.0}, ["a", "b", "c", "d"], ["ann"], ease_items=ease_items)
        found = {tuple(users["ann"]) for (method, _), users in lists.items() if method in {"ItemCF", "EASE"}}
        assert {items[0] for items in found} == {first}
        assert all(set(items) == {"a", "c", "d"} for items in found)


def test_what_ease_advises_against_comes_before_what_it_does_not_know():
    """Whoever likes `b` likes `a` or `c`: without `b`, one speaks against the other."""
    liked = {(f"user {n}", item): 1.0 for n in range(400) for item in ("b", "a" if n % 2 else "c")}
    matrix = like_matrix(arrays(liked), ids("abcz"))
    (ease,) = (each for each in fitted_variants(matrix, ALL_ITEMS) if each.variant.parameters == "λ 50")
    numbers = {item: place for place, item in enumerate(matrix.items.tolist())}
    assert ease.similarity[numbers["a"], numbers["c"]] < -0.1
    assert made(liked | {("ann", "a"): 1.0}, list("abcz"), ["ann"], seen=[("ann", "a"), ("ann", "b")])[
        "EASE", "λ 50"
    ] == {"ann": ["c", "z"]}


def test_what_was_liked_long_ago_counts_less_where_it_ages():
    liked = {
        ("ann", "old"): 300.0,
        ("ann", "young"): 1.0,
        **{(f"user {n}", item): 1.0 for n in range(3) for item in ("old", "like old")},
        **{(f"user {n}", item): 1.0 for n in (7, 8) for item in ("young", "like young")},
    }
    lists = made(liked, ["old", "young", "like old", "like young"], ["ann"])
    for plain in ("shrinkage 0", "shrinkage 10"):
        assert lists["ItemCF", plain]["ann"][0] == "like old"
        assert lists["ItemCF", f"{plain}, half-life 7 days"]["ann"][0] == "like young"
    assert lists["EASE", "λ 50"]["ann"][0] == "like old"
    assert lists["EASE", "λ 50, half-life 7 days"]["ann"][0] == "like young"


def test_users_beyond_a_chunk_get_their_own_lists():
    random = np.random.default_rng(1)
    users = [f"user {n:03}" for n in range(270)]
    liked = {(user, f"i{item}"): float(item) for user in users for item in random.choice(20, 4, replace=False)}
    catalogue = [f"i{n}" for n in range(20)]
    some = [users[n] for n in (0, 255, 256, 257, 269)]
    whole, alone = made(liked, catalogue, users), made(liked, catalogue, some)
    assert {key: {user: lists[user] for user in some} for key, lists in whole.items()} == alone
    assert len({tuple(items) for items in whole["EASE", "λ 50"].values()}) > 100


def test_variants_are_named_once_and_every_simple_list_has_one():
    fitted = [each.variant for each in fitted_variants(like_matrix(arrays({}), ids(["a"])), ALL_ITEMS)]
    assert tuple(fitted) == VARIANTS
    names = [(each.method, each.parameters) for each in fitted]
    assert len(set(names)) == len(names)
    assert list(dict.fromkeys(method for method, _ in names)) == list(SimpleList)


def test_what_happens_from_the_origin_on_changes_no_list():
    """A planted future: everything in it points to one item, which nothing before the origin does."""
    random = np.random.default_rng(7)
    past = [
        event(f"user {user}", f"i{item}", float(random.integers(1, 6)), day=float(random.integers(0, 2000)) / 100)
        for user in range(12)
        for item in random.choice(15, 6, replace=False)
    ]
    future = [event(f"user {user}", item, 5.0, day=20 + hours / 24) for user in range(30) for item, hours in
              (("planted", 0), ("planted", 5), (f"i{user % 15}", 30))]  # fmt: skip
    catalogue = ids([*(f"i{n}" for n in range(15)), "planted"])
    users = [f"user {user}" for user in sorted(map(str, range(12)))]
    origin = DAY_ONE + timedelta(days=20)

    def lists(rows: list[Row]) -> pa.Table:
        with duckdb_session("200MB") as connection:
            connection.register("events", pa.Table.from_pylist(rows, schema=arrow_schema(EVENTS)))
            matrix = like_matrix(likes_before(connection, origin, MOVIELENS.positive), catalogue)
            return write_lists(matrix, users, seen_before(connection, origin, pa.array(users)), ALL_ITEMS)

    before, after = lists(past), lists(future[::2] + past + future[1::2])
    assert before.equals(after)
    moved = [{**row, "event_time": row["event_time"] - timedelta(days=5)} for row in future]
    assert not before.equals(lists(past + moved))
