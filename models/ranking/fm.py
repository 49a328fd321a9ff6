"""A factorisation machine: weights, and an inner product for each pair of fields.

Rendle, Factorization Machines (ICDM 2010), section III.

    fields ─┬─ weights ──────────────────────┐
            └─ vectors ─ pairs' products ────┴─ sum ─ logit

Deviation: terms of a list are averaged to one field, and so are a number and its flag summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from models.layers.factorization_machine import FactorizationMachine, sums
from models.ranking.fields import FieldsModel, VectorsConfig

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class FMConfig(VectorsConfig):
    """The factorisation machine."""


class FM(FieldsModel[FMConfig]):
    """First and second order."""

    name: ClassVar[str] = "fm"
    paper: ClassVar[str] = "Rendle, Factorization Machines (ICDM 2010)"
    config_class: ClassVar[type[RankingConfig]] = FMConfig

    def logit(self, fields: Fields) -> Any:
        """Return the sum of both."""
        vectors = fields.vectors(self.config.embedding_size)
        return fields.linear() + FactorizationMachine(name="second_order")(*sums(vectors))
