"""MaskNet: layers that see their input through masks, which the row's own vectors give.

Wang, She, Zhang, MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by Instance-Guided Mask
(DLP-KDD 2021), section 3.

    serial    row ─ layer norm ─ mask block ─ mask block ─ ... ─ logit
    parallel  row ─ layer norm ─┬─ mask block ─┬─ perceptron ─ logit
                                └─ mask block ─┘

Every block's mask is made of the row. Deviation: the row is normalised as a whole, numbers with vectors, not by field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import keras
from keras import ops
from pydantic import Field

from models.layers.mask_block import MaskBlock
from models.ranking.fields import DeepConfig, FieldsModel, perceptron, to_logit

if TYPE_CHECKING:
    from models.ranking.base import RankingConfig
    from models.ranking.fields import Fields


class MaskNetConfig(DeepConfig):
    """MaskNet."""

    structure: Literal["serial", "parallel"] = "parallel"
    """How the blocks stand."""
    blocks: int = Field(default=3, ge=1, le=16)
    """Mask blocks."""
    block_width: int = Field(default=32, ge=1, le=4096)
    """Of each block."""
    reduction: float = Field(default=1.0, gt=0, le=8)
    """Width of a mask's inner layer, in times the row's."""


class MaskNet(FieldsModel[MaskNetConfig]):
    """Blocks with masks, one after the other or side by side."""

    name: ClassVar[str] = "masknet"
    paper: ClassVar[str] = (
        "Wang, She, Zhang, MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by "
        "Instance-Guided Mask (DLP-KDD 2021)"
    )
    config_class: ClassVar[type[RankingConfig]] = MaskNetConfig

    def logit(self, fields: Fields) -> Any:
        """Return the logit of the structure that the config names."""
        config = self.config
        row = fields.flat(config.embedding_size)
        blocks = [MaskBlock(config.block_width, config.reduction, name=f"block_{n}") for n in range(config.blocks)]
        values = keras.layers.LayerNormalization(name="row_norm")(row)
        if config.structure == "serial":
            for block in blocks:
                values = block(values, row)
            return to_logit(values)
        found = [block(values, row) for block in blocks]
        return to_logit(perceptron(ops.concatenate(found, axis=-1) if len(found) > 1 else found[0], config))
