"""Small models that are not fitted as ours are, or have a graph that ours have not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
from keras import ops

from models.encoding import Encoded, build_encoder
from models.layers.mean_pooling import MeanPooling
from models.ranking.base import KerasConfig, KerasModel, RankingConfig, RankingModel, encoded_inputs
from models.training.fit import FitContext, Fitted
from models.training.keras_loop import FitConfig, fit_by_keras

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHORT = FitConfig(batch_size=64, epochs=1, learning_rate=1e-2)


class ShortConfig(KerasConfig):
    fit: FitConfig = SHORT


class RidgeConfig(RankingConfig):
    penalty: float = 1.0


def _numbers(encoded: Encoded, context: FitContext) -> NDArray[np.float64]:
    columns = encoded.run(context.train.features, context.signature)
    return np.concatenate([columns[name] for name in encoded.numeric], axis=1).astype(np.float64)


class Ridge(RankingModel[RidgeConfig]):
    """A closed form: ridge regression on the numbers, put into a graph."""

    name: ClassVar[str] = "ridge"
    config_class: ClassVar[type[RankingConfig]] = RidgeConfig

    def fit(self, context: FitContext) -> Fitted:
        whole = build_encoder(context.signature, context.transforms)
        encoded = self.reading(whole)
        numbers = _numbers(encoded, context)
        rows = np.concatenate([numbers, np.ones((len(numbers), 1))], axis=1)
        square = rows.T @ rows + self.config.penalty * np.eye(rows.shape[1])
        solution = np.linalg.solve(square, rows.T @ (4.0 * context.train.labels - 2.0))
        inputs = encoded_inputs(encoded)
        linear = keras.layers.Dense(1, name="linear")
        scorer = keras.Model(inputs, linear(ops.concatenate([inputs[name] for name in encoded.numeric], axis=-1)))
        linear.set_weights([solution[:-1, None], solution[-1:]])
        return Fitted(whole, scorer)


class PairScore(RankingModel[RankingConfig]):
    """Orders items as a channel does: by its score, those that it did not find last."""

    name: ClassVar[str] = "pair_score"
    config_class: ClassVar[type[RankingConfig]] = RankingConfig
    reads: ClassVar[str] = "pair_item2vec_score"

    def fit(self, context: FitContext) -> Fitted:
        encoded = build_encoder(context.signature, context.transforms)
        inputs = encoded_inputs(encoded)
        linear = keras.layers.Dense(1, name="linear")
        scorer = keras.Model(inputs, linear(inputs[self.reads]))
        score, known = [1.0], [10.0]
        linear.set_weights([np.array([score, known]), np.array([-10.0])])
        return Fitted(encoded, scorer)


class TwoStages(KerasModel[ShortConfig]):
    """Embeddings of items that are learned alone first, and with the rest then."""

    name: ClassVar[str] = "two_stages"
    config_class: ClassVar[type[RankingConfig]] = ShortConfig

    def fit(self, context: FitContext) -> Fitted:
        encoded = build_encoder(context.signature, context.transforms)
        whole = self.build(encoded, context.seed)
        embedding = whole.get_layer("item_embedding")
        items = keras.Input(shape=(), dtype="int32", name="item_id")
        alone = keras.Model(
            encoded_inputs(encoded) | {"item_id": items},
            keras.layers.Dense(1, name="item")(embedding(items)),
            name="alone",
        )
        first = fit_by_keras(alone, encoded, context, self.config.fit)
        context.tell("the items alone are done")
        second = fit_by_keras(whole, encoded, context, self.config.fit)
        history = {f"alone_{name}": values for name, values in first.history.items()} | dict(second.history)
        return replace(second, history=history, params={"best_epoch_alone": first.params["best_epoch"]})

    def build(self, encoded: Encoded, seed: int) -> Any:  # noqa: ARG002 - as all models have it
        inputs = encoded_inputs(encoded)
        embedding = keras.layers.Embedding(encoded.vocabulary_sizes["item"], 4, name="item_embedding")
        history = MeanPooling()(embedding(inputs["user_last_items"]), inputs["user_last_items"])
        numbers = [inputs[name] for name in encoded.numeric]
        hidden = ops.concatenate([embedding(inputs["item_id"]), history, *numbers], axis=-1)
        return keras.Model(inputs, keras.layers.Dense(1, name="logit")(hidden), name=self.name)


class _Stumps(keras.layers.Layer):
    """`[batch, numbers]` → sum of one leaf of every stump, `[batch, 1]`."""

    def __init__(self, rounds: int, **options: Any) -> None:
        super().__init__(trainable=False, **options)
        self.columns = self.add_weight(shape=(rounds,), dtype="int32", initializer="zeros", name="columns")
        self.thresholds = self.add_weight(shape=(rounds,), initializer="zeros", name="thresholds")
        self.leaves = self.add_weight(shape=(2, rounds), initializer="zeros", name="leaves")

    def call(self, numbers: Any) -> Any:
        lower = ops.take(numbers, self.columns, axis=1) < self.thresholds
        return ops.sum(ops.where(lower, self.leaves[0], self.leaves[1]), axis=1, keepdims=True)


class StumpsConfig(RankingConfig):
    rounds: int = 12


class Stumps(RankingModel[StumpsConfig]):
    """Trees of one split, each fitted to what those before left."""

    name: ClassVar[str] = "stumps"
    config_class: ClassVar[type[RankingConfig]] = StumpsConfig

    def fit(self, context: FitContext) -> Fitted:
        whole = build_encoder(context.signature, context.transforms)
        encoded = self.reading(whole)
        numbers, labels = _numbers(encoded, context).astype(np.float32), context.train.labels
        logits, stumps, losses = np.zeros(len(labels)), [], []
        for _ in range(self.config.rounds):
            left = labels - 1 / (1 + np.exp(-logits))
            column, threshold, leaves = min(
                (_split(numbers, left, each) for each in range(numbers.shape[1])), key=_loss
            )[:3]
            logits += np.where(numbers[:, column] < threshold, leaves[0], leaves[1])
            stumps.append((column, threshold, leaves))
            losses.append(float(np.mean(np.logaddexp(0, logits) - labels * logits)))
        layer = _Stumps(len(stumps), name="stumps")
        columns, thresholds, leaves = zip(*stumps, strict=True)
        layer.set_weights([np.array(columns), np.array(thresholds), np.array(leaves).T])
        inputs = encoded_inputs(encoded)
        scorer = keras.Model(inputs, layer(ops.concatenate([inputs[name] for name in encoded.numeric], axis=-1)))
        return Fitted(whole, scorer, {"log_loss": losses}, {"trees": len(stumps)})


def _split(numbers: NDArray[Any], left: NDArray[Any], column: int) -> tuple[int, float, tuple[float, float], float]:
    """Return a column, its median, and the means below and above it, with the squares that these leave."""
    threshold = float(np.median(numbers[:, column]))
    lower = numbers[:, column] < threshold
    leaves = tuple(float(left[rows].mean()) if rows.any() else 0.0 for rows in (lower, ~lower))
    return column, threshold, leaves, float(np.square(left - np.where(lower, *leaves)).sum())


def _loss(split: tuple[int, float, tuple[float, float], float]) -> float:
    return split[3]


OTHERS: tuple[type[RankingModel[Any]], ...] = (Ridge, TwoStages, Stumps)
