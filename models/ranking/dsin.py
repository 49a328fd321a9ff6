"""Deep Session Interest Network: a user wants one thing in a session, and another in the next.

Feng et al., Deep Session Interest Network for Click-Through Rate Prediction (IJCAI 2019).

    of the user alone, once per request:

    events [batch, length, size] ─ divided ─ [batch, sessions, events, size] ─ + biases of session, place, dimension
       ─ self-attention within each session ─ mean ─ interests I [batch, sessions, size] ─ Bi-LSTM ─ H [.., 2 * size]

    for each candidate:

    candidate · I W ─ softmax ─ weighted sum of I [batch, size] ──────────┐
    candidate · H W ─ softmax ─ weighted sum of H [batch, 2 * size] ──────┤
    fields, the candidate among them ─ flat [batch, width] ───────────────┴─ perceptron ─ logit

Sessions are those of the feature `user_sequence_sessions`: each ends with a pause of more than 30 minutes, as in the
paper.

Deviations:
- Sessions, and events in them, are counted from the latest; the earliest are left out where there are too many. The
  Bi-LSTM reads sessions in both directions anyway; its two outputs stand side by side.
- Each head projects the whole of an event (Vaswani et al., Attention Is All You Need, NIPS 2017), in the paper its own
  part of it. The size of the heads is the config's. The hidden layer of the feed-forward part has LeakyReLU.
- What the spec's features tell of an event (`History.told`: type, age, value) is projected and added to the item's
  vector.
- The perceptron has ReLU and dropout, as in every model here.
- The history enters as its mean, too, as one of the fields; items are described by their id alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops
from pydantic import Field

from models.errors import BuildError
from models.layers.bias_encoding import BiasEncoding
from models.layers.masked_attention import MaskedAttention
from models.layers.masked_softmax import MaskedSoftmax
from models.layers.session_division import SessionDivision
from models.ranking.fields import FieldsModel, perceptron, to_logit
from models.ranking.transformer import TransformerConfig, behind_attention, projections
from models.sequences import LONGEST

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields, History


class DSINConfig(TransformerConfig):
    """The deep session interest network."""

    sessions: int = Field(default=5, ge=1, le=50)
    """At most so many, the latest."""
    session_events: int = Field(default=10, ge=1, le=50)
    """At most so many of each, the latest."""


class DSIN(FieldsModel[DSINConfig]):
    """What was wanted in each session, as far as it concerns the candidate, beside the fields."""

    name: ClassVar[str] = "dsin"
    paper: ClassVar[str] = "Feng et al., Deep Session Interest Network for Click-Through Rate Prediction (IJCAI 2019)"
    inputs: ClassVar[tuple[str, ...]] = ("fields", "history", "sessions")
    config_class: ClassVar[type[RankingConfig]] = DSINConfig

    def logit(self, fields: Fields) -> Any:
        """Return a perceptron's of both interests and the fields.

        Raises:
            BuildError: The spec's features do not say in which session an event was.
        """
        config = self.config
        history = fields.history(config.embedding_size)
        if history.sessions is None:
            msg = f"expected {LONGEST.sessions}, received {sorted(fields.inputs)}; give the spec user_sequence"
            raise BuildError(msg)
        interests, there = self._interests(history)
        # Not unrolled, short as it is: Keras 3.15 then masks the backward part wrongly.
        evolving = keras.layers.Bidirectional(
            # A name of its own, as the weights' hash has it: Keras would number it by how many there have been.
            keras.layers.LSTM(config.embedding_size, return_sequences=True, name="lstm"),
            name="evolution",
        )
        evolved = evolving(interests, mask=ops.cast(there, "bool"))
        interest = self._activated("interest", interests, history.candidate, there)
        evolved_interest = self._activated("evolved", evolved, history.candidate, there)
        values = [fields.flat(config.embedding_size), interest, evolved_interest]
        return to_logit(perceptron(ops.concatenate(values, axis=-1), config))

    def _interests(self, history: History) -> tuple[Any, Any]:
        """Return each session's interest `[batch, sessions, size]`, and `[batch, sessions]`: 1 where there is one."""
        config = self.config
        events = history.items
        if history.told is not None:
            events = events + keras.layers.Dense(config.embedding_size, use_bias=False, name="told")(history.told)
        division = SessionDivision(config.sessions, config.session_events, name="sessions")
        divided, known = division(events, history.sessions, history.mask)
        biased = BiasEncoding(name="bias_encoding")(divided)
        queries, keys, values = projections(config, "session")
        attention = MaskedAttention(config.heads, name="session_attention")
        found = attention(queries(biased), keys(biased), values(biased), known)
        outputs = behind_attention(config, "session")(biased, found) * ops.expand_dims(known, -1)
        count = ops.sum(known, axis=-1, keepdims=True)
        return ops.sum(outputs, axis=2) / ops.maximum(count, 1.0), ops.minimum(count[..., 0], 1.0)

    def _activated(self, name: str, interests: Any, candidate: Any, there: Any) -> Any:
        """Return the sum of the interests, each as far as it concerns the candidate: `[batch, size]`."""
        keys = keras.layers.Dense(candidate.shape[-1], use_bias=False, name=f"{name}_keys")(interests)
        scores = ops.sum(keys * ops.expand_dims(candidate, 1), axis=-1)
        weights = MaskedSoftmax(name=f"{name}_weights")(scores, there)
        return ops.sum(ops.expand_dims(weights, -1) * interests, axis=1)
