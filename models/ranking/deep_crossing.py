"""Deep Crossing: residual units over stacked embeddings.

Shan et al., Deep Crossing: Web-Scale Modeling without Manually Crafted Combinatorial Features (KDD 2016), section 4.

    terms ─ vectors ─┬─ stack ─ residual unit ─ ... ─ residual unit ─ logit
    numbers ─────────┘

Deviations: vectors of terms are not cut off at 0 before they are stacked; columns of one vocabulary share a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras

from models.layers.residual_unit import ResidualUnit
from models.ranking.fields import DeepConfig, FieldsModel, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class DeepCrossingConfig(DeepConfig):
    """Deep Crossing; `hidden` are the widths within the residual units."""


class DeepCrossing(FieldsModel[DeepCrossingConfig]):
    """Residual units, one after the other."""

    name: ClassVar[str] = "deep_crossing"
    paper: ClassVar[str] = (
        "Shan et al., Deep Crossing: Web-Scale Modeling without Manually Crafted Combinatorial Features (KDD 2016)"
    )
    config_class: ClassVar[type[RankingConfig]] = DeepCrossingConfig

    def logit(self, fields: Fields) -> Any:
        """Return the logit of the last unit."""
        values = fields.flat(self.config.embedding_size)
        for unit, width in enumerate(self.config.hidden):
            values = ResidualUnit(width, name=f"unit_{unit}")(values)
            values = keras.layers.Dropout(self.config.dropout, name=f"unit_{unit}_dropout")(values)
        return to_logit(values)
