"""An attentional factorisation machine: pairs count by what attention finds them worth.

Xiao et al., Attentional Factorization Machines: Learning the Weight of Feature Interactions via Attention Networks
(IJCAI 2017), section 3.

    fields ─┬─ weights ──────────────────────────────────────────┐
            └─ vectors ─ pairs' products ─ attention ─ weights ──┴─ sum ─ logit

Deviation: terms of a list are averaged to one field, and so are a number and its flag summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from pydantic import Field

from models.layers.attention_pooling import AttentionPooling
from models.layers.pairwise_products import PairwiseProducts
from models.ranking.fields import FieldsModel, VectorsConfig, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class AFMConfig(VectorsConfig):
    """The attentional factorisation machine."""

    attention_size: int = Field(default=8, ge=1, le=256)
    """Width of the attention's layer."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """On what the attention has pooled."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the attention's weights."""


class AFM(FieldsModel[AFMConfig]):
    """First order, and pairs by attention."""

    name: ClassVar[str] = "afm"
    paper: ClassVar[str] = (
        "Xiao et al., Attentional Factorization Machines: Learning the Weight of Feature Interactions "
        "via Attention Networks (IJCAI 2017)"
    )
    config_class: ClassVar[type[RankingConfig]] = AFMConfig

    def logit(self, fields: Fields) -> Any:
        """Return the sum of both; BuildError where there is one field alone."""
        fields.check_pairs()
        pairs = PairwiseProducts(name="pairs")(fields.vectors(self.config.embedding_size))
        config = self.config
        pooled = AttentionPooling(config.attention_size, config.attention_dropout, name="attention")(pairs)
        pooled = keras.layers.Dropout(config.dropout, name="pooled_dropout")(pooled)
        return fields.linear() + to_logit(pooled)
