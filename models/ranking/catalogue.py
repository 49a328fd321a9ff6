"""The classes of ranking models, by the names that specs have."""

from __future__ import annotations

from typing import Any

from models.errors import UnknownModelError
from models.ranking.deepfm import DeepFM
from models.ranking.lr import LogisticRegression
from models.ranking.mlp import MLP

RANKING_MODELS: dict[str, type[Any]] = {model.name: model for model in (DeepFM, LogisticRegression, MLP)}
"""All that specs can name; each passes the suite in `tests/unit/models/test_ranking_models.py`."""


def ranking_model(name: str) -> type[Any]:
    """Return the class of a name.

    Raises:
        UnknownModelError: There is none.
    """
    if name not in RANKING_MODELS:
        msg = f"model {name!r}: expected one of {sorted(RANKING_MODELS)}; add it to RANKING_MODELS in {__name__}"
        raise UnknownModelError(msg)
    return RANKING_MODELS[name]
