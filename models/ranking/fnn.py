"""A perceptron whose vectors and weights begin as those of a factorisation machine, which is fitted first.

Zhang, Du, Wang, Deep Learning over Multi-field Categorical Data: A Case Study on User Response Prediction (ECIR 2016),
section 3.1, "FNN".

    first:  fields ─┬─ weights w_i ────────────────┐
                    └─ vectors v_i ─ inner products ┴─ sum ─ logit              (models.ranking.fm)
                          │ copied
    then:   fields ─ (w_i, v_i) [batch, fields, 1 + size] ─ side by side ─ layers ─ logit [batch, 1]

Both are learned with the spec's objective, each until the validation rows say to stop.

Deviations:
- ReLU in place of tanh.
- The layers above the fields begin at random.
- The FM's constant w_0 is no input: it is one for all rows, and the first layer has a bias.
- A field may be a list of terms, which are averaged, or a number and the flag beside it, which are summed.
- Adam; terms taken for unknown; weight decay on vectors and on the weights of terms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops

from models.encoding import build_encoder
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit
from models.ranking.fm import FM, FMConfig
from models.training.keras_loop import FitConfig, fit_by_keras

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields
    from models.training.fit import FitContext, Fitted

_NUMBERS_WEIGHT = "numbers_weight"
"""The perceptron's layer of all numbers' weights."""


class FNNConfig(DeepConfig):
    """The perceptron after the factorisation machine."""

    first: FitConfig = FitConfig()
    """How the factorisation machine is fitted; `fit` is for the perceptron."""


class FNN(FieldsModel[FNNConfig]):
    """Each field's weight and vector, through dense layers."""

    name: ClassVar[str] = "fnn"
    paper: ClassVar[str] = (
        "Zhang, Du, Wang, Deep Learning over Multi-field Categorical Data: A Case Study on User "
        "Response Prediction (ECIR 2016)"
    )
    config_class: ClassVar[type[RankingConfig]] = FNNConfig

    def fit(self, context: FitContext) -> Fitted:
        """Fit the factorisation machine, then the perceptron that begins with what it has learned."""
        encoded = build_encoder(context.signature, context.transforms)
        config, heads = self.config, context.signature.objective.heads
        machine = FM(
            FMConfig(
                on_demand=self.read_on_demand(encoded),
                fit=config.first,
                embedding_size=config.embedding_size,
                l2=config.l2,
                unknown_rate=config.unknown_rate,
            )
        )
        first, second = (model.graph(encoded, context) for model in (machine, self))
        before = fit_by_keras(first, encoded, context, config.first)
        context.tell("the factorisation machine is fitted")
        for head in heads:
            copy_fields(first.get_layer(f"{machine.name}_{head}"), second.get_layer(f"{self.name}_{head}"))
        if not heads:
            copy_fields(first, second)
        fitted = fit_by_keras(second, encoded, context, config.fit)
        history = {f"{machine.name}_{name}": values for name, values in before.history.items()} | dict(fitted.history)
        params = {f"{name}_{machine.name}": value for name, value in before.params.items()} | dict(fitted.params)
        return replace(fitted, history=history, params=params)

    def logit(self, fields: Fields) -> Any:
        """Return what the layers say of weights and vectors."""
        vectors = fields.vectors(self.config.embedding_size)
        values = ops.concatenate([fields.weights(), vectors], axis=-1)
        width = len(fields.names) * (1 + self.config.embedding_size)
        return to_logit(perceptron(ops.reshape(values, (-1, width)), self.config))


def copy_fields(machine: Any, perceptron: Any) -> None:
    """Give the weights and vectors of a factorisation machine's graph to a perceptron's."""
    learned = {layer.name: layer.get_weights() for layer in machine.layers if layer.weights}
    if "weight" in learned:  # of numbers, with the constant
        learned[_NUMBERS_WEIGHT] = learned["weight"][:1]
    for layer in perceptron.layers:
        if layer.weights and layer.name in learned:
            layer.set_weights(learned[layer.name])
