"""Deep & Cross networks: layers that multiply by the first input, beside a perceptron or before it.

Wang et al., Deep & Cross Network for Ad Click Predictions (ADKDD 2017), section 2; Wang et al., DCN V2: Improved Deep &
Cross Network (WWW 2021), section 3; Wang et al., Towards Deeper, Lighter and Interpretable Cross Network for CTR
Prediction (CIKM 2023), section 3, whose cross layers have a gate.

    terms ─ vectors ─┬─ x0 ─┬─ cross ─ ... ─ cross ─┬─ parallel: both to the logit
    numbers ─────────┘      └─ perceptron ──────────┘  stacked: the perceptron sees what the last cross gives

Deviation: columns of one vocabulary share a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from keras import ops
from pydantic import Field

from models.layers.cross import MatrixCross, VectorCross
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class DCNConfig(DeepConfig):
    """Deep & Cross."""

    crosses: int = Field(default=3, ge=1, le=16)
    """Cross layers."""


class DCNv2Config(DCNConfig):
    """Deep & Cross of matrices."""

    rank: int = Field(default=0, ge=0, le=1024)
    """Of each cross layer's matrix; 0 is full."""
    structure: Literal["parallel", "stacked"] = "parallel"
    """Where the perceptron stands."""


class DCN(FieldsModel[DCNConfig]):
    """Crosses by a vector, beside a perceptron."""

    name: ClassVar[str] = "dcn"
    paper: ClassVar[str] = "Wang et al., Deep & Cross Network for Ad Click Predictions (ADKDD 2017)"
    config_class: ClassVar[type[RankingConfig]] = DCNConfig

    def logit(self, fields: Fields) -> Any:
        """Return the logit of both."""
        first = crossed = fields.flat(self.config.embedding_size)
        for layer in range(self.config.crosses):
            crossed = VectorCross(name=f"cross_{layer}")(first, crossed)
        return to_logit(ops.concatenate([crossed, perceptron(first, self.config)], axis=-1))


class DCNv2(FieldsModel[DCNv2Config]):
    """Crosses by a matrix, beside a perceptron or before it."""

    name: ClassVar[str] = "dcn_v2"
    paper: ClassVar[str] = "Wang et al., DCN V2: Improved Deep & Cross Network (WWW 2021)"
    config_class: ClassVar[type[RankingConfig]] = DCNv2Config
    gated: ClassVar[bool] = False

    def logit(self, fields: Fields) -> Any:
        """Return the logit of the structure that the config names."""
        config = self.config
        first = crossed = fields.flat(config.embedding_size)
        for layer in range(config.crosses):
            crossed = MatrixCross(config.rank, gated=self.gated, name=f"cross_{layer}")(first, crossed)
        if config.structure == "stacked":
            return to_logit(perceptron(crossed, config))
        return to_logit(ops.concatenate([crossed, perceptron(first, config)], axis=-1))


class GDCN(DCNv2):
    """Crosses by a matrix, each through a gate."""

    name: ClassVar[str] = "gdcn"
    paper: ClassVar[str] = (
        "Wang et al., Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction (CIKM 2023)"
    )
    gated: ClassVar[bool] = True
