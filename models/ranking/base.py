"""What every ranking model is: a name, a config, and the part of the graph that learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import keras
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from models.encoding import Encoded


class FitConfig(BaseModel):
    """How a model is fitted. Times and rates are per model, as their best values differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(default=1024, ge=1)
    """Rows per step."""
    epochs: int = Field(default=30, ge=1)
    """At most so many passes over the train rows."""
    patience: int = Field(default=3, ge=1)
    """Passes without a better validation log loss, after which fitting stops and the best weights come back."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam."""


class RankingConfig(BaseModel):
    """What every ranking model's config holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: FitConfig = FitConfig()
    on_demand: tuple[str, ...] = ()
    """Which of the features that exist at request time alone the model reads: names, or computations, which stand for
    all features computed so (`contracts.on_demand`)."""


Config = TypeVar("Config", bound=RankingConfig)


class RankingModel(ABC, Generic[Config]):
    """A model that scores (user, item) rows."""

    name: ClassVar[str]
    """As specs have it."""
    config_class: ClassVar[type[RankingConfig]]

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def build(self, encoded: Encoded, seed: int) -> Any:
        """Return the untrained keras.Model: encoded columns by name → logit `[batch, 1]`."""


def encoded_inputs(encoded: Encoded) -> dict[str, Any]:
    """Return a symbolic input for every encoded column."""
    return {
        name: keras.Input(shape=tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in encoded.model.output.items()
    }
