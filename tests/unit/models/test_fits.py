"""A model is fitted as it likes, and of what columns there are."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import fields, replace

import keras
import numpy as np
import pytest

from feature_repo.contracts.columns import Encoding
from feature_repo.contracts.on_demand import REQUEST_TIME
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, Scope, ranking
from models.dataset import TEST, VALID
from models.encoding import build_encoder
from models.errors import BuildError, SpecError, UnknownFeatureError
from models.evaluation.golden import golden_requests
from models.evaluation.metrics import auc
from models.export import export, weights_sha256
from models.ranking.base import KerasModel, encoded_inputs
from models.ranking.catalogue import RANKING_MODELS
from models.saved_model_loader import SavedModel
from models.specs.spec import Spec
from models.training.fit import FitContext, fit
from models.training.job import fit_spec
from models.transforms import Scaling, Transforms
from tests.movielens import FEATURES, MOVIELENS, RANKING
from tests.saved_model_session import answers
from tests.small_models import OTHERS, SHORT, TwoStages


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


_ON_DEMAND_ALONE = {
    column.name
    for column in RANKING.input_columns
    if column.encoding is Encoding.NONE
    and column is not REQUEST_TIME
    and any(column.name in feature.inputs for feature in RANKING.on_demand)
}


def _with(dataset, *names, **encodings):
    """Return some rows for a model that takes these columns alone, some of them without encoding.

    Nothing is computed of them on demand, so that moments, of which nothing else is, are left out.
    """
    inputs = tuple(
        replace(each, column=replace(each.column, encoding=Encoding.NONE, vocabulary=""))
        if encodings.get(each.column.name) is Encoding.NONE
        else each
        for each in RANKING.inputs
        if each.column.name in names and each.column.name not in _ON_DEMAND_ALONE
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


LOOPED = sorted(name for name, model_class in RANKING_MODELS.items() if issubclass(model_class, KerasModel))


def _lacks(name, encoded):
    """Return what a class says it lacks among these columns; nothing where its graph is built."""
    model_class = RANKING_MODELS[name]
    try:
        model_class(model_class.config_class(on_demand=())).build(encoded, 1)
    except BuildError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_models_are_built_of_what_columns_there_are(kind, dataset):
    names, encodings = KINDS[kind]
    some = _with(dataset, *names, **encodings)
    encoded = build_encoder(some.signature, some.transforms)
    refused = {name: said for name in LOOPED if (said := _lacks(name, encoded))}
    assert all(re.match("expected .*, received ", said) for said in refused.values()), refused
    picky = {name for name in LOOPED if RANKING_MODELS[name].inputs != ("fields",)}
    assert refused.keys() <= picky | (OF_PAIRS if kind in {"the item's id alone", "no categories"} else set())


OF_PAIRS = {"afm", "autoint", "dlrm", "ffm"}
"""Models that are nothing without two fields, or for `dlrm` without terms beside the numbers."""


@pytest.mark.zoo
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lr", "deepfm", "mlp"])
def test_a_model_takes_what_columns_there_are(name, kind, dataset, tmp_path):
    names, encodings = KINDS[kind]
    some = _with(dataset, *names, **encodings)
    model_class = RANKING_MODELS[name]
    fitted = fit(model_class(model_class.config_class(fit=SHORT, on_demand=())), some, seed=1)
    served = _goes_the_whole_way(fitted, some, tmp_path / "saved_model")
    assert ((served > 0) & (served < 1)).all()
    assert len(fitted.history["val_log_loss"]) > 0


SETS = [
    ("user_windows", "item_activity", "item_genres"),
    ("item_activity", "item_genres"),
    *((group.name,) for group in FEATURES.known_by_time.groups),
]
ANY_FITTED = Transforms(
    vocabularies=defaultdict(lambda: ("a", "b")),
    scalings=defaultdict(lambda: Scaling(0.0, 1.0, -8.0, 8.0)),
    boundaries=defaultdict(lambda: (0.0,)),
    prior_mean=3.0,
)


@pytest.mark.parametrize("features", SETS, ids="+".join)
@pytest.mark.parametrize("name", ["lr", "deepfm", "mlp"])
def test_the_defaults_of_a_class_take_every_feature_set(name, features):
    model = RANKING_MODELS[name](RANKING_MODELS[name].config_class())
    encoded = build_encoder(ranking(MOVIELENS, features), ANY_FITTED)
    assert model.build(encoded, 1).count_params() > 0
    assert set(model.read_on_demand(encoded)) <= {*encoded.on_demand, *encoded.on_demand.values()}


@pytest.mark.parametrize("name", sorted(RANKING_MODELS))
def test_what_a_class_names_is_read_where_it_is_there(name, dataset):
    model = RANKING_MODELS[name](RANKING_MODELS[name].config_class())
    assert model.read_on_demand(build_encoder(dataset.signature, dataset.transforms)) == model.on_demand


def test_what_a_spec_names_is_refused_where_its_features_do_not_give_it():
    encoded = build_encoder(ranking(MOVIELENS, ("item_activity",)), ANY_FITTED)
    model_class = RANKING_MODELS["deepfm"]
    said = r"on-demand features \['user_recency'\]: expected computations \['decayed_count', .*; mend on_demand in"
    with pytest.raises(UnknownFeatureError, match=said):
        model_class(model_class.config_class(on_demand=("user_recency",))).build(encoded, 1)


class Broken(TwoStages):
    """A class whose config says what Keras cannot build."""

    fit = KerasModel.fit

    def build(self, encoded, seed):  # noqa: ARG002 - as all models have it
        return keras.Model(encoded_inputs(encoded), keras.layers.Dense(-self.config.fit.epochs)(0))


def test_what_keras_cannot_build_is_one_sentence(dataset):
    said = r"^spec 'mine': model two_stages: expected a config .*\"epochs\":1.*; change the config$"
    with pytest.raises(SpecError, match=said):
        fit_spec(Spec(name="mine"), Broken(Broken.config_class()), dataset, seed=1)


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
    assert fitted.params["best_epoch"] == best
    assert dataset[VALID].rows > 0
