"""What models learn, and what their scores mean. How each is learned is the model plane's (`models.objectives`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.publishing import CorruptRecordError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Metric(StrEnum):
    """What decides: on validation rows who wins, in the gates who is good enough."""

    AUC = "auc"
    """Share of pairs of a positive and another row that are in the right order."""
    GAUC = "gauc"
    """The same among each user's rows, averaged over users."""
    LOG_LOSS = "log_loss"
    """Less is better; of probabilities alone."""
    RMSE = "rmse"
    """Root of the mean squared error, in the unit of the values. Less is better; of predicted values alone."""
    NDCG = "ndcg_at_10"
    """Of the lists that users would be shown, which the serving plane makes and measures: no row has it, every model
    has."""

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return -1.0 if self in {Metric.LOG_LOSS, Metric.RMSE} else 1.0


ORDERS = (Metric.AUC, Metric.GAUC)
"""Metrics of any score that puts all rows in an order."""
WITHIN_USERS = (Metric.GAUC,)
"""Metrics of a score that compares rows of one user, or of one question, and no others."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a model is fitted to; stored in its signature."""

    name: str
    score: str
    """What a score says, for people."""
    probability: bool
    """Whether a score is a probability: between 0 and 1, and as often right as it says."""
    metric: str
    """The validation metric: what the fit stops by is its loss, and this is what people look at first."""
    metrics: tuple[str, ...]
    """Every metric that is defined for the scores; gates on others do not apply."""
    target: str = "label"
    """The columns of a training set that are learned."""
    weight: str = "weight"
    """How much a row counts in training."""
    grouped: bool = False
    """Whether rows are compared within their `group_id`, so that a batch holds whole groups."""
    heads: tuple[str, ...] = ()
    """What each of several outputs says, where there are several; the score is their product."""

    def to_json(self) -> dict[str, Any]:
        """Return the objective in JSON's types."""
        return dataclasses.asdict(self) | {"metrics": list(self.metrics), "heads": list(self.heads)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], source: str) -> Objective:
        """Return what `to_json` returned; fields that are not known are passed over.

        Raises:
            CorruptRecordError: A field that decides what scores mean is missing; `source` says where.
        """
        fields = {field.name: record[field.name] for field in dataclasses.fields(cls) if field.name in record}
        try:
            found = cls(**fields)
        except TypeError as error:
            msg = f"{source}: not an objective: {error}, received {dict(record)!r:.200}"
            raise CorruptRecordError(msg) from error
        return dataclasses.replace(found, metrics=tuple(found.metrics), heads=tuple(found.heads))


PROBABILITY = Objective(
    "probability",
    "Probability that the user would like the item",
    probability=True,
    metric=Metric.LOG_LOSS,
    metrics=(*ORDERS, Metric.LOG_LOSS),
)
REGRESSION = Objective(
    "regression",
    "Value that the user's next event with the item would have",
    probability=False,
    metric=Metric.RMSE,
    metrics=(*ORDERS, Metric.RMSE),
    target="value",
)
WATCH_TIME = Objective(
    "watch_time",
    "Expected value of offering the item, such as seconds of watching: a row that is not positive counts as none",
    probability=False,
    metric=Metric.GAUC,
    metrics=ORDERS,
    weight="weight, times the value where the label is 1",
)
PAIRWISE = Objective(
    "pairwise",
    "Orders a user's items; the difference of two scores is the log odds that the first is liked better",
    probability=False,
    metric=Metric.GAUC,
    metrics=WITHIN_USERS,
    weight="weight, as a share of its group's positive rows: every group counts alike",
    grouped=True,
)
LISTWISE = Objective(
    "listwise",
    "Orders a user's items; exponentials of scores are in proportion to the chance of being the liked one of a group",
    probability=False,
    metric=Metric.GAUC,
    metrics=WITHIN_USERS,
    weight="weight, as a share of its group's positive rows: every group counts alike",
    grouped=True,
)
TAKEN_AND_LIKED = Objective(
    "taken_and_liked",
    "Probability that the user takes the item, and likes it",
    probability=True,
    metric=Metric.LOG_LOSS,
    metrics=(*ORDERS, Metric.LOG_LOSS),
    target="drawn, label",
    heads=("taken", "liked_if_taken"),
)
OBJECTIVES = {each.name: each for each in (PROBABILITY, REGRESSION, WATCH_TIME, PAIRWISE, LISTWISE, TAKEN_AND_LIKED)}
