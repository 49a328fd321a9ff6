"""The ranking models by the names that the command line has."""

from __future__ import annotations

from typing import Any

from models.ranking.deepfm import DeepFM
from models.ranking.lr import LogisticRegression

CANDIDATE = DeepFM
BASELINE = LogisticRegression
RANKING_MODELS: dict[str, type[Any]] = {model.name: model for model in (CANDIDATE, BASELINE)}
