"""A multi-layer perceptron over numbers and pooled embeddings; without hidden layers it is a linear model.

Covington et al., Deep Neural Networks for YouTube Recommendations (RecSys 2016), section 4, has the form: embeddings of
terms, averaged over lists, beside numbers. Deviations: numbers enter once, bent as their columns say and not by powers;
fewer and smaller layers, as hundreds of questions are learned from and not millions; dropout and weight decay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops
from pydantic import Field

from feature_repo.contracts.on_demand import Computation
from models.errors import BuildError
from models.ranking.base import KerasModel, Widths, encoded_inputs
from models.ranking.fields import FieldsConfig, FieldsModel
from models.training.fit import Fitted
from models.training.keras_loop import FitConfig

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields
    from models.training.fit import FitContext


_APART = 1000
"""Between the seeds of two members, so that models of neighbouring seeds have no member in common."""


class MLPConfig(FieldsConfig):
    """The perceptron. Its batches are of some thirty questions, where a hundred candidates of each are learned from.

    The loss of a hundred validation questions rises and falls: a fit that stops at the first rise has learned little.
    """

    fit: FitConfig = FitConfig(batch_size=3200, learning_rate=1e-3, epochs=100, patience=10)
    embedding_size: int = Field(default=8, ge=0, le=256)
    """Dimensions of every embedding; 0 leaves out whatever is no number."""
    hidden: Widths = (64, 32)
    """Widths of the layers; none make a linear model."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """After each hidden layer."""
    l2: float = Field(default=1e-4, ge=0, le=1_000)
    """Weight decay on vectors, and on the layers' kernels."""
    members: int = Field(default=1, ge=1, le=20)
    """So many perceptrons are fitted, each from first weights of its own; the score is the mean of their logits."""
    linear_members: int = Field(default=0, ge=0, le=20)
    """So many linear models are fitted beside them, and enter the mean: their errors are others."""
    linear_learning_rate: float = Field(default=1e-2, gt=0, le=10)
    """Of the linear members: they can be fitted at a higher rate."""


class MLP(FieldsModel[MLPConfig]):
    """Embeddings, averaged over lists, beside the numbers, through dense layers."""

    name: ClassVar[str] = "mlp"
    paper: ClassVar[str] = "Covington et al., Deep Neural Networks for YouTube Recommendations (RecSys 2016)"
    config_class: ClassVar[type[RankingConfig]] = MLPConfig
    on_demand: ClassVar[tuple[str, ...]] = (Computation.ELAPSED.value, Computation.TERM_MATCH.value)

    def fit(self, context: FitContext) -> Fitted:
        """Fit every member by itself, and let one graph take their mean (Lakshminarayanan et al., NeurIPS 2017).

        Hundreds of questions leave much to the first weights: members differ, and their mean is better than each.
        """
        models = [self] * self.config.members + [self._linear()] * self.config.linear_members
        seeds = (context.seed + _APART * number for number in range(len(models)))
        fitted = [KerasModel.fit(model, replace(context, seed=seed)) for model, seed in zip(models, seeds, strict=True)]
        if len(fitted) == 1:
            return fitted[0]
        inputs = encoded_inputs(fitted[0].encoded)
        for number, member in enumerate(fitted, 1):
            member.scorer.name = f"{self.name}_{number}"
        logits = ops.mean(ops.stack([member.scorer(inputs) for member in fitted]), axis=0)
        numbered = [(f"_{number}" if number > 1 else "", member) for number, member in enumerate(fitted, 1)]
        return Fitted(
            fitted[0].encoded,
            keras.Model(inputs, logits, name=self.name),
            {f"{name}{suffix}": values for suffix, member in numbered for name, values in member.history.items()},
            {f"{name}{suffix}": value for suffix, member in numbered for name, value in member.params.items()},
            fitted[0].seen,
        )

    def _linear(self) -> MLP:
        """Return the same without hidden layers."""
        fit = self.config.fit.model_copy(update={"learning_rate": self.config.linear_learning_rate})
        return MLP(self.config.model_copy(update={"hidden": (), "fit": fit}))

    def logit(self, fields: Fields) -> Any:
        """Return the perceptron's.

        Raises:
            BuildError: The config leaves out all that there is.
        """
        # A number whose value is missing is 0, and the flag beside it says that there is none.
        hidden = fields.flat(self.config.embedding_size) if self.config.embedding_size else fields.numbers
        if hidden is None:
            msg = "expected numbers among the encoded columns, received none; set embedding_size above 0"
            raise BuildError(msg)
        for layer, width in enumerate(self.config.hidden):
            hidden = self._dense(width, f"deep_{layer}", activation="relu")(hidden)
            dropout = keras.layers.Dropout(self.config.dropout, seed=fields.seed + layer, name=f"deep_{layer}_dropout")
            hidden = dropout(hidden)
        return self._dense(1, "logit")(hidden)

    def _dense(self, width: int, name: str, activation: str | None = None) -> Any:
        regulariser = keras.regularizers.L2(self.config.l2)
        return keras.layers.Dense(width, activation=activation, kernel_regularizer=regulariser, name=name)
