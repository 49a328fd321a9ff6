"""DeepFM: a factorisation machine and a deep network over shared embeddings.

Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction (IJCAI 2017). Deviations:
the history is pooled twice, by how much its items were liked and disliked; the deep part also sees the products of
both with the candidate's embedding; numbers enter the deep part as they are, beside their embedding.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops
from pydantic import Field

from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.on_demand import USER_RECENCY, Computation
from models.layers.factorization_machine import FactorizationMachine, sums
from models.layers.weighted_pooling import WeightedPooling
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit
from models.sequences import LAST
from models.training.keras_loop import FitConfig

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields

LIKED, DISLIKED = "liked_items", "disliked_items"


class DeepFMConfig(DeepConfig):
    """DeepFM; how these values were found stands in decision 0030."""

    fit: FitConfig = FitConfig(batch_size=2048, learning_rate=2e-3)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """In the deep part."""
    l2: float = Field(default=1e-3, ge=0, le=1_000)
    """Weight decay on embeddings, and on the linear weights of terms."""


class DeepFM(FieldsModel[DeepFMConfig]):
    """Linear, second-order and deep part over the same embeddings."""

    name: ClassVar[str] = "deepfm"
    paper: ClassVar[str] = (
        "Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction (IJCAI 2017)"
    )
    config_class: ClassVar[type[RankingConfig]] = DeepFMConfig
    on_demand: ClassVar[tuple[str, ...]] = (Computation.TERM_MATCH.value, USER_RECENCY.name)
    """What the others gave stands in decision 0090."""

    def logit(self, fields: Fields) -> Any:
        """Return linear part + second-order part + deep part; of numbers there may be none, and of fields none."""
        size = self.config.embedding_size
        vectors = self._vectors(fields, size)
        parts = [sums(ops.stack(list(vectors.values()), axis=1))] if vectors else []
        totals, squares = zip(*parts, *fields.number_sums(size), strict=True)
        second_order = FactorizationMachine(name="second_order")(reduce(ops.add, totals), reduce(ops.add, squares))
        return fields.linear() + second_order + self._deep(vectors, fields)

    def _vectors(self, fields: Fields, size: int) -> dict[str, Any]:
        """Return one vector per categorical column, `[batch, embedding_size]`; the history gives two."""
        vectors = fields.pooled(size)
        if LAST.items in vectors and LAST.values in fields.inputs:
            del vectors[LAST.items]
            weights, items = fields.inputs[LAST.values], fields.tables(size)(LAST.items)
            vectors[LIKED] = WeightedPooling(name=LIKED)(items, weights[..., 0])
            vectors[DISLIKED] = WeightedPooling(name=DISLIKED)(items, weights[..., 1])
        return vectors

    def _deep(self, vectors: dict[str, Any], fields: Fields) -> Any:
        """Return the deep part, `[batch, 1]`."""
        pooled = [vectors[name] for name in (LIKED, DISLIKED) if name in vectors and ITEM_ID.name in vectors]
        products = [vectors[ITEM_ID.name] * each for each in pooled]
        numbers = [] if fields.numbers is None else [fields.numbers]
        return to_logit(perceptron(ops.concatenate([*vectors.values(), *products, *numbers], axis=-1), self.config))
