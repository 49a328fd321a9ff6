"""Logistic regression over the encoded columns: the baseline that a deep model must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops
from pydantic import Field

from models.layers.mean_pooling import MeanPooling
from models.ranking.base import KerasConfig, KerasModel, RankingConfig, encoded_inputs
from models.training.keras_loop import FitConfig

if TYPE_CHECKING:
    from models.encoding import Encoded


class LogisticRegressionConfig(KerasConfig):
    """Logistic regression."""

    fit: FitConfig = FitConfig(batch_size=2048, learning_rate=1e-2)
    l2: float = Field(default=1e-5, ge=0, le=1_000)
    """Weight decay on every linear weight."""
    unknown_rate: float = Field(default=0.05, ge=0, lt=1)
    """Share of items that are taken for unknown in training."""


class LogisticRegression(KerasModel[LogisticRegressionConfig]):
    """One weight per number and per term; terms of a list are averaged."""

    name: ClassVar[str] = "lr"
    config_class: ClassVar[type[RankingConfig]] = LogisticRegressionConfig

    def build(self, encoded: Encoded, seed: int) -> Any:
        """Return the linear model."""
        inputs = encoded_inputs(encoded)
        encoded = self.reading(encoded)
        regulariser = keras.regularizers.L2(self.config.l2)
        terms = []
        if encoded.numeric:
            numbers = ops.concatenate([inputs[name] for name in encoded.numeric], axis=-1)
            terms.append(keras.layers.Dense(1, kernel_regularizer=regulariser, name="numeric")(numbers))
        for name, vocabulary in encoded.categorical.items():
            indices = encoded.unknown_dropout(name, self.config.unknown_rate, seed)(inputs[name])
            weights = keras.layers.Embedding(
                encoded.vocabulary_sizes[vocabulary],
                1,
                embeddings_initializer="zeros",
                embeddings_regularizer=regulariser,
                name=f"{name}_weight",
            )(indices)
            terms.append(MeanPooling(name=f"{name}_weight_pooled")(weights, indices))
        return keras.Model(inputs, ops.sum(ops.stack(terms), axis=0), name=self.name)
