"""A piece-wise linear model: a softmax divides the space into regions, each with a logistic regression of its own.

Gai et al., Learning Piece-wise Linear Models from Large Scale Data for Ad Click Prediction (arXiv 2017),
equation 2; known as LS-PLM or MLR.

    fields ─┬─ gates, a weight for each region ── softmax ─┐
            └─ logistic regression of each region ─────────┴─ mixture ─ logit

Deviations: weight decay and Adam for the norms L1 and L2,1 and their own optimiser; terms of a list are averaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from models.layers.mixture_logit import MixtureLogit
from models.ranking.fields import FieldsConfig, FieldsModel

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class LSPLMConfig(FieldsConfig):
    """The piece-wise linear model."""

    regions: int = Field(default=12, ge=2, le=256)
    """Logistic regressions."""


class LSPLM(FieldsModel[LSPLMConfig]):
    """Logistic regressions, mixed by where a row lies."""

    name: ClassVar[str] = "ls_plm"
    paper: ClassVar[str] = (
        "Gai et al., Learning Piece-wise Linear Models from Large Scale Data for Ad Click Prediction (arXiv 2017)"
    )
    config_class: ClassVar[type[RankingConfig]] = LSPLMConfig

    def logit(self, fields: Fields) -> Any:
        """Return the log odds of the mixture."""
        gates = fields.linear(units=self.config.regions, name="gate")
        logits = fields.linear(units=self.config.regions, name="region")
        return MixtureLogit(name="mixture")(gates, logits)
