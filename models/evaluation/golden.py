"""Golden requests: real test rows with the scores that every server of this model must give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, ROWS_SIGNATURE, Scope, Signature

if TYPE_CHECKING:
    from models.dataset import Split
    from models.inputs import Columns
    from models.saved_model_loader import SavedModel


def golden_requests(
    saved_model: SavedModel, split: Split, signature: Signature, *, rows: int, users: int, candidates: int, seed: int
) -> dict[str, Any]:
    """Return `{"requests": [...]}`: one of `rows` rows, and `users` of one user with `candidates` candidates each.

    Scores come from `serving_default`, row by row, for both signatures: so `one_user` must agree with it.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(split.rows, min(rows, split.rows), replace=False))
    requests = [_request(saved_model, ROWS_SIGNATURE, split.take(chosen).features, signature, len(chosen))]
    for row in random.choice(split.rows, min(users, split.rows), replace=False):
        items = split.take(random.integers(0, split.rows, candidates)).features
        user = split.take(np.array([row])).features
        features = {
            item.column.name: (user if item.scope is Scope.USER else items)[item.column.name]
            for item in signature.inputs
        }
        requests.append(_request(saved_model, ONE_USER_SIGNATURE, features, signature, candidates))
    return {"requests": requests}


def _request(
    saved_model: SavedModel, signature_name: str, features: Columns, signature: Signature, rows: int
) -> dict[str, Any]:
    """Return one request, with its inputs as sent: a user's columns have one row in `one_user`."""
    whole = {
        column.name: np.repeat(features[column.name], rows // len(features[column.name]), axis=0)
        for column in signature.input_columns
    }
    return {
        "signature_name": signature_name,
        "inputs": {column.name: features[column.name].tolist() for column in signature.input_columns},
        signature.output.name: saved_model.predict(whole).tolist(),
    }
