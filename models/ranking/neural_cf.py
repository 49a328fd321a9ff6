"""Neural collaborative filtering: a user's vector and an item's, multiplied, through layers, or both.

He et al., Neural Collaborative Filtering (WWW 2017), section 3. GMF multiplies, MLP stacks, NeuMF does both with
vectors of its own for each.

    user's fields ─ vector ─┬─ product ────────┐
    item's fields ─ vector ─┘                  ├─ logit
    user's fields ─ vector ─┬─ perceptron ─────┘
    item's fields ─ vector ─┘

Deviations: user and item are described by all their fields, through one linear layer; their ids are among them where
the spec's feature set has them (`user_id` is in no set by default). NeuMF is fitted at once, not from two fitted parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops

from feature_repo.contracts.signatures import Scope
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class NeuralCFConfig(DeepConfig):
    """Neural collaborative filtering."""


class NeuMF(FieldsModel[NeuralCFConfig]):
    """The product and the perceptron, side by side."""

    name: ClassVar[str] = "neumf"
    paper: ClassVar[str] = "He et al., Neural Collaborative Filtering (WWW 2017)"
    config_class: ClassVar[type[RankingConfig]] = NeuralCFConfig
    inputs: ClassVar[tuple[str, ...]] = ("user", "item")
    multiplies: ClassVar[bool] = True
    stacks: ClassVar[bool] = True

    def logit(self, fields: Fields) -> Any:
        """Return the logit of the parts that the class has."""
        parts = []
        if self.multiplies:
            user, item = self._vectors(fields, "gmf")
            parts.append(user * item)
        if self.stacks:
            parts.append(perceptron(ops.concatenate(self._vectors(fields, "mlp"), axis=-1), self.config))
        return to_logit(ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0])

    def _vectors(self, fields: Fields, part: str) -> list[Any]:
        """Return the user's vector and the item's, `[batch, embedding_size]` each."""
        size = self.config.embedding_size
        return [
            keras.layers.Dense(size, name=f"{part}_{scope.value}")(fields.of(scope, size, f"{part}_embedding"))
            for scope in (Scope.USER, Scope.ITEM)
        ]


class GMF(NeuMF):
    """Generalised matrix factorisation: the product alone."""

    name: ClassVar[str] = "gmf"
    stacks: ClassVar[bool] = False


class NeuralCFMLP(NeuMF):
    """The perceptron alone."""

    name: ClassVar[str] = "ncf_mlp"
    multiplies: ClassVar[bool] = False
