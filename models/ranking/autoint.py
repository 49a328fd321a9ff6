"""AutoInt: fields look at one another by self-attention.

Song et al., AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks (CIKM 2019), section 4.

    vectors ─ attention ─ ... ─ attention ─ one after the other ─┐
    vectors of terms, numbers ─ perceptron, where there is one ──┴─ logit

Deviation: the perceptron, which the paper adds for AutoInt+, is left out where `hidden` is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops
from pydantic import Field

from models.layers.field_attention import FieldAttention
from models.ranking.base import Widths
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class AutoIntConfig(DeepConfig):
    """AutoInt."""

    hidden: Widths = ()
    """Widths of the perceptron's layers; none leave it out."""
    layers: int = Field(default=2, ge=1, le=16)
    """Of attention, one after the other."""
    heads: int = Field(default=2, ge=1, le=16)
    """Of each layer."""
    head_size: int = Field(default=8, ge=1, le=256)
    """Dimensions of each head."""
    scaled: bool = False
    """Whether attention is of scaled products."""
    layer_norm: bool = False
    """Whether each layer's vectors are normalised."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the attention, and of what it finds."""


class AutoInt(FieldsModel[AutoIntConfig]):
    """Attention between fields."""

    name: ClassVar[str] = "autoint"
    paper: ClassVar[str] = (
        "Song et al., AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks (CIKM 2019)"
    )
    config_class: ClassVar[type[RankingConfig]] = AutoIntConfig

    def logit(self, fields: Fields) -> Any:
        """Return the logit of what attention finds, and of the perceptron; BuildError where there is one field."""
        fields.check_pairs()
        config = self.config
        vectors = fields.vectors(config.embedding_size)
        for layer in range(config.layers):
            vectors = FieldAttention(
                config.heads,
                config.head_size,
                scaled=config.scaled,
                normalised=config.layer_norm,
                dropout=config.attention_dropout,
                name=f"attention_{layer}",
            )(vectors)
        logit = to_logit(ops.reshape(vectors, (-1, vectors.shape[1] * vectors.shape[2])))
        if not config.hidden:
            return logit
        return logit + to_logit(perceptron(fields.flat(config.embedding_size), config), "deep")
