"""The same rows and inputs, ordered by others: what boosted trees and single channels make of them.

Judged are the test rows of a training set of kind LISTS: what recall offered at its test origin. The figure is NDCG@10
among the candidates, so that recall does not count. Boosted trees are fitted and stopped on the rows that the shipped
model is fitted and stopped on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np

from feature_repo.contracts.channels import Figure
from feature_repo.contracts.datasets import GROUP_ID
from feature_repo.contracts.manifests import TrainingKind
from feature_repo.contracts.questions import LONG_HISTORY
from feature_repo.list_metrics import DECIDING, LIST_METRICS
from models.dataset import TEST, TRAIN, VALID, Dataset, Split, read_dataset
from models.encoding import build_encoder
from models.saved_model_loader import SavedModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from models.specs.spec import Spec

_TREES = 600
_PATIENCE = 50
_EACH_TREE = {"learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 50}
_OBJECTIVES = {"LightGBM, lambdarank": "lambdarank", "LightGBM, log loss": "binary"}
"""Learner → its objective. Ke et al., LightGBM (NeurIPS 2017); Burges, From RankNet to LambdaRank to LambdaMART."""


def measure_learners(directory: Path, spec: Spec, trained: Mapping[str, Path], seed: int) -> dict[str, float]:
    """Return learner → NDCG@10 among the candidates of the test origin's judged users.

    Args:
        directory: A training set of kind LISTS.
        spec: Whose inputs everybody reads.
        trained: Name → SavedModel, of specs that were trained on it.
        seed: Of the trees.
    """
    dataset = read_dataset(directory, (TRAIN, VALID, TEST), spec.features, spec.learned, TrainingKind.LISTS)
    test = dataset[TEST]
    scores = {name: SavedModel(folder).predict(test.features) for name, folder in trained.items()}
    encoded = spec.model().reading(build_encoder(dataset.signature, dataset.transforms))
    inputs = {}
    for name, split in dataset.splits.items():
        columns = encoded.run(split.features, dataset.signature)
        inputs[name] = np.concatenate([columns[each] for each in encoded.numeric], axis=1)
    scores |= {name: _boosted(inputs, dataset, objective, seed) for name, objective in _OBJECTIVES.items()}
    for name, pair in dataset.signature.pairs.items():
        if pair.figure is Figure.RANK:
            ranks = test.features[name]
            scores[f"channel {pair.channel}"] = np.where(ranks > 0, -ranks, -np.inf)
    return {name: ndcg(test, own) for name, own in scores.items()}


def ndcg(split: Split, scores: NDArray[np.floating]) -> float:
    """Return the mean NDCG@10 of the questions of users with a history, each among its own candidates."""
    chosen = split.features["user_event_count"] >= LONG_HISTORY
    groups, labels = split.target(GROUP_ID)[chosen], split.labels[chosen]
    order = np.lexsort((-scores[chosen], groups))
    labels, sizes = labels[order], np.bincount(np.unique(groups, return_inverse=True)[1])
    first = np.cumsum(sizes) - sizes
    metric, k = LIST_METRICS[DECIDING]
    places = np.arange(len(labels)) - np.repeat(first, sizes)
    hits = np.zeros((len(sizes), k), dtype=np.bool_)
    hits[np.repeat(np.arange(len(sizes)), sizes)[places < k], places[places < k]] = labels[places < k] == 1
    counts = np.add.reduceat(labels, first)
    answered = counts > 0
    return float(metric(hits[answered], counts[answered], k).mean())


def _boosted(inputs: Mapping[str, NDArray[np.float32]], dataset: Dataset, objective: str, seed: int) -> NDArray[Any]:
    """Return the scores of the test rows by trees that the validation rows stop."""
    train, valid = (
        lightgbm.Dataset(inputs[name], dataset[name].labels, group=_sizes(dataset[name])) for name in (TRAIN, VALID)
    )
    params: dict[str, Any] = {**_EACH_TREE, "objective": objective, "metric": "ndcg", "eval_at": [10], "seed": seed}
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    trees = lightgbm.train(params | {"verbosity": -1}, train, _TREES, valid_sets=[valid], callbacks=[stop])
    return np.asarray(trees.predict(inputs[TEST]))


def _sizes(split: Split) -> NDArray[np.intp]:
    """Return the rows of each question; they follow one another."""
    groups = split.target(GROUP_ID)
    first = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    return np.diff([*first, len(groups)])
