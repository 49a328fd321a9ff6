"""Behavior Sequence Transformer: history and candidate as one sequence that attends to itself.

Chen et al., Behavior Sequence Transformer for E-commerce Recommendation in Alibaba (DLP-KDD 2019), sections 2.1 to 2.3.

    items [batch, length, size] + positions, by age ───┐
    candidate [batch, size] + the position of now ─────┴─ blocks ─ the candidate's output [batch, size] ─┐
    fields, the candidate among them ─ flat [batch, width] ──────────────────────────────────────────────┴─┐
                                                                                    logit ─ perceptron ────┘
    a block:

    x ─┬─ queries, keys, values ─ attention ─ dense ─ dropout ─┐
       └───────────────────────────────────────────────────────┴─ + ─ LayerNorm ─ y
    y ─┬─ dense ─ LeakyReLU ─ dense ─ dropout ─────────────────┐
       └───────────────────────────────────────────────────────┴─ + ─ LayerNorm

Of the last block the candidate's output alone is read, as in section 2.3, so that it alone is computed there: with one
block, as the paper has it, the user's items are projected to keys and values once per request, and each candidate asks
one question of them.

Deviations:
- A position is the age of an event, as in the paper, by buckets; the candidate's is that of now. Where no times are
  known, positions are ranks: 0 the candidate, 1 the latest item, and so on, not counting padding. They are learned
  vectors that are added; in the paper they stand beside the item's.
- What the spec's features tell of an event beside its age (`History.told`: type, value) is projected and added, too.
- A history without items gives zeros; the paper's candidate attends to itself there.
- LeakyReLU's slope is the config's; the paper gives none.
- The size of the heads is the config's; in the paper it is the embedding's over the number of heads.
- The perceptron has ReLU and dropout, as in every model here; the paper's has LeakyReLU.
- The history enters as its mean, too, as one of the fields; items are described by their id alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops
from pydantic import Field

from models.layers.masked_attention import MaskedAttention
from models.layers.sequence_ages import AGE_COUNT, NOW_INDEX
from models.layers.term_embedding import TermEmbedding
from models.ranking.fields import FieldsModel, perceptron, to_logit
from models.ranking.transformer import TransformerConfig, behind_attention, projections

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class BSTConfig(TransformerConfig):
    """The behavior sequence transformer."""

    blocks: int = Field(default=1, ge=1, le=8)
    """Of self-attention, one after the other."""


class BST(FieldsModel[BSTConfig]):
    """The candidate's place in a transformer's last block, beside the fields."""

    name: ClassVar[str] = "bst"
    paper: ClassVar[str] = (
        "Chen et al., Behavior Sequence Transformer for E-commerce Recommendation in Alibaba (DLP-KDD 2019)"
    )
    inputs: ClassVar[tuple[str, ...]] = ("fields", "history")
    config_class: ClassVar[type[RankingConfig]] = BSTConfig

    def logit(self, fields: Fields) -> Any:
        """Return a perceptron's of the candidate's output and the fields."""
        config = self.config
        size = config.embedding_size
        history = fields.history(size, told_ages=False)
        items = history.items
        if history.told is not None:
            items = items + keras.layers.Dense(size, use_bias=False, name="told")(history.told)
        places, now, count = history.ages, NOW_INDEX, AGE_COUNT
        if places is None:
            places, now, count = ops.cast(ops.cumsum(history.mask, axis=1), "int32"), 0, history.mask.shape[1] + 1
        position = TermEmbedding(count, size, name="position")
        items = items + position(places)
        candidate = ops.expand_dims(history.candidate + position(ops.full_like(places[:, 0], now)), 1)
        first = ops.ones_like(history.mask[:, :1])
        known = ops.concatenate([first, history.mask], axis=1)
        for number in range(config.blocks):
            items, candidate = self._block(number, items, candidate, known, last=number == config.blocks - 1)
        interest = candidate[:, 0] * ops.max(history.mask, axis=1, keepdims=True)
        return to_logit(perceptron(ops.concatenate([fields.flat(size), interest], axis=-1), config))

    def _block(self, number: int, items: Any, candidate: Any, known: Any, *, last: bool) -> tuple[Any, Any]:
        """Return a block's outputs, of items `[batch, length, size]` and of the candidate `[batch, 1, size]`.

        Both are one sequence, with the candidate first; apart, so that the items' projections need no candidate. Of
        the last block the items' outputs are not computed.
        """
        config, name = self.config, f"block_{number}"
        queries, keys, values = projections(config, name)
        all_keys = ops.concatenate([keys(candidate), keys(items)], axis=1)
        all_values = ops.concatenate([values(candidate), values(items)], axis=1)
        attention = MaskedAttention(config.heads, name=f"{name}_attention")
        behind = behind_attention(config, name)
        of_candidate, *of_items = (
            behind(each, attention(queries(each), all_keys, all_values, known))
            for each in ([candidate] if last else [candidate, items])
        )
        return (of_items[0] if of_items else items), of_candidate
