"""Logistic regression over the encoded columns: the baseline that a deep model must beat.

Richardson et al., Predicting Clicks: Estimating the Click-Through Rate for New Ads (WWW 2007), section 4.

    fields ─ weights ─ sum ─ logit

Deviations: Adam for L-BFGS; terms of a list are averaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from models.ranking.fields import FieldsConfig, FieldsModel
from models.training.keras_loop import FitConfig

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class LogisticRegressionConfig(FieldsConfig):
    """Logistic regression."""

    fit: FitConfig = FitConfig(batch_size=2048, learning_rate=1e-2)
    unknown_rate: float = Field(default=0.05, ge=0, lt=1)
    """Share of terms that are taken for unknown in training."""


class LogisticRegression(FieldsModel[LogisticRegressionConfig]):
    """One weight per number and per term."""

    name: ClassVar[str] = "lr"
    paper: ClassVar[str] = (
        "Richardson et al., Predicting Clicks: Estimating the Click-Through Rate for New Ads (WWW 2007)"
    )
    config_class: ClassVar[type[RankingConfig]] = LogisticRegressionConfig

    def logit(self, fields: Fields) -> Any:
        """Return the sum of the weights."""
        return fields.linear()
