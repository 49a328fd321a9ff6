"""How each objective is learned: what of a training set, by which loss, and what scores become of logits.

`feature_repo.contracts.objectives` says what the scores mean. Losses are of logits, row by row, `[batch]`; targets are
float32 `[batch, columns]`. A row counts by its weight, so that what is not to be learned of it weighs 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from feature_repo.contracts.datasets import DRAWN, GROUP_ID, VALUE
from feature_repo.contracts.objectives import (
    LISTWISE,
    PAIRWISE,
    PROBABILITY,
    REGRESSION,
    TAKEN_AND_LIKED,
    WATCH_TIME,
)
from models.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feature_repo.contracts.objectives import Objective
    from models.dataset import Split

    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BinaryHead:
    """What a head whose logits are log odds is right about."""

    labels: NDArray[Any]
    """`[rows]`, 1 where it is true."""
    weights: Floats
    """`[rows]`; 0 where the head says nothing of the row."""


class Learned(ABC):
    """What the fit and the export need of an objective."""

    objective: ClassVar[Objective]
    loss_name: ClassVar[str]
    """Of the loss without what regularises, by which fitting stops: `val_<loss_name>`."""

    def targets(self, split: Split) -> Floats:
        """Return what is learned, `[rows, columns]`."""
        return _column(split.labels)

    def weights(self, split: Split) -> Floats:
        """Return how much each row counts, `[rows]`."""
        return split.weights

    @abstractmethod
    def loss(self, targets: Any, logits: Any) -> Any:
        """Return the loss of each row, `[batch]`; `logits` are `[batch, heads]`."""

    @abstractmethod
    def scores(self, logits: Any) -> Any:
        """Return `[batch]` of logits `[batch, heads]`."""

    def metrics(self) -> list[Any]:
        """Return what else of an epoch people like to see: Keras metrics of targets and logits."""
        return []

    def binary_heads(self, split: Split) -> tuple[BinaryHead, ...]:  # noqa: ARG002 - of scores that are probabilities
        """Return what each head's probability is of, in their order; nothing where scores are no probabilities."""
        return ()

    def check(self, split: Split) -> None:
        """Raise DatasetError where there is nothing to learn from the rows."""
        _check_classes(
            split, split.labels, "positive", "check KESTREL_LABEL_MIN_VALUE and the fractions of the training set"
        )


class Probability(Learned):
    """Logistic loss."""

    objective = PROBABILITY
    loss_name = "log_loss"

    def loss(self, targets: Any, logits: Any) -> Any:
        """Return the log loss."""
        return _log_loss(targets[:, 0], logits[:, 0])

    def scores(self, logits: Any) -> Any:
        """Return probabilities."""
        return ops.sigmoid(logits[:, 0])

    def binary_heads(self, split: Split) -> tuple[BinaryHead, ...]:
        """Return the one head's."""
        return (BinaryHead(split.labels, self.weights(split)),)

    def metrics(self) -> list[Any]:
        """Return the AUC."""
        return [keras.metrics.AUC(num_thresholds=500, from_logits=True, name="auc")]


class Regression(Learned):
    """Squared error of the value; what was drawn has none, and is left out."""

    objective = REGRESSION
    loss_name = "squared_error"

    def targets(self, split: Split) -> Floats:
        """Return values."""
        return _column(split.target(VALUE))

    def weights(self, split: Split) -> Floats:
        """Return the rows' weights; 0 for a drawn row."""
        return split.weights * (1 - _drawn(split))

    def loss(self, targets: Any, logits: Any) -> Any:
        """Return the squared error."""
        return ops.square(targets[:, 0] - logits[:, 0])

    def scores(self, logits: Any) -> Any:
        """Return values."""
        return logits[:, 0]

    def check(self, split: Split) -> None:
        """Refuse rows that all have one value."""
        values = split.target(VALUE)[_drawn(split) == 0]
        if not len(values) or values.min() == values.max():
            msg = f"split {split.name}: expected rows of different values, received {len(values)} rows of one value"
            raise DatasetError(msg)


class WatchTime(Learned):
    """Weighted logistic regression: positive rows weigh by their value, the odds then are the expected value.

    Covington et al., Deep Neural Networks for YouTube Recommendations (RecSys 2016), section 4.2: served as e^(w.x+b).
    """

    objective = WATCH_TIME
    loss_name = "weighted_log_loss"

    def weights(self, split: Split) -> Floats:
        """Return the rows' weights, of positive ones times their value."""
        values = np.maximum(split.target(VALUE), 0)
        return split.weights * np.where(split.labels == 1, values, 1).astype(np.float32)

    def loss(self, targets: Any, logits: Any) -> Any:
        """Return the log loss."""
        return _log_loss(targets[:, 0], logits[:, 0])

    def scores(self, logits: Any) -> Any:
        """Return odds."""
        return ops.exp(logits[:, 0])


class _Grouped(Learned):
    """What compares rows within their group; a batch holds whole groups."""

    def targets(self, split: Split) -> Floats:
        """Return labels and, beside them, the group as a code from 0: float32 tells 16 million apart."""
        return np.stack([split.labels, _groups(split)], axis=1).astype(np.float32)

    def weights(self, split: Split) -> Floats:
        """Return the weights of the positive rows, which alone have a loss; 0 for others.

        Every group counts alike: its positive rows share a weight of 1, as in ListNet, whose truth is a distribution.
        A new user likes fifty items in a month, one who comes back five: rows of equal weight tell of new users alone.

        Keras divides by a batch's rows. So that the mean over them is about that over the groups, however many rows
        these have, each group weighs as many rows as there are for one: weight decay weighs the same then.
        """
        positive, groups = split.weights * split.labels.astype(np.float32), _groups(split)
        sums = np.bincount(groups, positive)
        of_group = np.where(sums > 0, sums, 1)[groups]
        scale = split.rows / max(int((sums > 0).sum()), 1)
        return (positive / of_group * scale).astype(np.float32)

    def scores(self, logits: Any) -> Any:
        """Return logits: only their order means something."""
        return logits[:, 0]

    def check(self, split: Split) -> None:
        """Refuse rows none of whose groups has both classes."""
        super().check(split)
        groups = _groups(split)
        positives, rows = np.bincount(groups, split.labels), np.bincount(groups)
        if not np.any((positives > 0) & (positives < rows)):
            msg = (
                f"split {split.name}: expected groups with rows of both classes, received {len(rows)} groups without; "
                "an objective that compares rows of a group learns nothing of these: take another"
            )
            raise DatasetError(msg)


class Pairwise(_Grouped):
    """RankNet: each positive row of a group before each other one.

    Burges et al., Learning to Rank using Gradient Descent (ICML 2005). A positive row's loss is the mean of its pairs.
    """

    objective = PAIRWISE
    loss_name = "pairwise_loss"

    def loss(self, targets: Any, logits: Any) -> Any:
        """Return the mean of -log sigmoid(own logit - other's) over the pairs of each positive row, 0 for others."""
        labels, groups, scores = targets[:, 0], targets[:, 1], logits[:, 0]
        pairs = (groups[:, None] == groups[None, :]) & (labels[:, None] > labels[None, :])
        pairs = ops.cast(pairs, scores.dtype)
        losses = ops.softplus(scores[None, :] - scores[:, None]) * pairs
        return ops.sum(losses, axis=1) / ops.maximum(ops.sum(pairs, axis=1), 1.0)


class Listwise(_Grouped):
    """Softmax cross entropy of a group's positive rows.

    Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach (ICML 2007), with labels as the truth.
    """

    objective = LISTWISE
    loss_name = "listwise_loss"

    def loss(self, targets: Any, logits: Any) -> Any:
        """Return -log of each positive row's share in its group's softmax, 0 for others and groups of one class.

        Sums are by group, so that a step costs as much as its rows, and not their square.
        """
        labels, scores = targets[:, 0], logits[:, 0]
        # Codes count the groups of a whole split; a batch has few of them.
        _, group = tf.unique(targets[:, 1])
        number = ops.max(group) + 1
        # What is taken off before the exponential cancels out, in the gradient, too.
        highest = ops.take(ops.stop_gradient(tf.math.unsorted_segment_max(scores, group, number)), group)
        share = tf.math.unsorted_segment_sum(ops.exp(scores - highest), group, number)
        total = ops.log(ops.take(share, group)) + highest
        others = ops.take(tf.math.unsorted_segment_min(labels, group, number), group) < labels
        return ops.where((labels > 0) & others, total - scores, 0.0)


class TakenAndLiked(Learned):
    """Two heads: whether the item is taken, of all rows; whether it is liked, of those that were taken."""

    objective = TAKEN_AND_LIKED
    loss_name = "log_loss_of_heads"

    def targets(self, split: Split) -> Floats:
        """Return taken and liked."""
        return np.stack([1 - _drawn(split), split.labels], axis=1).astype(np.float32)

    def loss(self, targets: Any, logits: Any) -> Any:
        """Return the log loss of taken, and that of liked where taken."""
        taken, liked = targets[:, 0], targets[:, 1]
        return _log_loss(taken, logits[:, 0]) + taken * _log_loss(liked, logits[:, 1])

    def scores(self, logits: Any) -> Any:
        """Return the probability of both."""
        return ops.sigmoid(logits[:, 0]) * ops.sigmoid(logits[:, 1])

    def binary_heads(self, split: Split) -> tuple[BinaryHead, ...]:
        """Return taken, and liked where taken."""
        taken, weights = 1 - _drawn(split), self.weights(split)
        return BinaryHead(taken, weights), BinaryHead(split.labels, weights * taken)

    def check(self, split: Split) -> None:
        """Refuse rows that were all taken, or all liked of those taken."""
        taken = _drawn(split) == 0
        _check_classes(split, taken, "taken", "a training set that has drawn rows, too, tells what is taken")
        _check_classes(split, split.labels[taken], "liked of those taken", "learn the probability of taking alone")


def learned(objective: Objective) -> Learned:
    """Return how an objective is learned."""
    return _LEARNED[objective.name]


_LEARNED: dict[str, Learned] = {
    each.objective.name: each
    for each in (Probability(), Regression(), WatchTime(), Pairwise(), Listwise(), TakenAndLiked())
}


def _log_loss(labels: Any, logits: Any) -> Any:
    return ops.binary_crossentropy(labels, logits, from_logits=True)


def _column(values: NDArray[Any]) -> Floats:
    return values.astype(np.float32)[:, None]


def _groups(split: Split) -> NDArray[np.intp]:
    """Return the group of each row, `[rows]`, numbered from 0."""
    return np.unique(split.target(GROUP_ID), return_inverse=True)[1]


def _drawn(split: Split) -> Floats:
    return split.target(DRAWN).astype(np.float32)


def _check_classes(split: Split, labels: NDArray[Any], meaning: str, remedy: str) -> None:
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        msg = (
            f"split {split.name}: expected rows of both classes, received {len(labels)} rows, {positives} of them "
            f"{meaning}; {remedy}"
        )
        raise DatasetError(msg)
