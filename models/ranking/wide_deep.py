"""Wide & Deep: weights of terms, and of pairs of them, beside a perceptron; each part has its own optimiser.

Cheng et al., Wide & Deep Learning for Recommender Systems (DLRS 2016), section 3.

    terms, numbers ─ weights ─────────────────────────┐  wide, by FTRL
    pairs of terms ─ cross-products ─ weights ────────┼─ sum ─ logit
    vectors of terms, numbers ─ perceptron ───────────┘  deep, by Adam

Deviations: a cross-product's weight is found by its hash, so that memory is bounded; Adam for AdaGrad in the deep part,
and in the wide one where FTRL's rate is 0.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops
from pydantic import Field

from models.errors import BuildError
from models.layers.hashed_crosses import HashedCrosses
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields

_WIDE = "wide"


class WideDeepConfig(DeepConfig):
    """Wide & Deep."""

    crosses: tuple[tuple[str, str], ...] | None = None
    """Pairs of columns of terms that have cross-products; None are all pairs of single terms."""
    buckets: int = Field(default=1 << 16, ge=2, le=1 << 28)
    """Weights that cross-products share."""
    wide_learning_rate: float = Field(default=0.05, ge=0, le=10)
    """Of FTRL; at 0, Adam fits the wide part, too."""
    wide_l1: float = Field(default=1e-3, ge=0, le=1_000)
    """Of FTRL: weights that tell little become 0."""


class WideDeep(FieldsModel[WideDeepConfig]):
    """What was seen together is remembered, and what is alike is generalised from."""

    name: ClassVar[str] = "wide_deep"
    paper: ClassVar[str] = "Cheng et al., Wide & Deep Learning for Recommender Systems (DLRS 2016)"
    config_class: ClassVar[type[RankingConfig]] = WideDeepConfig

    def logit(self, fields: Fields) -> Any:
        """Return the sum of both parts."""
        parts = [fields.linear(name=_WIDE), to_logit(perceptron(fields.flat(self.config.embedding_size), self.config))]
        if pairs := self._pairs(fields):
            crosses = HashedCrosses(pairs, self.config.buckets, name=f"crosses_{_WIDE}")
            parts.append(crosses(list(fields.indices.values())))
        return ops.sum(ops.stack(parts), axis=0)

    def _pairs(self, fields: Fields) -> list[tuple[int, int]]:
        """Return the places of the columns of each pair.

        Raises:
            BuildError: The config names a column that is none of terms.
        """
        places = {name: place for place, name in enumerate(fields.indices)}
        if self.config.crosses is None:
            single = [name for name, indices in fields.indices.items() if len(indices.shape) == 1]
            return [(places[one], places[other]) for one, other in combinations(single, 2)]
        if unknown := sorted({name for pair in self.config.crosses for name in pair} - places.keys()):
            msg = f"crosses of {unknown}: expected columns of terms among {sorted(places)}; mend crosses in the config"
            raise BuildError(msg)
        return [(places[one], places[other]) for one, other in self.config.crosses]

    def optimizer(self) -> Any:
        """Return FTRL for the wide part, Adam for the deep one."""
        fit = self.config.fit
        adam = fit.adam()
        if not self.config.wide_learning_rate:
            return adam
        ftrl = keras.optimizers.Ftrl(
            self.config.wide_learning_rate,
            l1_regularization_strength=self.config.wide_l1,
            global_clipnorm=fit.clip_norm or None,
        )
        return keras.optimizers.MultiOptimizer(lambda weight: ftrl if is_wide(weight.path) else adam)


def is_wide(path: str) -> bool:
    """Tell whether a weight belongs to the wide part, by its layer's name."""
    layer = path.split("/")[-2]
    return layer == _WIDE or layer.endswith(f"_{_WIDE}")
