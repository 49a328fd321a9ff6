"""Fit a ranking model to a training set."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from models.dataset import TRAIN, VALID, Dataset, Split
from models.encoding import Encoded, build_encoder
from models.errors import DatasetError, NotFiniteError

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig, RankingModel

log = logging.getLogger(__name__)
_TOLD_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model and how it got there."""

    encoded: Encoded
    scorer: Any
    """keras.Model: encoded columns → logit `[batch, 1]`."""
    history: dict[str, list[float]]
    """Metric → its value after each epoch."""
    best_epoch: int
    """The epoch, counted from 0, whose weights were kept."""
    seconds: float


def fit(model: RankingModel[RankingConfig], dataset: Dataset, seed: int) -> Fitted:
    """Fit `model` on the train rows; the validation rows say when to stop. The same seed gives the same weights.

    Raises:
        DatasetError: train or validation rows are none, or all of one class.
        NotFiniteError: the loss, or a metric, became NaN or infinite.
    """
    for name in (TRAIN, VALID):
        _check_classes(dataset[name])
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    encoded = build_encoder(dataset.signature, dataset.transforms)
    scorer = model.build(encoded, seed)
    scorer.compile(
        optimizer=keras.optimizers.Adam(model.config.fit.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryCrossentropy(from_logits=True, name="log_loss"), _auc()],
    )
    train, valid = (
        (encoded.run(dataset[name].features, dataset.signature), dataset[name].labels.astype("float32")[:, None])
        for name in (TRAIN, VALID)
    )
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_log_loss", mode="min", patience=model.config.fit.patience, restore_best_weights=True
    )
    history = scorer.fit(
        *train,
        sample_weight=dataset[TRAIN].weights[:, None],
        validation_data=valid,
        batch_size=model.config.fit.batch_size,
        epochs=model.config.fit.epochs,
        callbacks=[stopping, keras.callbacks.TerminateOnNaN(), _Progress()],
        verbose=0,
    ).history
    _check_finite(model, history)
    seconds = time.monotonic() - started
    log.info("fitted %s: %d epochs, best %d, %.1f s", model.name, len(history["loss"]), stopping.best_epoch, seconds)
    return Fitted(encoded, scorer, history, int(stopping.best_epoch), seconds)


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Tells of long epochs while they last, and of each when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0
        self._began = self._told = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as Keras calls it
        self._epoch, self._began = epoch + 1, time.monotonic()
        self._told = self._began

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as Keras calls it
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY_S:
            self._told = now
            seconds, steps = now - self._began, self.params["steps"]
            log.info("epoch %d: %d of %d batches, %.0f s", self._epoch, batch + 1, steps, seconds)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        told = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        most, seconds = self.params["epochs"], time.monotonic() - self._began
        log.info("epoch %d of at most %d: %s, %.0f s", epoch + 1, most, told, seconds)


def _check_finite(model: RankingModel[RankingConfig], history: dict[str, list[float]]) -> None:
    for metric, values in history.items():
        for epoch, value in enumerate(values, start=1):
            if not np.isfinite(value):
                msg = (
                    f"model {model.name}: {metric} of epoch {epoch}: expected a number, received {value}; lower its "
                    f"config's fit.learning_rate ({model.config.fit.learning_rate:g}), or look for huge values in the "
                    "training set's inputs"
                )
                raise NotFiniteError(msg)


def _auc() -> Any:
    return keras.metrics.AUC(num_thresholds=500, from_logits=True, name="auc")


def _check_classes(split: Split) -> None:
    positives = int(split.labels.sum())
    if not 0 < positives < split.rows:
        msg = (
            f"split {split.name}: expected rows of both classes, received {split.rows} rows, {positives} of them "
            "positive; check KESTREL_LABEL_MIN_VALUE and the fractions of the training set"
        )
        raise DatasetError(msg)
