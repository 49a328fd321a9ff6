"""Makes probabilities as often right as they say: a line through each head's logits, fitted on the validation rows.

A fit stops by validation rows, its loss may count drawn rows otherwise, and what it has learned is of an earlier time.
The line moves all logits alike, so that no order changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np
from scipy import optimize, special

from models.layers.calibration import Calibration
from models.objectives import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.objectives import BinaryHead
    from models.training.fit import FitContext, Fitted

_ROWS_AT_ONCE = 1 << 16
_TRUST = 1.0
"""So many rows' weight says that nothing is to be changed: it decides where there are hardly any."""


def calibrated(fitted: Fitted, context: FitContext) -> Fitted:
    """Return the model with its calibration behind it; as it is where scores are no probabilities."""
    heads = learned(context.signature.objective).binary_heads(context.valid)
    if not heads:
        return fitted
    encoded = fitted.encoded.run(context.valid.features, context.signature)
    logits = fitted.scorer.predict(encoded, batch_size=_ROWS_AT_ONCE, verbose=0)
    lines = [fit_line(logits[:, number], head) for number, head in enumerate(heads)]
    layer = Calibration(*zip(*lines, strict=True), name="calibration")
    names = context.signature.objective.heads or ("",)
    told = {
        f"calibration_{what}{'_' if name else ''}{name}": round(value, 6)
        for name, line in zip(names, lines, strict=True)
        for what, value in zip(("scale", "offset"), line, strict=True)
    }
    scorer = keras.Model(fitted.scorer.inputs, layer(fitted.scorer.output), name=fitted.scorer.name)
    return replace(fitted, scorer=scorer, params={**fitted.params, **told})


def fit_line(logits: NDArray[np.floating], head: BinaryHead) -> tuple[float, float]:
    """Return scale, above 0, and offset with the least log loss of `scale * logit + offset`; 1 and 0 for one class.

    Args:
        logits: `[rows]`.
        head: What is true of each row, and how much it counts.
    """
    counted = head.weights > 0
    x, labels = logits[counted].astype(np.float64), head.labels[counted].astype(np.float64)
    weights = head.weights[counted].astype(np.float64)
    if not len(labels) or labels.min() == labels.max():
        return 1.0, 0.0

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale = np.exp(line[0])
        z = scale * x + line[1]
        missed = weights * (special.expit(z) - labels)
        value = float((weights * (np.logaddexp(0.0, z) - labels * z)).sum() + _TRUST / 2 * (line**2).sum())
        return value, np.array([(missed * x).sum() * scale, missed.sum()]) + _TRUST * line

    best = optimize.minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-3, 3), (-30, 30)])
    return float(np.exp(best.x[0])), float(best.x[1])
