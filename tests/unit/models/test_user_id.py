"""A spec may name the user's id among its features: models read it, and users that no train row has are one term."""

from __future__ import annotations

import numpy as np
import pytest

from feature_repo.contracts.datasets import USER_ID
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, Scope, ranking
from models.dataset import TEST, TRAIN, read_dataset
from models.export import export
from models.inputs import to_tensors
from models.ranking.catalogue import RANKING_MODELS
from models.saved_model_loader import SavedModel, load_saved_model
from models.training.fit import fit
from models.training.keras_loop import FitConfig
from pipelines.training.columns import encoded_columns
from tests.movielens import MOVIELENS, RANKING, RANKING_FEATURES

FEATURES = ("ranking", USER_ID.name)


@pytest.fixture(scope="module")
def with_ids(namespace):
    return read_dataset(namespace.training_sets / "toy", features=FEATURES)


def test_the_id_is_an_input_where_a_spec_names_it_alone():
    signature = ranking(MOVIELENS, FEATURES)
    assert [each for each in signature.inputs if each not in RANKING.inputs] == [signature.inputs[0]]
    assert (signature.inputs[0].column, signature.inputs[0].scope) == (USER_ID, Scope.USER)
    assert USER_ID not in RANKING.input_columns
    assert USER_ID in encoded_columns(MOVIELENS, TrainingKind.RANKING, RANKING_FEATURES)


def test_neumf_learns_users_and_the_unknown_one(with_ids, tmp_path):
    model_class = RANKING_MODELS["neumf"]
    quick = FitConfig(batch_size=256, epochs=2, learning_rate=1e-2)
    fitted = fit(model_class(model_class.config_class(fit=quick)), with_ids, 1)
    users = set(with_ids[TRAIN].features[USER_ID.name])
    assert fitted.encoded.vocabulary_sizes["user"] == len(users) + 2
    row = {name: values[:1] for name, values in with_ids[TEST].features.items()}
    stranger = row | {USER_ID.name: np.array(["nobody"], object)}
    assert fitted.encoded.run(stranger, with_ids.signature)[USER_ID.name].tolist() == [1]
    for part in ("gmf", "mlp"):
        (table,) = fitted.scorer.get_layer(f"user_{part}_embedding").get_weights()
        trained = np.abs(table[1:]).max(axis=1)
        assert trained.min() > 0
        assert not np.allclose(table[1], table[0]), "the unknown user's row is trained"
    export(fitted, with_ids.signature, tmp_path / "saved_model")
    saved_model = SavedModel(tmp_path / "saved_model")
    assert saved_model.predict(row)[0] != saved_model.predict(stranger)[0]
    one_user = load_saved_model(tmp_path / "saved_model").signatures[ONE_USER_SIGNATURE]
    candidates = with_ids[TEST].take(np.arange(7)).features
    owned = {column.name: row[column.name] for column in with_ids.signature.scoped(Scope.USER)}
    asked = one_user(**to_tensors(candidates | owned, with_ids.signature))["score"].numpy()
    repeated = candidates | {name: np.repeat(values, 7, axis=0) for name, values in owned.items()}
    np.testing.assert_allclose(asked, saved_model.predict(repeated), atol=1e-6)
