"""LightGBM on the encoded columns: what every model of the benchmark stands beside.

Ke et al., LightGBM: A Highly Efficient Gradient Boosting Decision Tree (NeurIPS 2017).

Numbers are numbers, single terms are categories. Lists of terms are left out, as trees have no way to read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.dataset import TRAIN, VALID
from models.encoding import build_encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.dataset import Split
    from models.training.fit import Fittable

_TREES = 1000
_PATIENCE = 50


class BoostedConfig(BaseModel):
    """How the trees are grown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(default=0.05, gt=0, le=1)
    """Of each tree's values."""
    leaves: int = Field(default=31, ge=2, le=1024)
    """At most so many of each tree."""
    rows_per_leaf: int = Field(default=20, ge=1, le=1_000_000)
    """At least so many."""


SEARCH = (BoostedConfig(), BoostedConfig(leaves=127, rows_per_leaf=50))
"""What is tried on the first fold: as much as for every other model (`context.yaml`)."""


class Boosted:
    """A booster of LightGBM's with log loss, which the validation rows stop."""

    name: ClassVar[str] = "lightgbm"

    def __init__(self, config: BoostedConfig) -> None:
        self.config = config

    def fit(self, rows: Fittable, seed: int) -> Callable[[Split], NDArray[Any]]:
        """Return what scores a split's rows: probabilities, `[rows]`."""
        import lightgbm  # noqa: PLC0415 - heavy, and nobody else here needs it

        encoded = build_encoder(rows.signature, rows.transforms)
        terms = [name for name in encoded.categorical if len(encoded.model.output[name].shape) == 1]

        def table(split: Split) -> NDArray[np.float64]:
            columns = encoded.run(split.features, rows.signature)
            parts = [np.asarray(columns[name], dtype=np.float64).reshape(split.rows, -1) for name in encoded.numeric]
            parts += [np.asarray(columns[name], dtype=np.float64).reshape(split.rows, 1) for name in terms]
            return np.concatenate(parts, axis=1)

        first = sum(int(encoded.model.output[name].shape[1]) for name in encoded.numeric)
        categories = list(range(first, first + len(terms)))
        train, valid = (
            lightgbm.Dataset(
                table(rows[name]),
                rows[name].labels,
                weight=rows[name].weights,
                categorical_feature=categories,
                params={"verbosity": -1},
            )
            for name in (TRAIN, VALID)
        )
        params = {
            "objective": "binary",
            "metric": "binary_logloss",
            "learning_rate": self.config.learning_rate,
            "num_leaves": self.config.leaves,
            "min_data_in_leaf": self.config.rows_per_leaf,
            "seed": seed,
            "deterministic": True,
            "num_threads": 1,  # more wait for one another, busily, where other work has the cores
            "force_row_wise": True,
            "verbosity": -1,
        }
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        trees = lightgbm.train(params, train, _TREES, valid_sets=[valid.set_reference(train)], callbacks=[stop])
        return lambda split: np.asarray(trees.predict(table(split)))
