"""FinalMLP: two perceptrons, each behind a gate of its own, and a bilinear fusion of both.

Mao et al., FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction (AAAI 2023), section 3.

    user's fields ─ gate 1 ─┐
    all fields ──┬──────────┴─ product ─ perceptron 1 ─┐
                 └──────────┬─ product ─ perceptron 2 ─┴─ bilinear fusion ─ logit
    item's fields ─ gate 2 ─┘

A gate whose side has no field learns one vector for all rows instead.

Deviation: numbers are gated one by one, as the dimensions of vectors are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
from pydantic import Field

from feature_repo.contracts.signatures import Scope
from models.layers.bilinear_fusion import BilinearFusion
from models.layers.learned_vector import LearnedVector
from models.ranking.base import Widths
from models.ranking.fields import DeepConfig, FieldsModel, perceptron

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class FinalMLPConfig(DeepConfig):
    """FinalMLP."""

    hidden: Widths = Field(default=(64, 32), min_length=1)
    """Widths of the first perceptron's layers."""
    second: Widths = Field(default=(64,), min_length=1)
    """Widths of the second perceptron's layers."""
    gate: Widths = (32,)
    """Widths of each gate's layers."""
    gates: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """Columns of the user that the first gate reads, and of the item that the second does, where they are there; else
    all of the user's, and all of the item's."""
    gate_dropout: float = Field(default=0.2, ge=0, lt=1)
    """After each of them."""
    heads: int = Field(default=4, ge=1, le=64)
    """Of the fusion; they divide the last width of both perceptrons."""


class FinalMLP(FieldsModel[FinalMLPConfig]):
    """Two streams that see the fields by different gates."""

    name: ClassVar[str] = "finalmlp"
    paper: ClassVar[str] = "Mao et al., FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction (AAAI 2023)"
    config_class: ClassVar[type[RankingConfig]] = FinalMLPConfig

    def logit(self, fields: Fields) -> Any:
        """Return the fusion of both streams."""
        config, size = self.config, self.config.embedding_size
        gating = config.model_copy(update={"dropout": config.gate_dropout, "batch_norm": False})
        values = fields.flat(size)
        streams = []
        for number, (scope, widths) in enumerate(((Scope.USER, config.hidden), (Scope.ITEM, config.second))):
            context = (
                fields.of(scope, size, f"gate_{number}_embedding", only=config.gates[number])
                if fields.has(scope)
                else LearnedVector(size, name=f"gate_{number}_vector")(values)
            )
            hidden = perceptron(context, gating, f"gate_{number}", config.gate)
            gate = 2 * keras.layers.Dense(values.shape[-1], activation="sigmoid", name=f"gate_{number}_out")(hidden)
            streams.append(perceptron(gate * values, config, f"stream_{number}", widths))
        return BilinearFusion(config.heads, name="fusion")(*streams)
