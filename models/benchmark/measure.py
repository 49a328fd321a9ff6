"""One fit of one model: what it takes, and how good it is on rows that it has not seen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from models.benchmark.boosted import Boosted
from models.dataset import TEST, VALID
from models.evaluation.metrics import auc, check_finite, gauc, log_loss
from models.objectives import learned
from models.training.fit import fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.dataset import Split
    from models.ranking.base import RankingConfig, RankingModel
    from models.training.fit import Fittable, Fitted

_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Measured:
    """A fit, and the scores of the rows that it was not fitted to."""

    seconds: float
    """Of the fit."""
    valid: NDArray[np.floating]
    """`[rows]`, of the rows that the fit was stopped by."""
    test: NDArray[np.floating]
    """`[rows]`."""
    fitted: Fitted | None
    """What can be exported; None of trees, which are no graph."""


def measure(model: RankingModel[RankingConfig] | Boosted, rows: Fittable, seed: int) -> Measured:
    """Fit a model to the train and validation rows, and score those for validation and test.

    Raises:
        JobError: The model cannot be fitted to such rows.
        NotFiniteError: A score is no number.
    """
    keras.backend.clear_session()  # of the fit before, which a long benchmark would keep in memory
    began = time.perf_counter()
    if isinstance(model, Boosted):
        fitted, predict = None, model.fit(rows, seed)
    else:
        fitted = fit(model, rows, seed)
        predict = _scores_of(fitted, rows)
    seconds = time.perf_counter() - began
    valid, test = (check_finite(predict(rows[name]), f"{model.name}, seed {seed}") for name in (VALID, TEST))
    return Measured(seconds, valid, test, fitted)


def figures(split: Split, scores: NDArray[Any], *, probabilities: bool = True, groups: bool = True) -> dict[str, Any]:
    """Return `auc`, `gauc` and `log_loss` of scored rows; None of what they do not have.

    Args:
        split: The rows.
        scores: `[rows]`.
        probabilities: Whether the scores are such; else they only order rows, and have no log loss.
        groups: Whether the rows' users are groups that mean something.
    """
    found = {
        "auc": auc(split.labels, scores),
        "gauc": gauc(split.labels, scores, split.users) if groups else None,
        "log_loss": log_loss(split.labels, scores) if probabilities else None,
    }
    return {name: value if value is not None and np.isfinite(value) else None for name, value in found.items()}


def _scores_of(fitted: Fitted, rows: Fittable) -> Any:
    def predict(split: Split) -> NDArray[Any]:
        columns = fitted.encoded.run(split.features, rows.signature)
        logits = fitted.scorer.predict(columns, batch_size=_BATCH, verbose=0)
        return np.asarray(learned(rows.signature.objective).scores(logits))

    return predict
