"""A model is fitted as it likes, and of what columns there are."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from feature_repo.contracts.columns import Encoding
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, Scope
from models.dataset import TEST, VALID, read_dataset
from models.encoding import build_encoder
from models.errors import UnknownFeatureError
from models.evaluation.golden import golden_requests
from models.evaluation.metrics import auc
from models.export import export, weights_sha256
from models.ranking.catalogue import RANKING_MODELS
from models.saved_model_loader import SavedModel
from models.training.fit import FitContext, fit
from tests.movielens import FEATURES, RANKING
from tests.saved_model_session import answers
from tests.small_models import OTHERS, SHORT


def _goes_the_whole_way(fitted, dataset, directory):
    """Export, and hold what is served by both signatures against what was fitted."""
    export(fitted, dataset.signature, directory)
    saved_model = SavedModel(directory)
    served = saved_model.predict(dataset[TEST].features)
    columns = fitted.encoded.run(dataset[TEST].features, dataset.signature)
    logits = np.array(fitted.scorer(columns, training=False))[:, 0].astype(np.float64)
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-logits)), atol=1e-6)
    golden = golden_requests(saved_model, dataset[TEST], dataset.signature, rows=9, users=2, candidates=30, seed=1)
    asked = list(answers(directory, golden["requests"]))
    assert {request["signature_name"] for request, _ in asked} == {ROWS_SIGNATURE, ONE_USER_SIGNATURE}
    for request, scores in asked:
        np.testing.assert_allclose(scores, request["score"], atol=1e-6)
    return served


@pytest.mark.parametrize("model_class", OTHERS, ids=lambda each: each.name)
def test_a_model_that_fits_itself_goes_the_whole_way(model_class, dataset, tmp_path):
    fitted = fit(model_class(model_class.config_class()), dataset, seed=1)
    served = _goes_the_whole_way(fitted, dataset, tmp_path / "saved_model")
    assert auc(dataset[TEST].labels, served) > 0.7
    again = fit(model_class(model_class.config_class()), dataset, seed=1)
    assert weights_sha256(again.scorer) == weights_sha256(fitted.scorer)


def test_a_fit_cannot_read_test_rows():
    assert {each.name for each in fields(FitContext) if "Split" in str(each.type)} == {"train", "valid"}
    assert not {"dataset", "splits"} & {each.name for each in fields(FitContext)}


def _with(dataset, *names, **encodings):
    """Return some rows for a model that takes these columns alone, some of them without encoding."""
    inputs = tuple(
        replace(each, column=replace(each.column, encoding=Encoding.NONE, vocabulary=""))
        if encodings.get(each.column.name) is Encoding.NONE
        else each
        for each in RANKING.inputs
        if each.column.name in names
    )
    splits = {name: split.take(np.arange(200)) for name, split in dataset.splits.items()}
    return replace(dataset, signature=replace(RANKING, inputs=inputs, on_demand=()), splits=splits)


def _names(scope=None, encoding=None):
    return [
        each.column.name
        for each in RANKING.inputs
        if (scope is None or each.scope is scope) and (encoding is None or each.column.encoding is encoding)
    ]


KINDS = {
    "no numbers": (_names(encoding=Encoding.VOCABULARY), {}),
    "no categories": (["item_id", *_names(encoding=Encoding.STANDARD)], {"item_id": Encoding.NONE}),
    "no user": (_names(Scope.ITEM), {}),
    "no item but its id": (["item_id", *_names(Scope.USER)], {}),
    "the item's id alone": (["item_id"], {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(RANKING_MODELS))
def test_a_model_takes_what_columns_there_are(name, kind, dataset, tmp_path):
    names, encodings = KINDS[kind]
    some = _with(dataset, *names, **encodings)
    model_class = RANKING_MODELS[name]
    fitted = fit(model_class(model_class.config_class(fit=SHORT, on_demand=())), some, seed=1)
    served = _goes_the_whole_way(fitted, some, tmp_path / "saved_model")
    assert ((served > 0) & (served < 1)).all()
    assert len(fitted.history["val_log_loss"]) > 0


SETS = [
    ("item_activity", "item_genres"),
    *([group.name] for group in (*FEATURES.user_ranking, *FEATURES.item_ranking) if group.name != "user_relations"),
]


@pytest.mark.parametrize("features", SETS, ids="+".join)
@pytest.mark.parametrize("name", sorted(RANKING_MODELS))
def test_the_defaults_of_a_class_fit_every_feature_set(name, features, namespace, dataset):
    some = read_dataset(namespace.training_sets / "toy", ("train", "valid"), tuple(features))
    model = RANKING_MODELS[name](RANKING_MODELS[name].config_class())
    encoded = build_encoder(some.signature, some.transforms)
    assert model.build(encoded, 1).count_params() > 0
    whole = build_encoder(dataset.signature, dataset.transforms)
    assert model.read_on_demand(whole) == model.on_demand, "what there is to read is read"
    assert set(model.read_on_demand(encoded)) <= {*encoded.on_demand, *encoded.on_demand.values()}


def test_what_a_spec_names_is_refused_where_its_features_do_not_give_it(namespace):
    items = read_dataset(namespace.training_sets / "toy", ("train", "valid"), ("item_activity",))
    encoded = build_encoder(items.signature, items.transforms)
    model_class = RANKING_MODELS["deepfm"]
    said = r"on-demand features \['user_recency'\]: expected computations \['decayed_count', .*; mend on_demand in"
    with pytest.raises(UnknownFeatureError, match=said):
        model_class(model_class.config_class(on_demand=("user_recency",))).build(encoded, 1)


def test_where_there_is_nothing_to_read_it_is_said(dataset):
    model_class = RANKING_MODELS["lr"]
    model = model_class(model_class.config_class(fit=SHORT))
    nothing = _with(dataset, "item_id", "request_time", item_id=Encoding.NONE)
    with pytest.raises(UnknownFeatureError, match=r"expected a column that has an encoding, received \['item_id', "):
        fit(model, nothing, seed=1)
    hour = next(each for each in RANKING.on_demand if each.name == "request_hour")
    unread = replace(nothing, signature=replace(nothing.signature, on_demand=(hour,)))
    with pytest.raises(UnknownFeatureError, match=r"nothing is left; choose among \['request_hour'\]"):
        fit(model, unread, seed=1)


def test_validation_rows_decide_when_to_stop(dataset):
    """Weights come from the epoch that was best on the validation rows; the run says which."""
    model_class = RANKING_MODELS["lr"]
    fitted = fit(model_class(model_class.config_class(fit=SHORT.model_copy(update={"epochs": 6}))), dataset, seed=1)
    best = int(np.argmin(fitted.history["val_log_loss"])) + 1
    assert fitted.params == {"best_epoch": best}
    assert dataset[VALID].rows > 0
