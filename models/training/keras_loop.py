"""Keras's loop: Adam over the train rows until the validation rows say to stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.contracts.datasets import GROUP_ID
from models.errors import NotFiniteError
from models.evaluation.metrics import auc
from models.objectives import learned
from models.training.batches import GroupBatches
from models.training.fit import FitContext, Fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from models.encoding import Encoded
    from models.inputs import Columns
    from models.objectives import Learned

_TOLD_EVERY_S = 20.0
_SCORED_AT_ONCE = 8192


class FitConfig(BaseModel):
    """How Keras's loop fits. Times and rates are per model, as their best values differ."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    batch_size: int = Field(default=1024, ge=1, le=1 << 20)
    """Rows per step; where rows are compared within their group, about so many, as groups stay whole."""
    epochs: int = Field(default=30, ge=1, le=10_000)
    """At most so many passes over the train rows."""
    patience: int = Field(default=3, ge=1, le=10_000)
    """Passes that are no better by the validation rows; then fitting stops, and the best weights come back."""
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    """Of Adam."""
    epsilon: float = Field(default=1e-7, gt=0, le=1)
    """Of Adam: gradients much smaller than it move nothing."""
    clip_norm: float = Field(default=0.0, ge=0, le=1e6)
    """Gradients are shortened to this norm, all together; 0 leaves them."""
    plateau_factor: float = Field(default=1.0, gt=0, le=1)
    """The learning rate is multiplied by it after each pass that was no better; 1 leaves it."""
    stop_by: Literal["loss", "auc"] = "loss"
    """What of the validation rows says which pass is better; `auc` where the objective has one."""

    def adam(self) -> Any:
        """Return the optimiser of a model that brings none."""
        return keras.optimizers.Adam(self.learning_rate, epsilon=self.epsilon, global_clipnorm=self.clip_norm or None)


def fit_by_keras(
    scorer: Any, encoded: Encoded, context: FitContext, config: FitConfig, optimizer: Any = None
) -> Fitted:
    """Fit a keras.Model (encoded columns → logits `[batch, heads]`), whose weights may be those of an earlier stage.

    The optimiser is Adam where none is given.

    Raises:
        NotFiniteError: the loss, or a metric, became NaN or infinite.
    """
    objective = learned(context.signature.objective)
    watched = keras.metrics.MeanMetricWrapper(objective.loss, name=objective.loss_name)
    scorer.compile(
        optimizer=optimizer or config.adam(),
        loss=_Loss(objective),
        weighted_metrics=[watched, *objective.metrics()],
    )
    train, valid = (
        (encoded.run(split.features, context.signature), objective.targets(split), objective.weights(split))
        for split in (context.train, context.valid)
    )
    watching = {"monitor": f"val_{objective.loss_name}", "mode": "min"}
    exact = []
    if config.stop_by == "auc" and any(metric.name == "auc" for metric in objective.metrics()):
        watching, exact = {"monitor": "val_auc", "mode": "max"}, [_ExactAuc(valid[0], context.valid.labels)]
    stopping = keras.callbacks.EarlyStopping(**watching, patience=config.patience, restore_best_weights=True)
    slowing = (
        [keras.callbacks.ReduceLROnPlateau(**watching, factor=config.plateau_factor, patience=1, min_delta=0.0)]
        if config.plateau_factor < 1
        else []
    )
    given: dict[str, Any] = {"x": train[0], "y": train[1], "sample_weight": train[2], "validation_data": valid}
    if context.signature.objective.grouped:
        own, others = (split.target(GROUP_ID) for split in (context.train, context.valid))
        given = {
            "x": GroupBatches(*train, own, config.batch_size, context.seed),
            "validation_data": GroupBatches(*valid, others, config.batch_size, context.seed),
        }
    history = scorer.fit(
        **given,
        batch_size=None if context.signature.objective.grouped else config.batch_size,
        epochs=config.epochs,
        callbacks=[*exact, stopping, *slowing, keras.callbacks.TerminateOnNaN(), _Progress(context.tell)],
        verbose=0,
    ).history
    _check_finite(scorer.name, history, config)
    return Fitted(encoded, scorer, history, {"best_epoch": int(stopping.best_epoch) + 1}, _seen(train[0], encoded))


def _seen(train: Columns, encoded: Encoded) -> dict[str, NDArray[np.int64]]:
    sizes = encoded.vocabulary_sizes
    return {
        column: np.bincount(train[column].ravel(), minlength=sizes[vocabulary])
        for column, vocabulary in encoded.categorical.items()
    }


class _Loss(keras.losses.Loss):  # type: ignore[misc]  # keras has no types
    """An objective's loss, as Keras weighs and averages it over a batch."""

    def __init__(self, objective: Learned) -> None:
        super().__init__(name=objective.loss_name)
        self._objective = objective

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._objective.loss(y_true, y_pred)


class _ExactAuc(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Puts the validation rows' AUC in the place of Keras's.

    That one counts by thresholds. It loses the order of rows that a model is sure of, so that it falls where a model
    only grows surer.
    """

    def __init__(self, columns: Columns, labels: NDArray[np.int64]) -> None:
        super().__init__()
        self._columns, self._labels = columns, labels

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002 - as Keras calls it
        logits = self.model.predict(self._columns, batch_size=_SCORED_AT_ONCE, verbose=0)
        if np.isfinite(logits).all():  # else the loss says so
            logs["val_auc"] = auc(self._labels, np.asarray(logits).reshape(-1))


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Tells of long epochs while they last, and of each when it ends."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
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
            self._tell(f"epoch {self._epoch}: {batch + 1} of {steps} batches, {seconds:.0f} s")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        told = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        most, seconds = self.params["epochs"], time.monotonic() - self._began
        self._tell(f"epoch {epoch + 1} of at most {most}: {told}, {seconds:.0f} s")


def _check_finite(name: str, history: Mapping[str, list[float]], config: FitConfig) -> None:
    for metric, values in history.items():
        for epoch, value in enumerate(values, start=1):
            if not np.isfinite(value):
                msg = (
                    f"model {name}: {metric} of epoch {epoch}: expected a number, received {value}; lower its "
                    f"config's fit.learning_rate ({config.learning_rate:g}), or look for huge values in the training "
                    "set's inputs"
                )
                raise NotFiniteError(msg)
