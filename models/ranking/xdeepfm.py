"""xDeepFM: a compressed interaction network beside a perceptron and weights.

Lian et al., xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems (KDD 2018),
section 3.

    fields ─┬─ weights ───────────────────────────────────────────────────┐
            ├─ vectors ─ compressed interactions, summed over dimensions ─┼─ sum ─ logit
            └─ vectors of terms, numbers ─ perceptron ────────────────────┘

Deviation: no activation between the interactions' layers (the paper finds the identity best), and all maps of a layer
go on to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops

from models.layers.compressed_interactions import CompressedInteractions
from models.ranking.base import Widths
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class XDeepFMConfig(DeepConfig):
    """The extreme deep factorisation machine."""

    maps: Widths = (16, 16)
    """Feature maps of each layer of interactions."""


class XDeepFM(FieldsModel[XDeepFMConfig]):
    """First order, explicit interactions of a bounded order, and a perceptron."""

    name: ClassVar[str] = "xdeepfm"
    paper: ClassVar[str] = (
        "Lian et al., xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems (KDD 2018)"
    )
    config_class: ClassVar[type[RankingConfig]] = XDeepFMConfig

    def logit(self, fields: Fields) -> Any:
        """Return the sum of the three."""
        vectors = maps = fields.vectors(self.config.embedding_size)
        pooled = []
        for layer, count in enumerate(self.config.maps):
            maps = CompressedInteractions(count, name=f"interactions_{layer}")(maps, vectors)
            pooled.append(ops.sum(maps, axis=-1))
        explicit = to_logit(ops.concatenate(pooled, axis=-1) if len(pooled) > 1 else pooled[0], "explicit")
        return fields.linear() + explicit + to_logit(perceptron(fields.flat(self.config.embedding_size), self.config))
