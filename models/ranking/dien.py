"""Deep Interest Evolution Network: how a user's interest in the likes of the candidate has grown.

Zhou et al., Deep Interest Evolution Network for Click-Through Rate Prediction (AAAI 2019), "Interest Extractor Layer"
and "Interest Evolving Layer".

    of the user alone, once per request:

    events, the earliest first ─ GRU ─ states [batch, length, size] ─┬─ loss of the next item (in training)
                                                                    ├─ projected for the attention
                                                                    └─ projected for the second GRU
    for each candidate:

    candidate · projected states ─ softmax ─ weights [batch, length] ─┐
    projected states ─────────────────────────────────────────────────┴─ AUGRU ─ last state [batch, size] ─┐
    fields, the candidate among them ─ flat [batch, width] ────────────────────────────────────────────────┴─┐
                                                                                      logit ─ perceptron ────┘

Deviations:
- The loss of the next item is the mean over pairs of item and negative, in the paper a sum over each history; so its
  weight means something else. A negative is an item of another row of the batch, at the same place from the latest,
  and no pair counts whose items are the same; the paper draws from all items. States and items meet in an inner
  product, as the paper has it; the authors' code has a perceptron there.
- All states have the embedding's size.
- The perceptron has ReLU and dropout, as in every model here; the authors' code has Dice.
- The history enters as its mean, too, as one of the fields; items are described by their id alone.
- The first GRU sees each item, and what the spec's features tell of the event (`History.told`): type, age, value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops
from pydantic import Field

from models.layers.attentional_gru import AttentionalGRU
from models.layers.masked_softmax import MaskedSoftmax
from models.layers.next_item_loss import NextItemLoss
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class DIENConfig(DeepConfig):
    """The deep interest evolution network."""

    next_item_weight: float = Field(default=1.0, ge=0, le=1_000)
    """Of the loss that teaches the first GRU's states to tell the next item."""


class DIEN(FieldsModel[DIENConfig]):
    """A GRU over the history, then one that goes as far as each state concerns the candidate, beside the fields."""

    name: ClassVar[str] = "dien"
    paper: ClassVar[str] = "Zhou et al., Deep Interest Evolution Network for Click-Through Rate Prediction (AAAI 2019)"
    inputs: ClassVar[tuple[str, ...]] = ("fields", "history")
    config_class: ClassVar[type[RankingConfig]] = DIENConfig

    def logit(self, fields: Fields) -> Any:
        """Return a perceptron's of the evolved interest and the fields."""
        config = self.config
        size = config.embedding_size
        history = fields.history(size)
        items, events, indices, known = (
            ops.flip(each, axis=1) for each in (history.items, history.events, history.indices, history.mask)
        )
        steps = keras.layers.Dense(3 * size, name="interest_inputs")(events)
        states = AttentionalGRU(size, return_sequences=True, name="interest")(steps, known)
        states = NextItemLoss(config.next_item_weight, fields.seed, name="next_item")(states, items, indices, known)
        keys = keras.layers.Dense(size, use_bias=False, name="attention")(states)
        steps = keras.layers.Dense(3 * size, name="evolution_inputs")(states)
        scores = ops.sum(keys * ops.expand_dims(history.candidate, 1), axis=-1)
        weights = MaskedSoftmax(name="attention_weights")(scores, known)
        interest = AttentionalGRU(size, name="evolution")(steps, weights)
        return to_logit(perceptron(ops.concatenate([fields.flat(size), interest], axis=-1), config))
