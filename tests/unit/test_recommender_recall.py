from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contracts.embeddings import EMBEDDING_SIZE, RECENCY_DECAY
from feature_repo.contracts.manifests import Similarity, vectors_part
from serving.recommender.catalogue import catalogue_from_table
from serving.recommender.embeddings import ItemVectors, vectors_from_table
from serving.recommender.errors import SnapshotError
from serving.recommender.recall.blending import blend
from serving.recommender.recall.channel import Recalled, best
from serving.recommender.recall.embedding import recall_near
from serving.recommender.recall.popular import recall_popular
from serving.recommender.seen import SeenMemory, unseen_items
from serving.recommender.slate import order_slate
from serving.recommender.user_vector import user_vector
from tests.movielens import FEATURES
from tests.recommender_world import CUTOFF, ITEM_COUNT, TASTES, catalogue_table, item_id, taste_of, vectors_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

CATALOGUE = catalogue_from_table(catalogue_table(), FEATURES, "made up")
PART = vectors_part("item2vec", CUTOFF, "made up", "0" * 64, EMBEDDING_SIZE)
VECTORS = vectors_from_table(vectors_table(), CATALOGUE, PART, "made up")
EVERYTHING = np.ones(ITEM_COUNT, dtype=np.bool_)

item_sets = st.sets(st.integers(0, ITEM_COUNT - 1))
scores = st.lists(st.sampled_from([0.0, -0.0, 0.1, 0.5, -2.0, 1e-30, 7.0]), max_size=60)
channels = st.lists(
    st.tuples(st.lists(st.integers(0, 30), unique=True), st.integers(1, 5)),
    min_size=1,
    max_size=4,
).map(lambda found: [(Recalled(f"c{n}", np.array(p, dtype=np.intp)), quota) for n, (p, quota) in enumerate(found)])


@given(scores, st.integers(0, 70))
def test_best_equals_a_stable_sort(values: list[float], n: int) -> None:
    array = np.array(values, dtype=np.float32)
    assert best(array, n).tolist() == np.argsort(-array, kind="stable")[:n].tolist()


@given(item_sets, st.integers(1, 300))
def test_popular_is_what_is_left_by_falling_number_of_ratings(seen: set[int], n: int) -> None:
    allowed = unseen_items(CATALOGUE, [item_id(number) for number in seen])
    recalled = recall_popular(CATALOGUE, allowed, n)
    assert recalled.positions.tolist() == [number for number in range(ITEM_COUNT) if number not in seen][:n]


def test_popularity_ties_are_decided_by_mean_and_then_by_id() -> None:
    table = catalogue_table(4)
    index = table.column_names.index("item_event_count")
    table = table.set_column(index, "item_event_count", [[5, 5, 9, 5]])
    index = table.column_names.index("item_value_mean")
    table = table.set_column(index, "item_value_mean", [[3.0, 4.0, 1.0, 3.0]])
    table = table.take([3, 1, 0, 2])
    assert [item_id(position) for position in catalogue_from_table(table, FEATURES, "made up").popular] == [
        "0002",
        "0001",
        "0000",
        "0003",
    ]


def test_ids_that_the_catalogue_does_not_know_are_left_out() -> None:
    assert CATALOGUE.find(["0003", "no such item", "", "0001"]).tolist() == [3, 1]
    assert CATALOGUE.find([]).tolist() == []


liked_lists = st.lists(st.integers(0, ITEM_COUNT - 1), min_size=1, max_size=6)


@given(liked_lists, item_sets, st.integers(1, 300))
def test_near_items_equal_a_search_by_hand(liked: list[int], seen: set[int], n: int) -> None:
    """By the cosine with the mean of what was liked, each like weighing less than the one after it."""
    allowed = unseen_items(CATALOGUE, [item_id(number) for number in seen | set(liked)])
    near = recall_near("item2vec", VECTORS, np.array(liked), allowed, n)
    vectors = VECTORS.vectors.astype(np.float64)
    user = sum(RECENCY_DECAY**place * vectors[number] for place, number in enumerate(liked))
    cosines = vectors @ user / np.linalg.norm(user)
    expected = sorted((-cosine, number) for number, cosine in enumerate(cosines) if allowed[number] and cosine > 0)
    np.testing.assert_allclose(near.similarity, [-cosine for cosine, _ in expected[:n]], rtol=1e-5, atol=1e-6)
    assert not set(near.recalled.positions.tolist()) & (seen | set(liked))
    for found, nearest in zip(near.recalled.positions.tolist(), near.nearest.tolist(), strict=True):
        assert vectors[found] @ vectors[nearest] >= max(vectors[found] @ vectors[liked].T) - 1e-6
        assert nearest in liked


def test_near_items_have_the_taste_of_what_was_liked() -> None:
    liked = np.array([2])
    near = recall_near("item2vec", VECTORS, liked, unseen_items(CATALOGUE, ["0002"]), ITEM_COUNT // TASTES - 1)
    assert {taste_of(position) for position in near.recalled.positions.tolist()} == {taste_of(2)}
    assert near.recalled.channel == "item2vec"


def test_nothing_is_near_items_without_a_vector() -> None:
    without = vectors_from_table(vectors_table().slice(10), CATALOGUE, PART, "made up")
    assert not without.known[:10].any()
    for liked in ([], [3], [3, 7, 3]):
        near = recall_near("node2vec", without, np.array(liked, dtype=np.intp), EVERYTHING, 10)
        assert not len(near.recalled.positions)
        assert not len(near.nearest)
    near = recall_near("item2vec", without, np.array([3, 50]), EVERYTHING, ITEM_COUNT)
    assert set(near.nearest.tolist()) == {50}
    assert near.recalled.positions.min() >= 10


def test_a_user_vector_has_unit_length_and_knows_the_latest_best() -> None:
    vector = user_vector(VECTORS, np.array([0, 1]))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert VECTORS.vectors[0] @ vector > VECTORS.vectors[1] @ vector > 0.5
    assert not user_vector(VECTORS, np.array([], dtype=np.intp)).any()


def made_vectors(numbers: NDArray[np.float64], similarity: Similarity) -> ItemVectors:
    """Vectors of the first items of the catalogue."""
    table = pa.table({"item_id": [item_id(row) for row in range(len(numbers))], "embedding": numbers.tolist()})
    part = vectors_part("two-tower", CUTOFF, "made up", "0" * 64, numbers.shape[1], similarity)
    return vectors_from_table(table, CATALOGUE, part, "made up")


@pytest.mark.parametrize("size", [1, 3, 64, 200])
@pytest.mark.parametrize("similarity", list(Similarity))
def test_vectors_of_any_size_are_compared_as_their_part_says(size: int, similarity: Similarity) -> None:
    numbers = np.random.default_rng(size).normal(0, 3, (50, size))
    vectors = made_vectors(numbers, similarity)
    liked = np.array([7, 2, 11])
    near = recall_near("two-tower", vectors, liked, EVERYTHING, 1000)
    if similarity is Similarity.COSINE:
        numbers = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    weights = RECENCY_DECAY ** np.arange(3)
    user = weights @ numbers[liked]
    products = numbers @ (user / (np.linalg.norm(user) if similarity is Similarity.COSINE else weights.sum()))
    order = np.argsort(-products, kind="stable")
    expected = order[products[order] > 0] if similarity is Similarity.COSINE else order
    assert near.recalled.positions.tolist() == expected.tolist()
    np.testing.assert_allclose(near.similarity, products[expected], rtol=1e-4, atol=1e-5)


def test_an_inner_product_takes_lengths_into_account_and_may_be_zero_or_below() -> None:
    numbers = np.array([[1.0, 0.0], [5.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])
    vectors = made_vectors(numbers, Similarity.INNER_PRODUCT)
    near = recall_near("two-tower", vectors, np.array([0]), EVERYTHING, 10)
    assert near.recalled.positions.tolist() == [1, 0, 2, 3]
    assert near.similarity.tolist() == [5.0, 1.0, 0.0, -1.0]
    of_nothing = recall_near("two-tower", vectors, np.array([90]), EVERYTHING, 10)
    assert not len(of_nothing.recalled.positions), "whoever liked nothing with a vector is near nothing"
    with pytest.raises(SnapshotError, match="finite, positive length"):
        made_vectors(numbers, Similarity.COSINE)


def test_vectors_of_another_size_than_their_part_says_are_refused() -> None:
    part = vectors_part("item2vec", CUTOFF, "made up", "0" * 64, EMBEDDING_SIZE + 1)
    with pytest.raises(
        SnapshotError, match=rf"vectors of {EMBEDDING_SIZE + 1} numbers, received sizes \[{EMBEDDING_SIZE}\]"
    ):
        vectors_from_table(vectors_table(), CATALOGUE, part, "made up")


@given(channels)
def test_each_channel_keeps_its_own_order(found: list[tuple[Recalled, int]]) -> None:
    candidates = blend(found[:1], 100)
    assert candidates.positions.tolist() == found[0][0].positions.tolist()


def test_channels_take_turns_in_proportion_to_their_quotas() -> None:
    popular = Recalled("popular", np.arange(100, 200))
    near = Recalled("item2vec", np.arange(200, 300))
    assert blend([(popular, 1), (near, 1)], 6).positions.tolist() == [100, 200, 101, 201, 102, 202]
    mixed = blend([(popular, 1), (near, 3)], 40).positions
    assert (mixed >= 200).sum() == 30


def test_what_one_channel_cannot_fill_the_others_do() -> None:
    popular = Recalled("popular", np.arange(100, 200))
    near = Recalled("item2vec", np.array([7]))
    assert blend([(popular, 1), (near, 1)], 50).positions.tolist() == [100, 7, *range(101, 149)]


def test_the_slate_is_by_score_and_ties_stay_in_recall_order() -> None:
    candidates = blend([(Recalled("popular", np.arange(5)), 1)], 5)
    scores = np.array([0.1, 0.9, 0.5, 0.9, 0.5], dtype=np.float32)
    assert order_slate(CATALOGUE, candidates.positions, scores, 4).tolist() == [1, 3, 2, 4]
    assert order_slate(CATALOGUE, candidates.positions, None, 3).tolist() == [0, 1, 2]
    assert order_slate(CATALOGUE, candidates.positions, None, 30).tolist() == [0, 1, 2, 3, 4]


def test_the_memory_of_what_was_seen_forgets_the_least_recent_user() -> None:
    memory = SeenMemory(2)
    for user in ("a", "b", "a", "c"):
        memory.keep(user, (user,))
    assert [memory.recall(user) for user in "abc"] == [("a",), (), ("c",)]
    nothing = SeenMemory(0)
    nothing.keep("a", ("a",))
    assert nothing.recall("a") == ()


@given(channels)
def test_more_candidates_begin_with_those_of_fewer(found: list[tuple[Recalled, int]]) -> None:
    """Recall is measured on more candidates than are ranked: the first of them are those that are."""
    for few in (1, 5, 12):
        short = [(Recalled(one.channel, one.positions[:few]), quota) for one, quota in found]
        assert blend(found, 40).positions[:few].tolist() == blend(short, few).positions.tolist()
