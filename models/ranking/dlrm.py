"""DLRM: numbers become a vector among the terms', and all pairs' inner products go through a perceptron.

Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems (arXiv 2019),
section 2.

    numbers ─ bottom perceptron ─ a vector ─┬─ inner products of every pair ─┬─ top perceptron ─ logit
    terms ─ vectors ────────────────────────┘   the numbers' vector ─────────┘

or, as the paper's code has it for comparison, the vectors one after the other instead of their products.

Deviation: dropout in both perceptrons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import keras
from keras import ops

from models.errors import BuildError
from models.layers.pairwise_products import InnerProducts
from models.ranking.base import Widths
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class DLRMConfig(DeepConfig):
    """DLRM; `hidden` are the widths of the top perceptron."""

    bottom: Widths = (64,)
    """Widths of the bottom perceptron, before the vector."""
    interaction: Literal["products", "vectors"] = "products"
    """What the top perceptron sees."""


class DLRM(FieldsModel[DLRMConfig]):
    """Inner products of terms and of all numbers together."""

    name: ClassVar[str] = "dlrm"
    paper: ClassVar[str] = (
        "Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems (arXiv 2019)"
    )
    config_class: ClassVar[type[RankingConfig]] = DLRMConfig

    def logit(self, fields: Fields) -> Any:
        """Return the top perceptron's logit.

        Raises:
            BuildError: There is one vector alone, so that there are no pairs.
        """
        size = self.config.embedding_size
        vectors = list(fields.pooled(size).values())
        dense = []
        if fields.numbers is not None:
            hidden = perceptron(fields.numbers, self.config, "bottom", self.config.bottom)
            dense = [keras.layers.Dense(size, activation="relu", name="bottom_vector")(hidden)]
        if len(vectors) + len(dense) == 1:
            msg = f"expected two vectors at least, received {list(fields.names)}; give the spec columns of terms"
            raise BuildError(msg)
        if self.config.interaction == "vectors":
            return to_logit(perceptron(ops.concatenate([*dense, *vectors], axis=-1), self.config))
        products = InnerProducts(name="products")(ops.stack([*dense, *vectors], axis=1))
        return to_logit(perceptron(ops.concatenate([*dense, products], axis=-1), self.config))
