"""A field-aware factorisation machine: a field has a vector of its own for each other field.

Juan et al., Field-aware Factorization Machines for CTR Prediction (RecSys 2016), section 3.

    fields ─┬─ weights ───────────────────────────────────────────┐
            └─ vector of i for j · vector of j for i, all pairs ──┴─ sum ─ logit

Deviations: weights of first order are added, which the paper leaves out; terms of a list are averaged to one field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from models.layers.field_aware_products import FieldAwareProducts
from models.ranking.fields import FieldsModel, VectorsConfig

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class FFMConfig(VectorsConfig):
    """The field-aware factorisation machine; its vectors are short, as there are many."""

    embedding_size: int = Field(default=4, ge=1, le=64)
    """Dimensions of every vector."""


class FFM(FieldsModel[FFMConfig]):
    """First order, and pairs by vectors that know the other field."""

    name: ClassVar[str] = "ffm"
    paper: ClassVar[str] = "Juan et al., Field-aware Factorization Machines for CTR Prediction (RecSys 2016)"
    config_class: ClassVar[type[RankingConfig]] = FFMConfig

    def logit(self, fields: Fields) -> Any:
        """Return the sum of both."""
        crossed = fields.crossed(self.config.embedding_size)
        return fields.linear() + FieldAwareProducts(name="second_order")(crossed)
