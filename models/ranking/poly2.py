"""A linear model of all products of two inputs.

Chang et al., Training and Testing Low-degree Polynomial Data Mappings via Linear SVM (JMLR 2010), section 2.

    fields ─┬─ weights ──────────────────────────────────────────┐
            ├─ number · (weight by number, by term and number) ──┼─ sum ─ logit
            └─ pairs of terms ─ hash ─ weight ───────────────────┘

Deviations: logistic loss for the hinge; a weight of two terms is found by their hash, so that memory is bounded.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from keras import ops
from pydantic import Field

from models.layers.hashed_crosses import HashedCrosses
from models.ranking.fields import FieldsConfig, FieldsModel

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class Poly2Config(FieldsConfig):
    """The polynomial of degree two."""

    buckets: int = Field(default=1 << 16, ge=2, le=1 << 28)
    """Weights that pairs of terms share."""


class Poly2(FieldsModel[Poly2Config]):
    """First order, and a weight for each pair."""

    name: ClassVar[str] = "poly2"
    paper: ClassVar[str] = (
        "Chang et al., Training and Testing Low-degree Polynomial Data Mappings via Linear SVM (JMLR 2010)"
    )
    config_class: ClassVar[type[RankingConfig]] = Poly2Config

    def logit(self, fields: Fields) -> Any:
        """Return the sum over inputs and pairs."""
        parts = [fields.linear()]
        if fields.numbers is not None:
            by_number = fields.linear(units=fields.numbers.shape[-1], name="by_number")
            parts.append(ops.sum(by_number * fields.numbers, axis=-1, keepdims=True))
        columns = list(fields.indices.values())
        if len(columns) > 1:
            pairs = list(combinations(range(len(columns)), 2))
            parts.append(HashedCrosses(pairs, self.config.buckets, self.config.l2, name="crosses")(columns))
        return ops.sum(ops.stack(parts), axis=0)
