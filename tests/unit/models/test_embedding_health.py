"""Embeddings: which tables there are, what was never trained, what collides, and how far geometry has moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from feature_repo.contracts.columns import Column, Dtype, Encoding
from feature_repo.contracts.objectives import PROBABILITY
from feature_repo.contracts.signatures import SCORE, ModelInput, Scope, Signature
from models.encoding import build_encoder
from models.evaluation.embedding_health import drift_from, embedding_health, geometry_drift, tables
from models.ranking.deepfm import DeepFM
from models.training.fit import Fitted
from models.transforms import Transforms

ITEMS = tuple("abcdefgh")


def _column(name, **options):
    return Column(name, Dtype.STRING, "a term", missing="", **options)


COLUMNS = (
    _column("item_id", encoding=Encoding.VOCABULARY, vocabulary="item"),
    _column("user_last_items", encoding=Encoding.VOCABULARY, vocabulary="item", length=2),
    _column("user_town", encoding=Encoding.HASHED, buckets=3),
    _column("user_trade", encoding=Encoding.VOCABULARY, vocabulary="trade", buckets=2),
)
SIGNATURE = Signature("ranking", tuple(ModelInput(column, Scope.ITEM) for column in COLUMNS), SCORE, PROBABILITY)
TRANSFORMS = Transforms({"item": ITEMS, "trade": ("smith",)}, {}, {}, 3.0)
TRAIN = {
    "item_id": np.array(["a", "b", "a", "z"], object),
    "user_last_items": np.array([["c", ""], ["", ""], ["c", "d"], ["z", ""]], object),
    "user_town": np.array(["p", "q", "r", "s"], object),
    "user_trade": np.array(["smith", "smith", "", "baker"], object),
}


@pytest.fixture(scope="module")
def fitted():
    encoded = build_encoder(SIGNATURE, TRANSFORMS)
    model = DeepFM(DeepFM.config_class(hidden=(4,), embedding_size=3))
    rows = encoded.run(TRAIN, SIGNATURE)
    seen = {
        column: np.bincount(rows[column].ravel(), minlength=encoded.vocabulary_sizes[vocabulary])
        for column, vocabulary in encoded.categorical.items()
    }
    return Fitted(encoded, model.build(encoded, 1), seen=seen)


def test_tables_are_found_with_the_columns_that_read_them(fitted):
    found = {table.name: table for table in tables(fitted.scorer, fitted.encoded)}
    shared = found["item_embedding/embeddings"]
    assert (shared.vocabulary, shared.columns) == ("item", ("item_id", "user_last_items"))
    assert shared.vectors.shape == (10, 3)
    assert found["item_id_weight/embeddings"].columns == ("item_id",)
    assert {table.vocabulary for table in found.values()} == {"item", "user_town", "trade"}


def test_terms_that_no_train_row_has_are_counted_for_all_columns_of_a_table(fitted):
    health = {each["table"]: each for each in embedding_health(fitted, TRAIN, SIGNATURE, TRANSFORMS)["tables"]}
    shared = health["item_embedding/embeddings"]
    assert (shared["terms"], shared["untrained"]) == (8, 4), "a and b are rows' items, c and d of histories"
    assert health["item_id_weight/embeddings"]["untrained"] == 6
    assert health["user_last_items_weight/embeddings"]["untrained"] == 6
    assert 0 < shared["norm_min"] <= shared["norm_median"] <= shared["norm_max"]
    unseen = embedding_health(replace(fitted, seen={}), TRAIN, SIGNATURE, TRANSFORMS)["tables"]
    assert {each["untrained"] for each in unseen} == {None}, "nobody knows"


def test_collisions_are_those_of_the_hash(fitted):
    found = {each["column"]: each for each in embedding_health(fitted, TRAIN, SIGNATURE, TRANSFORMS)["hashed"]}
    buckets = [int(tf.strings.to_hash_bucket_fast(term, 3)) for term in "pqrs"]
    colliding = sum(buckets.count(bucket) > 1 for bucket in buckets)
    assert colliding >= 2, "four terms in three buckets"
    assert found["user_town"] == {"column": "user_town", "buckets": 3, "terms": 4, "colliding": colliding}
    assert found["user_trade"] == {"column": "user_trade", "buckets": 2, "terms": 2, "colliding": 0}


def test_geometry_does_not_drift_by_turning_or_stretching_and_does_by_chance():
    random = np.random.default_rng(2)
    before = random.normal(size=(60, 5))
    turn, _ = np.linalg.qr(random.normal(size=(5, 5)))
    assert geometry_drift(before, 3 * before @ turn) == pytest.approx(0, abs=1e-9)
    assert geometry_drift(before, random.normal(size=(60, 5))) > 0.7
    half = before + random.normal(size=before.shape)
    assert 0.05 < geometry_drift(before, half) < 0.7
    assert np.isnan(geometry_drift(np.ones((9, 2)), before[:9]))


def test_drift_is_over_the_terms_that_both_vocabularies_have_wherever_they_lie():
    random = np.random.default_rng(3)
    own = random.normal(size=(10, 4))
    places = [ITEMS.index(term) for term in "hgfba"]
    theirs = np.vstack([random.normal(size=(2, 4)), own[2:][places], random.normal(size=(1, 4))])
    found = drift_from(
        {"item/embeddings": own, "trade/embeddings": own, "alone/embeddings": own},
        {"item/embeddings": theirs, "trade/embeddings": theirs},
        {"item/embeddings": "item", "trade/embeddings": "trade", "alone/embeddings": "item"},
        {"item": ITEMS, "trade": tuple("xyz")},
        {"item": (*"hgfba", "new"), "trade": tuple("uvw")},
    )
    assert found == {"item/embeddings": {"drift": pytest.approx(0, abs=1e-9), "terms": 5}}


def test_a_weight_that_only_has_the_tables_name_is_no_table_of_its_terms():
    terms = {"item": tuple("abcde")}
    own = {"item/embeddings": np.random.default_rng(1).normal(size=(7, 4))}
    for other in (np.ones((4, 4)), np.ones(7)):
        assert drift_from(own, {"item/embeddings": other}, {"item/embeddings": "item"}, terms, terms) == {}
