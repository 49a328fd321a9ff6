"""A product-based network: fields' vectors, and the products of every pair, through a perceptron.

Qu et al., Product-Based Neural Networks for User Response Prediction (ICDM 2016), section III.

    vectors ─┬─ one after the other ──────┐
             └─ products of every pair ───┴─ perceptron ─ logit

The inner product of two vectors is a number. Outer products of all pairs are summed, as in the paper: that is the outer
product of the vectors' sum with itself, `[embedding_size, embedding_size]`.

Deviation: the first layer's two weight matrices and its bias are one layer over both, which is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from keras import ops

from models.layers.pairwise_products import InnerProducts
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class PNNConfig(DeepConfig):
    """The product-based network."""

    product: Literal["inner", "outer", "both"] = "inner"
    """Of two vectors."""


class OuterConfig(PNNConfig):
    """The product-based network of outer products."""

    product: Literal["inner", "outer", "both"] = "outer"
    """Of two vectors."""


class PNN(FieldsModel[PNNConfig]):
    """A perceptron over vectors and their products."""

    name: ClassVar[str] = "pnn"
    paper: ClassVar[str] = "Qu et al., Product-Based Neural Networks for User Response Prediction (ICDM 2016)"
    config_class: ClassVar[type[RankingConfig]] = PNNConfig

    def logit(self, fields: Fields) -> Any:
        """Return the perceptron's logit."""
        vectors = fields.vectors(self.config.embedding_size)
        count, size = vectors.shape[1:]
        signals = [ops.reshape(vectors, (-1, count * size))]
        if self.config.product != "outer":
            signals.append(InnerProducts(name="inner")(vectors))
        if self.config.product != "inner":
            total = ops.sum(vectors, axis=1)
            outer = ops.expand_dims(total, 2) * ops.expand_dims(total, 1)
            signals.append(ops.reshape(outer, (-1, size * size)))
        return to_logit(perceptron(ops.concatenate(signals, axis=-1), self.config))


class OuterPNN(PNN):
    """The same with outer products."""

    name: ClassVar[str] = "opnn"
    config_class: ClassVar[type[RankingConfig]] = OuterConfig
