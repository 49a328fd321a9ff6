"""The size of an exported model, and how long it takes in this process to rank candidates for one user."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from feature_repo.contracts.signatures import ONE_USER_SIGNATURE, Scope
from models.inputs import to_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from feature_repo.contracts.signatures import Signature
    from models.dataset import Split
    from models.saved_model_loader import SavedModel

CANDIDATES = 200
"""Of the measured call: as many as a recommender ranks for one user."""
_WARM_UP, _CALLS = 3, 30


def export_cost(directory: Path, model: SavedModel, split: Split, signature: Signature, seed: int) -> dict[str, Any]:
    """Return `bytes` of all files, and `p50_ms` and `p99_ms` of calls of `one_user`, one after the other.

    A call takes the time on the clock or that of the processor, whichever is less: several threads make the first
    shorter, and others who keep the machine busy make it longer, which is no fault of the model.

    Args:
        directory: The SavedModel's.
        model: The same, loaded.
        split: Rows to take the user and the candidates from.
        signature: What the model takes.
        seed: Of the rows that are drawn.
    """
    random = np.random.default_rng(seed)
    user, items = (split.take(random.integers(0, split.rows, rows)).features for rows in (1, CANDIDATES))
    inputs = to_tensors(
        {
            each.column.name: (user if each.scope is Scope.USER else items)[each.column.name]
            for each in signature.inputs
        },
        signature,
    )
    call, seconds = model.signature(ONE_USER_SIGNATURE), []
    for _ in range(_WARM_UP + _CALLS):
        started = time.perf_counter(), time.process_time()
        tf.nest.map_structure(lambda output: output.numpy(), call(**inputs))
        seconds.append(min(time.perf_counter() - started[0], time.process_time() - started[1]))
    p50, p99 = np.quantile(np.array(seconds[_WARM_UP:]) * 1000, [0.5, 0.99])
    return {
        "bytes": sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
        "candidates": CANDIDATES,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }
