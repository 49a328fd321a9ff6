"""Boosted trees whose leaves are the inputs of a logistic regression.

He et al., Practical Lessons from Predicting Clicks on Ads at Facebook (ADKDD 2014), section 3.1.

    numbers [batch, n] ─ trees ─ leaves [batch, trees] ─ a weight for each leaf, summed ─┐
          └──────────────────────────────────────────────┬─ a weight for each number ────┴─ sum ─ logit [batch, 1]
    terms ───────────────────────────────────────────────┴─ a weight for each term

LightGBM (Ke et al., NeurIPS 2017) fits the trees to the train rows until the validation rows say to stop. Then Keras's
loop fits the weights. The trees stand in the graph as gathers and comparisons; they are weights, not trainable.

What the trees are fitted to follows from the objective: to the label by log loss, of `watch_time` with its weights; of
`regression` to the value by squared error; of several heads a forest for each, to what the head says.

Deviations:
- Trees read numbers alone. Terms, and numbers once more, are in the linear part; the paper's has leaves alone.
- A leaf's weight begins as the value that the tree gives it, and a number's as 0, so that the fit begins with the
  boosted trees' own logit. The paper's begin at 0.
- The paper learns trees daily and weights online; here both learn from the same rows, one after the other.
- Of `pairwise` and `listwise` the trees know no groups: they learn the label by log loss; the weights know them.
- Adam, weight decay on leaves' and terms' weights, terms taken for unknown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
from keras import ops
from pydantic import Field

from feature_repo.contracts.objectives import LISTWISE, PAIRWISE, PROBABILITY, REGRESSION, TAKEN_AND_LIKED, WATCH_TIME
from models.encoding import build_encoder
from models.errors import BuildError
from models.layers.term_embedding import TermEmbedding
from models.layers.tree_leaves import TreeLeaves
from models.objectives import learned
from models.ranking.base import KerasConfig, RankingModel, encoded_inputs
from models.ranking.fields import Fields
from models.training.keras_loop import FitConfig, fit_by_keras

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.dataset import Split
    from models.encoding import Encoded
    from models.ranking.base import RankingConfig
    from models.training.fit import FitContext, Fitted

_BOOSTED = {each.name: "binary" for each in (PROBABILITY, WATCH_TIME, PAIRWISE, LISTWISE, TAKEN_AND_LIKED)} | {
    REGRESSION.name: "regression"
}
"""Objective → what LightGBM calls the loss of its trees."""
_TINY = np.float32(1e-35)
"""LightGBM takes numbers for 0 that are no farther from it."""
_TOLD_EVERY_S = 20.0


class GBDTLRConfig(KerasConfig):
    """Boosted trees and the weights of their leaves."""

    fit: FitConfig = FitConfig(batch_size=2048, learning_rate=3e-3)
    trees: int = Field(default=300, ge=1, le=5_000)
    """At most so many."""
    leaves: int = Field(default=12, ge=2, le=1_024)
    """At most so many of each tree."""
    depth: int = Field(default=6, ge=1, le=24)
    """At most so many splits one after the other: each costs a gather for every row."""
    shrinkage: float = Field(default=0.1, gt=0, le=1)
    """Of each tree's values: the trees' learning rate."""
    rows_per_leaf: int = Field(default=20, ge=1, le=1_000_000)
    """At least so many."""
    leaf_l2: float = Field(default=1.0, ge=0, le=1_000_000)
    """Weight decay on the values that the trees give their leaves."""
    patience: int = Field(default=20, ge=1, le=5_000)
    """Trees without a smaller loss of the validation rows; then those up to the best stay."""
    threads: int = Field(default=1, ge=1, le=256)
    """That fit the trees. More wait for one another, busily, where other work has the cores."""
    l2: float = Field(default=1e-5, ge=0, le=1_000)
    """Weight decay on the linear weights of leaves and terms."""
    unknown_rate: float = Field(default=0.05, ge=0, lt=1)
    """Share of terms that are taken for unknown in training."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Fitted trees, as `TreeLeaves` has them."""

    layer: dict[str, int]
    """Its arguments."""
    weights: list[NDArray[Any]]
    """Its weights."""
    values: NDArray[np.float64]
    """`[trees, leaves]`: what the trees give; 0 where there is no such leaf."""


class GBDTLR(RankingModel[GBDTLRConfig]):
    """Trees first, then a weight for each leaf, number and term."""

    name: ClassVar[str] = "gbdt_lr"
    paper: ClassVar[str] = "He et al., Practical Lessons from Predicting Clicks on Ads at Facebook (ADKDD 2014)"
    config_class: ClassVar[type[RankingConfig]] = GBDTLRConfig

    def fit(self, context: FitContext) -> Fitted:
        """Fit the trees, then the weights; the validation rows say when to stop, twice.

        Raises:
            BuildError: There is no number for trees to read, no LightGBM, or no loss of trees for the objective.
        """
        encoded = build_encoder(context.signature, context.transforms)
        heads = context.signature.objective.heads or ("",)
        suffixes = [f"_{head}" if head else "" for head in heads]
        forests = self._forests(self.reading(encoded), encoded, context, suffixes)
        inputs = encoded_inputs(encoded)
        config = self.config
        fields = Fields(inputs, self.reading(encoded), context.seed, unknown_rate=config.unknown_rate, l2=config.l2)
        logits = [self._logit(fields, *each) for each in zip(forests, suffixes, strict=True)]
        scorer = keras.Model(inputs, ops.concatenate(logits, axis=-1) if len(logits) > 1 else logits[0], name=self.name)
        for forest, suffix in zip(forests, suffixes, strict=True):
            scorer.get_layer(f"trees{suffix}").set_weights(forest.weights)
            scorer.get_layer(f"leaf_weight{suffix}").set_weights([forest.values.reshape(-1, 1)])
            numbers = scorer.get_layer(f"weight{suffix}")
            numbers.set_weights([np.zeros_like(each) for each in numbers.get_weights()])
        fitted = fit_by_keras(scorer, encoded, context, config.fit)
        told = {f"trees{suffix}": len(forest.values) for forest, suffix in zip(forests, suffixes, strict=True)}
        return replace(fitted, params={**fitted.params, **told})

    def _logit(self, fields: Fields, forest: Forest, suffix: str) -> Any:
        """Return `[batch, 1]`."""
        trees, leaves = forest.values.shape
        first = np.arange(trees, dtype=np.int32) * leaves
        weights = TermEmbedding(
            trees * leaves,
            1,
            embeddings_initializer="zeros",
            embeddings_regularizer=keras.regularizers.L2(self.config.l2),
            name=f"leaf_weight{suffix}",
        )(TreeLeaves(**forest.layer, name=f"trees{suffix}")(fields.numbers) + first)
        return ops.sum(weights, axis=1) + fields.linear(name=f"weight{suffix}")

    def _forests(self, reading: Encoded, encoded: Encoded, context: FitContext, suffixes: list[str]) -> list[Forest]:
        """Return a forest for each head."""
        if not reading.numeric:
            msg = (
                f"model {self.name}: expected columns of numbers for its trees, received {sorted(reading.categorical)} "
                "alone; give the spec features that are numbers, or take a model of terms"
            )
            raise BuildError(msg)
        objective = context.signature.objective.name
        if objective not in _BOOSTED:
            msg = (
                f"model {self.name}: expected an objective among {sorted(_BOOSTED)}, received {objective!r}; add the "
                f"loss of its trees to _BOOSTED in {__name__}, or take another model"
            )
            raise BuildError(msg)
        numbers = [
            np.concatenate([columns[name] for name in reading.numeric], axis=1)
            for columns in (encoded.run(split.features, context.signature) for split in (context.train, context.valid))
        ]
        targets = [_targets(context, split) for split in (context.train, context.valid)]
        return [
            self._forest(numbers, [each[number] for each in targets], context, f"trees{suffix}")
            for number, suffix in enumerate(suffixes)
        ]

    def _forest(
        self,
        numbers: list[NDArray[Any]],
        targets: list[tuple[NDArray[Any], NDArray[Any]]],
        context: FitContext,
        name: str,
    ) -> Forest:
        """Return the trees that LightGBM fits to the first rows, stopped by the second."""
        try:
            import lightgbm  # noqa: PLC0415 - heavy, and no other model needs it
        except ImportError as error:
            msg = f"model {self.name}: expected LightGBM to be installed, received {error}; install lightgbm>=4.6"
            raise BuildError(msg) from error
        config = self.config
        params = {
            "objective": _BOOSTED[context.signature.objective.name],
            "learning_rate": config.shrinkage,
            "num_leaves": config.leaves,
            "max_depth": config.depth,
            "min_data_in_leaf": config.rows_per_leaf,
            "lambda_l2": config.leaf_l2,
            "use_missing": False,  # missing values are numbers here
            "seed": context.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": config.threads,
            "verbosity": -1,
        }
        parts = []
        for rows, (target, weights) in zip(numbers, targets, strict=True):
            counted = weights > 0  # LightGBM counts rows of no weight in leaves, too
            parts.append((rows[counted], target[counted], weights[counted]))
        try:
            train, valid = (lightgbm.Dataset(rows, label, weight=weights) for rows, label, weights in parts)
            booster = lightgbm.train(
                params,
                train,
                config.trees,
                valid_sets=[valid.set_reference(train)],
                callbacks=[
                    lightgbm.early_stopping(config.patience, verbose=False),
                    _progress(context.tell, name),
                ],
            )
        except lightgbm.basic.LightGBMError as error:
            msg = (
                f"model {self.name}: expected a config and rows that give trees, received {config.model_dump_json()} "
                f"and {len(parts[0][0])} train rows, of which LightGBM says: {' '.join(str(error).split()):.400}; "
                "change the config"
            )
            raise BuildError(msg) from error
        return read_forest(booster)


def read_forest(booster: Any) -> Forest:
    """Return the trees of a LightGBM booster, those after the best iteration left out.

    Args:
        booster: Fitted to float32 numbers that are never NaN, without columns of categories.
    """
    trees = booster.dump_model()["tree_info"]
    leaves = max(2, *(tree["num_leaves"] for tree in trees))
    inner = leaves - 1
    shape = (len(trees), inner + leaves)
    columns, thresholds = np.zeros(shape, np.int32), np.zeros(shape, np.float64)
    # A tree without a split goes from its first node to leaf 0; a leaf stays where it is.
    children = np.maximum(np.arange(shape[1], dtype=np.int32), inner) * np.ones((2, len(trees), 1), np.int32)
    values, depth = np.zeros((len(trees), leaves)), 1
    for tree, found in enumerate(trees):
        left = [(found["tree_structure"], 1)]
        while left:
            node, level = left.pop()
            if "leaf_value" in node:
                values[tree, node.get("leaf_index", 0)] = node["leaf_value"]
                continue
            place, depth = node["split_index"], max(depth, level)
            columns[tree, place], thresholds[tree, place] = node["split_feature"], node["threshold"]
            for side, child in enumerate((node["left_child"], node["right_child"])):
                children[side, tree, place] = child.get("split_index", inner + child.get("leaf_index", 0))
                left.append((child, level + 1))
    children += np.arange(len(trees), dtype=np.int32)[:, None] * np.int32(shape[1])
    return Forest(
        {"trees": len(trees), "leaves": leaves, "depth": depth},
        [columns.ravel(), at_most(thresholds).ravel(), children[0].ravel(), children[1].ravel()],
        values,
    )


def at_most(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return float32 thresholds by which every float32 number goes where it goes by these: x <= threshold, or not.

    That is the greatest float32 that is no greater: the nearest one may be greater, and send a number left that is
    equal to it. LightGBM takes numbers near 0 for 0, so they go together, to the side of 0.
    """
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    lower = np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    beside_zero = np.where(thresholds < 0, np.nextafter(-_TINY, np.float32(-np.inf)), _TINY)
    return np.where(np.abs(thresholds) <= _TINY, beside_zero, lower)


def _targets(context: FitContext, split: Split) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return what each forest is fitted to, `[rows]`, and how much each row counts."""
    objective = learned(context.signature.objective)
    if heads := objective.binary_heads(split):
        return [(head.labels, head.weights) for head in heads]
    if context.signature.objective.grouped:  # whose weights are 0 for all that is not positive
        return [(split.labels, split.weights)]
    return [(objective.targets(split)[:, 0], objective.weights(split))]


def _progress(tell: Callable[[str], None], name: str) -> Callable[[Any], None]:
    """Return a callback of LightGBM's that tells of a long fit."""
    told = time.monotonic()

    def callback(env: Any) -> None:
        nonlocal told
        if time.monotonic() - told >= _TOLD_EVERY_S:
            told = time.monotonic()
            tell(f"{name}: {env.iteration + 1} of at most {env.end_iteration}")

    return callback
