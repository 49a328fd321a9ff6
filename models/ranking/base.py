"""What every ranking model is: a name, a config, and a way to be fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

import keras
import tensorflow as tf
from keras import ops
from pydantic import BaseModel, ConfigDict, Field, field_validator

from feature_repo.contracts.objectives import OBJECTIVES
from feature_repo.contracts.on_demand import check_on_demand
from models.encoding import Encoded, build_encoder
from models.errors import BuildError
from models.training.keras_loop import FitConfig, fit_by_keras

if TYPE_CHECKING:
    from models.training.fit import FitContext, Fitted

Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=8_192)], ...], Field(max_length=16)]
"""Of layers, one after the other."""


class RankingConfig(BaseModel):
    """What every ranking model's config holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    on_demand: tuple[str, ...] | None = None
    """Which of the features that exist at request time alone the model reads: names, or computations, which stand for
    all features computed so (`contracts.on_demand`). None, null in a spec, are those that the class names, as far as
    the spec's feature set has what they are computed from."""

    @field_validator("on_demand")
    @classmethod
    def _some_schema_has_them(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        check_on_demand(names or ())
        return names


class KerasConfig(RankingConfig):
    """What the config of a model that Keras's loop fits holds."""

    fit: FitConfig = FitConfig()


Config = TypeVar("Config", bound=RankingConfig)
LoopConfig = TypeVar("LoopConfig", bound=KerasConfig)


class RankingModel(ABC, Generic[Config]):
    """A model that scores (user, item) rows, and fits itself as it likes: see KerasModel for how most do."""

    name: ClassVar[str]
    """As specs have it."""
    paper: ClassVar[str]
    """Where it was published: authors, title (venue and year)."""
    inputs: ClassVar[tuple[str, ...]] = ("fields",)
    """What it needs of the encoded columns: any `fields`, some of the `user` or the `item`, a `history` of items,
    the `sessions` of its events."""
    objectives: ClassVar[tuple[str, ...]] = tuple(OBJECTIVES)
    """What it can learn."""
    config_class: ClassVar[type[RankingConfig]]
    on_demand: ClassVar[tuple[str, ...]] = ()
    """What it reads of the request where its config does not say."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def read_on_demand(self, encoded: Encoded) -> tuple[str, ...]:
        """Return the on-demand features, and computations, that the model reads of what there is."""
        if self.config.on_demand is not None:
            return self.config.on_demand
        there = {*encoded.on_demand, *encoded.on_demand.values()}
        return tuple(name for name in self.on_demand if name in there)

    def reading(self, encoded: Encoded) -> Encoded:
        """Return what the model reads of the encoded columns.

        Raises:
            UnknownFeatureError: The config names an on-demand feature that these columns do not give.
        """
        return encoded.reading(self.read_on_demand(encoded))

    @abstractmethod
    def fit(self, context: FitContext) -> Fitted:
        """Return the fitted model; the same context gives the same weights."""


class KerasModel(RankingModel[LoopConfig]):
    """A model that says what its graph is, and leaves the rest to Keras's loop."""

    @abstractmethod
    def build(self, encoded: Encoded, seed: int) -> Any:
        """Return the untrained keras.Model: encoded columns by name → logit `[batch, 1]`."""

    def optimizer(self) -> Any:
        """Return what takes the steps of the fit; the loop's own where it is None."""
        return None

    def build_heads(self, encoded: Encoded, seed: int, heads: tuple[str, ...]) -> Any:
        """Return the untrained keras.Model of an objective with several heads: → logits `[batch, heads]`.

        A graph of its own for each; a model whose heads share a part says so here.
        """
        inputs = encoded_inputs(encoded)
        graphs = [self.build(encoded, seed + number) for number in range(len(heads))]
        for graph, head in zip(graphs, heads, strict=True):
            graph.name = f"{self.name}_{head}"
        return keras.Model(inputs, ops.concatenate([graph(inputs) for graph in graphs], axis=-1), name=self.name)

    def graph(self, encoded: Encoded, context: FitContext) -> Any:
        """Return the untrained keras.Model of the context's objective.

        Raises:
            BuildError: The config gives none; the message has what Keras says.
        """
        heads = context.signature.objective.heads
        try:
            return self.build_heads(encoded, context.seed, heads) if heads else self.build(encoded, context.seed)
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError, tf.errors.OpError) as error:
            msg = (
                f"model {self.name}: expected a config that gives a graph, received {self.config.model_dump_json()}, "
                f"of which Keras says: {' '.join(str(error).split()):.400}; change the config"
            )
            raise BuildError(msg) from error

    def fit(self, context: FitContext) -> Fitted:
        """Fit the graph; the validation rows say when to stop."""
        encoded = build_encoder(context.signature, context.transforms)
        return fit_by_keras(self.graph(encoded, context), encoded, context, self.config.fit, self.optimizer())


def encoded_inputs(encoded: Encoded) -> dict[str, Any]:
    """Return a symbolic input for every encoded column."""
    return {
        name: keras.Input(shape=tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in encoded.model.output.items()
    }
