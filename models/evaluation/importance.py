"""Permutation importance: how much worse a model orders rows if one of its inputs is another row's (Breiman 2001).

It tells what this model reads, and not what could be known of a feature: of two inputs that say the same, each may be
without importance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from feature_repo.contracts.objectives import Metric
from feature_repo.contracts.signatures import ROWS_SIGNATURE
from models.evaluation.metrics import auc, gauc
from models.inputs import to_tensors

if TYPE_CHECKING:
    from feature_repo.contracts.signatures import Signature
    from models.dataset import Split
    from models.saved_model_loader import SavedModel


def permutation_importance(
    model: SavedModel, split: Split, signature: Signature, *, rows: int, repeats: int, seed: int
) -> dict[str, Any]:
    """Return the `metric`, its `figure` on the drawn rows, and of each input the mean `drop` and its `spread`.

    The metric is AUC, or GAUC where a score compares a user's rows alone. Inputs are in order of their drop. All three
    are None where the rows lack a class.

    Args:
        model: A SavedModel.
        split: Test rows.
        signature: What the model takes, and its objective.
        rows: So many are drawn at most. They are those of some users, as GAUC compares a user's own: of rows that are
            drawn one by one hardly two have the same.
        repeats: Permutations of each input.
        seed: Of the rows and permutations.
    """
    random = np.random.default_rng(seed)
    turns = random.permutation(int(split.users.max()) + 1)[split.users]
    drawn = split.take(np.sort(np.argsort(turns, kind="stable")[:rows]))
    metric = Metric.AUC if Metric.AUC in signature.objective.metrics else Metric.GAUC
    inputs, call = to_tensors(drawn.features, signature), model.signature(ROWS_SIGNATURE)

    def figure(columns: dict[str, tf.Tensor]) -> float:
        scores = call(**columns)[signature.output.name].numpy()
        return auc(drawn.labels, scores) if metric is Metric.AUC else gauc(drawn.labels, scores, drawn.users)

    whole = figure(inputs)
    found = {"metric": metric.value, "rows": drawn.rows, "repeats": repeats}
    if not np.isfinite(whole):
        unknown = [{"feature": name, "drop": None, "spread": None} for name in inputs]
        return found | {"figure": None, "features": unknown}
    features: list[dict[str, Any]] = []
    for name, values in inputs.items():
        orders = (random.permutation(drawn.rows) for _ in range(repeats))
        drops = [whole - figure({**inputs, name: tf.gather(values, order)}) for order in orders]
        features.append({"feature": name, "drop": float(np.mean(drops)), "spread": float(np.std(drops))})
    return found | {"figure": whole, "features": sorted(features, key=lambda each: (-each["drop"], each["feature"]))}
