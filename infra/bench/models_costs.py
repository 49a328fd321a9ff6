"""What a ranking model costs: milliseconds for 200 candidates, bytes on the disk, seconds of fitting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, Scope
from models.export import export
from models.inputs import tensor_specs
from models.ranking.listing import COSTS
from models.saved_model_loader import load_saved_model

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.signatures import Signature
    from models.dataset import Split
    from models.training.fit import Fitted

CANDIDATES = 200
_CALLS, _WARM_UP = 60, 10


def export_and_measure(  # noqa: PLR0917 - of what, taking what, of whom, how long, to where
    fitted: Fitted, signature: Signature, rows: Split, seconds: float, train_rows: int, saved_model: Path
) -> dict[str, float]:
    """Export a model and return its costs by the names of `models.ranking.listing.COSTS`.

    Args:
        fitted: The model.
        signature: What it takes.
        rows: Whose first rows the candidates are made of, and the user of the first.
        seconds: Of the fit.
        train_rows: It was fitted to.
        saved_model: Where it goes.
    """
    export(fitted, signature, saved_model)
    size = sum(path.stat().st_size for path in saved_model.rglob("*") if path.is_file())
    values = (_p50_ms(saved_model, signature, rows), float(size), seconds / train_rows * 1e6)
    return dict(zip(COSTS, values, strict=True))


def _p50_ms(saved_model: Path, signature: Signature, rows: Split) -> float:
    """Return the median time of a call of `one_user` in this process."""
    loaded = load_saved_model(saved_model)  # keeps the variables alive
    call = loaded.signatures[ONE_USER_SIGNATURE]
    users = {column.name for column in signature.scoped(Scope.USER)}
    specs = tensor_specs(signature, ONE_USER_SIGNATURE)
    inputs = {}
    for name, spec in specs.items():
        values = rows.features[name]
        wanted = 1 if name in users else CANDIDATES
        inputs[name] = tf.constant(np.resize(values[:wanted], (wanted, *values.shape[1:])), spec.dtype)
    taken = []
    for _ in range(_WARM_UP + _CALLS):
        began = time.perf_counter()
        for output in call(**inputs).values():
            output.numpy()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[_WARM_UP:]) * 1e3)
