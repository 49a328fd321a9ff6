"""Inputs and outputs of the models, by which the exported graph, the model server and its callers are checked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Dtype, check_distinct
from feature_repo.contracts.datasets import ITEM_ID, USER_ID
from feature_repo.contracts.features import FeatureService, declared
from feature_repo.contracts.on_demand import REQUEST_TIME, OnDemandFeature, on_demand

if TYPE_CHECKING:
    from feature_repo.contracts.schemas import Schema


class Scope(StrEnum):
    """Whom an input describes, and so how often it is sent in a request for one user and many items."""

    USER = "user"
    """The user, or the request itself."""
    ITEM = "item"


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A raw column that enters the graph: `[batch]`, or `[batch, length]`."""

    column: Column
    scope: Scope


@dataclass(frozen=True, slots=True)
class Signature:
    """What a kind of model takes and returns.

    It is exported twice. `serving_default` has one row per (user, item): every input is `[batch, ...]`. `one_user` has
    user inputs of one row, `[1, ...]`, and item inputs of one row per candidate, `[num_candidates, ...]`; the graph
    repeats the user. Both return `score`, `[batch]` or `[num_candidates]`.
    """

    model: str
    feature_service: FeatureService
    inputs: tuple[ModelInput, ...]
    output: Column
    on_demand: tuple[OnDemandFeature, ...] = ()
    """What the graph computes of the inputs at request time."""

    def __post_init__(self) -> None:
        """Refuse two things of one name: the graph finds inputs and what it computes of them by their names."""
        inputs, computed = ((each.name for each in some) for some in (self.input_columns, self.on_demand))
        check_distinct(
            f"inputs, on-demand features and output of {self.model} models", (*inputs, *computed, self.output.name)
        )

    @property
    def input_columns(self) -> tuple[Column, ...]:
        """The raw columns in their declared order."""
        return tuple(item.column for item in self.inputs)

    def scoped(self, scope: Scope) -> tuple[Column, ...]:
        """The raw columns that describe the user, or the item."""
        return tuple(item.column for item in self.inputs if item.scope is scope)


ROWS_SIGNATURE = "serving_default"
ONE_USER_SIGNATURE = "one_user"


RANKING_MODEL = "ranking"
SCORE = Column("score", Dtype.FLOAT32, "Probability that the user would like the item")


def model_inputs(service: FeatureService) -> tuple[ModelInput, ...]:
    """Return all that a model of a feature service can take: the item's id, the request's time, and the features."""
    scopes = {USER_ID.name: Scope.USER, ITEM_ID.name: Scope.ITEM}
    features = tuple(
        ModelInput(column, scopes[group.entity.name]) for group in service.groups for column in group.features
    )
    return (ModelInput(ITEM_ID, Scope.ITEM), ModelInput(REQUEST_TIME, Scope.USER), *features)


@cache
def ranking(schema: Schema) -> Signature:
    """Return what the ranking models of a data set take and return."""
    service = declared(schema).ranking
    return Signature(RANKING_MODEL, service, model_inputs(service), SCORE, on_demand(schema))
