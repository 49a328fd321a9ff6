"""Fit a ranking model to a training set: what its `fit` may read, and what it returns."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import keras
import tensorflow as tf

from models.dataset import TRAIN, VALID, Split
from models.objectives import learned
from models.training.calibration import calibrated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from feature_repo.contracts.signatures import Signature
    from models.encoding import Encoded
    from models.ranking.base import RankingConfig, RankingModel
    from models.transforms import Transforms

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitContext:
    """What a fit may read. Test rows are not in it."""

    signature: Signature
    """The raw columns that the model takes, and the objective: how it is learned stands in `models.objectives`."""
    transforms: Transforms
    """What the encodings have fitted on the train rows."""
    train: Split
    valid: Split
    """Rows after the train rows, to choose by: when to stop, or how much to regularise."""
    seed: int
    """Of whatever is drawn; those of Keras, NumPy and Python are set to it before."""
    tell: Callable[[str], None] = log.info
    """Takes a line of progress; a long fit calls it every 20 seconds or so."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model: what is exported, and what its run says of the fit."""

    encoded: Encoded
    """The encoder."""
    scorer: Any
    """keras.Model: encoded columns → logits `[batch, heads]`. Whatever was fitted is a weight of it, trainable or
    not, as two fits are told apart by `weights_sha256`."""
    history: Mapping[str, list[float]] = field(default_factory=dict)
    """Metric → its value after each epoch, or whatever else the fit repeats; none where it repeats nothing."""
    params: Mapping[str, object] = field(default_factory=dict)
    """What else the run shows of the fit, by name."""
    seen: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Encoded column of indices → how often the train rows have each, `[indices]`; none where the fit reads no such."""


class Fittable(Protocol):
    """Rows to fit to: a training set in memory, or a split that others have given."""

    @property
    def signature(self) -> Signature:
        """The raw columns, and the objective."""

    @property
    def transforms(self) -> Transforms:
        """What the encodings have fitted on the train rows."""

    def __getitem__(self, name: str) -> Split:
        """Return the split of a name, of which TRAIN and VALID are read."""


def fit(model: RankingModel[RankingConfig], dataset: Fittable, seed: int) -> Fitted:
    """Let `model` fit itself to the train and validation rows; probabilities are calibrated on the latter.

    The same seed gives the same weights.

    Raises:
        DatasetError: train or validation rows are none, or there is nothing to learn from them.
        NotFiniteError: the loss, or a metric, became NaN or infinite.
    """
    for name in (TRAIN, VALID):
        learned(dataset.signature.objective).check(dataset[name])
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    context = FitContext(dataset.signature, dataset.transforms, dataset[TRAIN], dataset[VALID], seed)
    return calibrated(model.fit(context), context)
