"""DeepFM: a factorisation machine and a deep network over shared embeddings.

Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction (IJCAI 2017). Deviations:
the history is pooled twice, by how much its items were liked and disliked; the deep part also sees the products of
both with the candidate's embedding; numbers enter the deep part as they are, beside their embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops
from pydantic import Field

from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.on_demand import USER_RECENCY, Computation
from models.encoding import LAST_VALUES
from models.layers.factorization_machine import FactorizationMachine
from models.layers.mean_pooling import MeanPooling
from models.layers.numeric_embedding import NumericEmbedding
from models.layers.weighted_pooling import WeightedPooling
from models.ranking.base import KerasConfig, KerasModel, RankingConfig, Widths, encoded_inputs
from models.training.keras_loop import FitConfig

if TYPE_CHECKING:
    from models.encoding import Encoded

LAST_ITEMS = "user_last_items"
LIKED, DISLIKED = "liked_items", "disliked_items"


class DeepFMConfig(KerasConfig):
    """DeepFM; how these values were found stands in decision 0030."""

    fit: FitConfig = FitConfig(batch_size=2048, learning_rate=2e-3)
    embedding_size: int = Field(default=8, ge=1, le=256)
    """Dimensions of every embedding."""
    hidden: Widths = (64, 32)
    """Widths of the deep part's layers."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """In the deep part."""
    l2: float = Field(default=1e-3, ge=0, le=1_000)
    """Weight decay on embeddings and linear weights."""
    unknown_rate: float = Field(default=0.3, ge=0, lt=1)
    """Share of terms that are taken for unknown in training."""


class DeepFM(KerasModel[DeepFMConfig]):
    """Linear, second-order and deep part over the same embeddings."""

    name: ClassVar[str] = "deepfm"
    config_class: ClassVar[type[RankingConfig]] = DeepFMConfig
    on_demand: ClassVar[tuple[str, ...]] = (Computation.TERM_MATCH.value, USER_RECENCY.name)
    """What the others gave stands in decision 0090."""

    def build(self, encoded: Encoded, seed: int) -> Any:
        """Return linear part + second-order part + deep part; of numbers there may be none, and of fields none."""
        inputs = encoded_inputs(encoded)
        encoded = self.reading(encoded)
        numbers = [ops.concatenate([inputs[name] for name in encoded.numeric], axis=-1)] if encoded.numeric else []
        indices = {
            name: encoded.unknown_dropout(name, self.config.unknown_rate, seed)(inputs[name])
            for name in encoded.categorical
        }
        tables = {
            vocabulary: self._embedding(size, self.config.embedding_size, f"{vocabulary}_embedding")
            for vocabulary, size in encoded.vocabulary_sizes.items()
        }
        fields = self._fields(encoded, inputs, indices, tables)
        vectors = [ops.stack(list(fields.values()), axis=1)] if fields else []
        embedding = NumericEmbedding(self.config.embedding_size, self.config.l2, name="numeric_embedding")
        vectors += map(embedding, numbers)
        second_order = FactorizationMachine(name="second_order")(ops.concatenate(vectors, axis=1))
        logit = self._linear(encoded, indices, numbers) + second_order + self._deep(fields, numbers)
        return keras.Model(inputs, logit, name=self.name)

    def _embedding(self, size: int, width: int, name: str) -> Any:
        return keras.layers.Embedding(
            size,
            width,
            embeddings_initializer="zeros" if width == 1 else keras.initializers.RandomNormal(stddev=0.01),
            embeddings_regularizer=keras.regularizers.L2(self.config.l2),
            name=name,
        )

    def _linear(self, encoded: Encoded, indices: dict[str, Any], numbers: list[Any]) -> Any:
        """Return the first-order part, `[batch, 1]`: a weight per number and per term."""
        terms = [keras.layers.Dense(1, name="linear")(each) for each in numbers]
        for name, vocabulary in encoded.categorical.items():
            weights = self._embedding(encoded.vocabulary_sizes[vocabulary], 1, f"{name}_weight")(indices[name])
            terms.append(MeanPooling(name=f"{name}_weight_pooled")(weights, indices[name]))
        return ops.sum(ops.stack(terms), axis=0)

    def _fields(
        self, encoded: Encoded, inputs: dict[str, Any], indices: dict[str, Any], tables: dict[str, Any]
    ) -> dict[str, Any]:
        """Return one vector per categorical column, `[batch, embedding_size]`; the history gives two."""
        fields: dict[str, Any] = {}
        for name, vocabulary in encoded.categorical.items():
            embeddings = tables[vocabulary](indices[name])
            if name == LAST_ITEMS and LAST_VALUES in inputs:
                weights = inputs[LAST_VALUES]
                fields[LIKED] = WeightedPooling(name=LIKED)(embeddings, weights[..., 0])
                fields[DISLIKED] = WeightedPooling(name=DISLIKED)(embeddings, weights[..., 1])
            else:
                fields[name] = MeanPooling(name=f"{name}_pooled")(embeddings, indices[name])
        return fields

    def _deep(self, fields: dict[str, Any], numbers: list[Any]) -> Any:
        """Return the deep part, `[batch, 1]`."""
        pooled = [fields[name] for name in (LIKED, DISLIKED) if name in fields and ITEM_ID.name in fields]
        products = [fields[ITEM_ID.name] * each for each in pooled]
        hidden = ops.concatenate([*fields.values(), *products, *numbers], axis=-1)
        for layer, width in enumerate(self.config.hidden):
            hidden = keras.layers.Dense(width, activation="relu", name=f"deep_{layer}")(hidden)
            hidden = keras.layers.Dropout(self.config.dropout, name=f"deep_{layer}_dropout")(hidden)
        return keras.layers.Dense(1, name="deep")(hidden)
