"""Deep Interest Network: of a history, what concerns the candidate.

Zhou et al., Deep Interest Network for Click-Through Rate Prediction (KDD 2018), sections 4.3 and 5.2.

    items [batch, length, size] ──┬─ activation unit ─ weights [batch, length] ─┐
    candidate [batch, size] ──────┤                                             │
    type, age, value of each ─────┘                                             │
    items ──────────────────────────────────────────────── weighted sum ────────┴─ interest [batch, size] ─┐
    fields, the candidate among them ─ flat [batch, width] ────────────────────────────────────────────────┴─┐
                                                                            logit ─ perceptron with Dice ────┘

The weights are no softmax: an interest that fills the history gives a longer vector than one of its items does.

Deviations:
- The activation unit sees item, candidate, difference and product, as the authors' code does; the paper draws both and
  their outer product. It also sees what the spec's features tell of each event (`History.told`): what was disliked, or
  is long ago, weighs otherwise.
- The history enters as its mean, too, as one of the fields; in the paper by the weighted sum alone.
- Items are described by their id alone, and one behaviour, the last items, is read; in the paper also by shop and
  category.
- Weight decay is on whole tables; the paper's is on the rows that a batch has (section 5.1).
- Dropout stands behind each hidden layer, as in every model here. The output is one logit, not a softmax of two.
- Dice's moving averages forget faster than the authors' (momentum 0.9, not 0.99), as fits here have few batches.
- Padding does not count for Dice's mean and variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import keras
from keras import ops

from models.layers.dice import Dice
from models.layers.local_activation_unit import LocalActivationUnit
from models.ranking.base import Widths
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


_ACTIVATIONS = {"dice": Dice, "relu": keras.layers.ReLU}


class DINConfig(DeepConfig):
    """The deep interest network."""

    attention_hidden: Widths = (36,)
    """Widths of the hidden layers of the activation unit."""
    activation: Literal["dice", "relu"] = "dice"
    """Behind each hidden layer, of the activation unit and of the perceptron."""


class DIN(FieldsModel[DINConfig]):
    """The history, weighted by what the candidate has to do with each item, beside the fields."""

    name: ClassVar[str] = "din"
    paper: ClassVar[str] = "Zhou et al., Deep Interest Network for Click-Through Rate Prediction (KDD 2018)"
    inputs: ClassVar[tuple[str, ...]] = ("fields", "history")
    config_class: ClassVar[type[RankingConfig]] = DINConfig

    def logit(self, fields: Fields) -> Any:
        """Return a perceptron's of the interest and the fields."""
        config = self.config
        history = fields.history(config.embedding_size)
        unit = LocalActivationUnit(config.attention_hidden, config.activation, name="interest")
        interest = unit(history.items, history.candidate, history.mask, history.told)
        values = ops.concatenate([fields.flat(config.embedding_size), interest], axis=-1)
        return to_logit(perceptron(values, config, activation=_ACTIVATIONS[config.activation]))
