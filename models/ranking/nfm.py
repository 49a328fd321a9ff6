"""A neural factorisation machine: the pairs' products are pooled to one vector, and a perceptron sees it.

He and Chua, Neural Factorization Machines for Sparse Predictive Analytics (SIGIR 2017), section 3.

    fields ─┬─ weights ──────────────────────────────────────────────┐
            └─ vectors ─ pairs' products, summed ─ perceptron ───────┴─ sum ─ logit

Deviation: dropout after the pooling has the rate of the layers', where the config gives it none of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from pydantic import Field

from models.layers.factorization_machine import bi_interaction
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class NFMConfig(DeepConfig):
    """The neural factorisation machine."""

    pooled_dropout: float | None = Field(default=None, ge=0, lt=1)
    """On the pooled pairs; None is that of the layers."""


class NFM(FieldsModel[NFMConfig]):
    """First order, and a perceptron over pooled pairs."""

    name: ClassVar[str] = "nfm"
    paper: ClassVar[str] = "He and Chua, Neural Factorization Machines for Sparse Predictive Analytics (SIGIR 2017)"
    config_class: ClassVar[type[RankingConfig]] = NFMConfig

    def logit(self, fields: Fields) -> Any:
        """Return the sum of both."""
        pooled = bi_interaction(fields.vectors(self.config.embedding_size))
        config = self.config
        rate = config.dropout if config.pooled_dropout is None else config.pooled_dropout
        pooled = keras.layers.Dropout(rate, name="pooled_dropout")(pooled)
        return fields.linear() + to_logit(perceptron(pooled, config))
