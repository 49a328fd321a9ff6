"""Inputs of user and item together are encoded, fitted and exported, one row for each candidate."""

from __future__ import annotations

import numpy as np
import pytest

from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, Scope, read_signature
from models.dataset import TEST, TRAIN, read_dataset
from models.encoding import build_encoder
from models.evaluation.golden import golden_requests
from models.evaluation.metrics import auc
from models.export import export
from models.inputs import tensor_specs
from models.ranking.catalogue import RANKING_MODELS
from models.saved_model_loader import SavedModel
from models.training.fit import fit
from serving.rollout.saved_models import check_signatures
from tests.saved_model_session import answers
from tests.small_models import SHORT, PairScore
from tests.training_set_fixture import write_training_set

PAIRS = ("pair_item2vec_score", "pair_popular_rank")
CANDIDATES = 30


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    namespace = Namespace(tmp_path_factory.mktemp("state"), "pairs")
    write_training_set(namespace, "pairs", rows=800, pairs=PAIRS)
    return read_dataset(namespace.training_sets / "pairs", features=("ranking", *PAIRS))


def test_scores_are_scaled_and_ranks_by_their_logarithm_with_a_flag_where_nothing_is_known(paired):
    encoded = build_encoder(paired.signature, paired.transforms)
    columns = encoded.run(paired[TRAIN].features, paired.signature)
    for name, missing, curve in ((PAIRS[0], -1e9, np.asarray), (PAIRS[1], 0, np.log1p)):
        raw = paired[TRAIN].features[name].astype(np.float64)
        known = raw != missing
        values, flags = columns[name].T
        assert np.array_equal(flags, known)
        assert 0 < known.sum() < len(known)
        bent = curve(raw[known])
        np.testing.assert_allclose(values[known], (bent - bent.mean()) / bent.std(), atol=1e-3)
        assert not values[~known].any()
        assert name in encoded.numeric


def test_what_is_encoded_of_user_and_item_has_the_scope_of_the_pair(paired):
    scopes = build_encoder(paired.signature, paired.transforms).scopes
    assert {name for name in PAIRS if scopes[name] is Scope.PAIR} == set(PAIRS)
    raw = {each.column.name: each.scope for each in paired.signature.inputs}
    for feature in paired.signature.on_demand:
        assert scopes[feature.name] is Scope.of_all(raw[name] for name in feature.inputs), feature.name
    assert scopes["request_hour"] is Scope.USER
    assert scopes["item_recency"] is Scope.PAIR, "the item, and the request's time"


def test_both_signatures_take_one_row_for_each_candidate(paired):
    for name in (ROWS_SIGNATURE, ONE_USER_SIGNATURE):
        specs = tensor_specs(paired.signature, name)
        assert {column: tuple(specs[column].shape) for column in PAIRS} == dict.fromkeys(PAIRS, (None,))
    assert tuple(tensor_specs(paired.signature, ONE_USER_SIGNATURE)[REQUEST_TIME.name].shape) == (1,)


MODELS = {"pair_score": PairScore(PairScore.config_class())} | {
    name: RANKING_MODELS[name](RANKING_MODELS[name].config_class(fit=SHORT)) for name in ("deepfm", "lr", "mlp")
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_pairs_answers_alike_by_both_signatures(name, paired, tmp_path):
    fitted = fit(MODELS[name], paired, seed=1)
    export(fitted, paired.signature, tmp_path / "model")
    assert read_signature(tmp_path / "model").pairs == paired.signature.pairs
    check_signatures(tmp_path / "model", paired.signature)
    saved_model = SavedModel(tmp_path / "model")
    golden = golden_requests(
        saved_model, paired[TEST], paired.signature, rows=9, users=2, candidates=CANDIDATES, seed=1
    )["requests"]
    asked = list(answers(tmp_path / "model", golden))
    assert {request["signature_name"] for request, _ in asked} == {ROWS_SIGNATURE, ONE_USER_SIGNATURE}
    for request, scores in asked:
        np.testing.assert_allclose(scores, request["score"], atol=1e-6)
        rows = len(request["score"])
        assert {len(request["inputs"][column]) for column in PAIRS} == {rows}
    of_one_user = [request for request in golden if request["signature_name"] == ONE_USER_SIGNATURE]
    assert all(len(set(request["inputs"][PAIRS[0]])) > CANDIDATES / 3 for request in of_one_user)


def test_a_score_that_tells_of_the_value_is_learned_and_a_missing_one_is_no_low_one(paired, tmp_path):
    export(fit(MODELS["pair_score"], paired, seed=1), paired.signature, tmp_path / "model")
    test = paired[TEST]
    scores, raw = SavedModel(tmp_path / "model").predict(test.features), test.features[PAIRS[0]]
    known = raw != -1e9
    assert auc(test.labels[known], scores[known]) > 0.9
    assert np.array_equal(np.argsort(scores[known], kind="stable"), np.argsort(raw[known], kind="stable"))
    assert scores[~known].max() < scores[known].min()
