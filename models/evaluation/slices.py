"""Slices: rows of one kind, by what was known of their user or item; and the figures of each.

Slices of one kind share no row, and together are all rows. The gates' YAML declares them (`models.gates.margins`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.objectives import Metric
from feature_repo.contracts.on_demand import ITEM_TENURE
from models.errors import MarginsError
from models.evaluation.metrics import grouped_auc_of_places, log_losses, places, squared_errors
from models.evaluation.table import CANDIDATE_ROW

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from feature_repo.contracts.columns import Column
    from models.inputs import Columns

ITEM_AGE_DAYS = "item_age_days"
"""Days from the item's first event to the request: no column of its own, but computed of two."""
SLICE_CODES = "slices."
"""What the stored codes of a kind are called, before its name."""
_DAY = 86_400
_NO_NAME = re.compile(r"[^\w\- ]")
"""What MLflow takes in no name of a metric, or takes for a part of a path."""
_OTHERS, _MISSING = "others", "missing"
_LONGEST_NAME = 100
"""Of a slice: pages stay readable, and MLflow takes 250 characters for the whole name of a metric."""
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NumberSlices(BaseModel):
    """A kind of slices by a number."""

    model_config = _STRICT

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    column: str
    """A column of training rows, or `item_age_days`."""
    starts: dict[str, float] = Field(min_length=2)
    """Slice → its lowest number; what is below all, or missing, is in the lowest."""

    @model_validator(mode="after")
    def _starts_once(self) -> Self:
        if len(set(self.starts.values())) < len(self.starts):
            msg = f"slices {self.name}: expected a start of its own for each, received {self.starts}"
            raise ValueError(msg)
        return self

    @property
    def ascending(self) -> tuple[str, ...]:
        """The slices, from the lowest number up."""
        return tuple(sorted(self.starts, key=lambda name: self.starts[name]))


class DeclaredSlices(BaseModel):
    """All kinds of slices: those by numbers, and one for each categorical attribute that the rows have."""

    model_config = _STRICT

    numbers: tuple[NumberSlices, ...] = ()
    attribute_terms: int = Field(default=0, ge=0, le=100)
    """So many of an attribute's commonest terms are slices, all others one; 0: attributes are no slices."""

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [each.name for each in self.numbers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"slices {twice} are declared twice"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Sliced:
    """Rows by the slices of one kind."""

    names: tuple[str, ...]
    codes: NDArray[np.int64]
    """`[rows]`, place among `names`."""


@dataclass(frozen=True, slots=True)
class SliceSize:
    """How much a slice tells."""

    rows: int
    users: int
    judged_users: int
    """Those with rows of both classes, of which GAUC is made."""


def slice_rows(declared: DeclaredSlices, features: Columns, inputs: Iterable[Column]) -> dict[str, Sliced]:
    """Return kind → its rows; a kind whose columns the rows have not is left out.

    Args:
        declared: What the gates' YAML has. An attribute that is called as a kind of these is a kind all the same.
        features: Columns of the rows, `[rows]` or `[rows, length]`.
        inputs: Raw columns of models, of which those of one text each are attributes.

    Raises:
        MarginsError: A declared column has no number on each row.
    """
    numbers = {each.name: _by_number(each, features) for each in declared.numbers}
    attributes = [
        column.name
        for column in inputs
        if column.dtype is Dtype.STRING and not column.length and column.name != ITEM_ID.name
    ]
    terms = {
        f"{name}_term" if name in numbers else name: _by_term(features[name], declared.attribute_terms)
        for name in attributes
        if name in features
    }
    found = numbers | (terms if declared.attribute_terms else {})
    return {name: sliced for name, sliced in found.items() if sliced is not None}


def _by_number(kind: NumberSlices, features: Columns) -> Sliced | None:
    values = _item_age_days(features) if kind.column == ITEM_AGE_DAYS else features.get(kind.column)
    if values is None:
        return None
    if values.ndim > 1 or not np.issubdtype(values.dtype, np.number):
        received = "lists" if values.ndim > 1 else "texts"
        msg = (
            f"slices {kind.name}: expected a column with a number on each row, received {kind.column}, which has "
            f"{received}; name another column in the margins"
        )
        raise MarginsError(msg)
    names = kind.ascending
    later = [kind.starts[name] for name in names[1:]]
    known = np.where(np.isfinite(values), values, -np.inf)  # as the encoder has it, what is no number is missing
    return Sliced(names, np.searchsorted(later, known, side="right").astype(np.int64))


def _item_age_days(features: Columns) -> NDArray[np.float64] | None:
    """Return days, 0 for an item without an event before the request."""
    if not features.keys() >= set(ITEM_TENURE.inputs):
        return None
    request, first = (features[name].astype(np.float64) for name in ITEM_TENURE.inputs)
    days: NDArray[np.float64] = np.where(first > 0, (request - first) / _DAY, 0.0)
    return days


def _by_term(values: NDArray[Any], most: int) -> Sliced:
    inverse, terms = pd.factorize(values, sort=True)
    common = np.argsort(-np.bincount(inverse), kind="stable")[:most]
    place = np.full(len(terms), len(common), np.int64)
    place[common] = np.arange(len(common))
    names = tuple(_name(terms[each]) for each in common)
    return Sliced((*names, _OTHERS) if len(terms) > len(common) else names, place[inverse])


def _name(term: str) -> str:
    if term in {_OTHERS, _MISSING}:
        return f'"{term}"'
    return f"{term[: _LONGEST_NAME - 1]}…" if len(term) > _LONGEST_NAME else term or _MISSING


def sizes(sliced: Sliced, labels: NDArray[Any], users: NDArray[Any]) -> list[SliceSize]:
    """Return the size of each slice; all arrays are `[rows]`."""
    shape = len(sliced.names), int(users.max()) + 1
    cell = sliced.codes * shape[1] + users
    rows = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    positives = np.bincount(cell[labels == 1], minlength=shape[0] * shape[1]).reshape(shape)
    judged = (positives > 0) & (positives < rows)
    return [
        SliceSize(int(mine.sum()), int((mine > 0).sum()), int(both.sum()))
        for mine, both in zip(rows, judged, strict=True)
    ]


def user_aucs(
    sliced: Sliced, labels: NDArray[Any], place: NDArray[np.int64], users: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each user's AUC within each slice, and its rows, `[slices, users]`; NaN where a class is missing.

    `place` are the scores' `metrics.places`.
    """
    shape = len(sliced.names), int(users.max()) + 1
    areas, rows = grouped_auc_of_places(labels, place, sliced.codes * shape[1] + users)
    lacking = shape[0] * shape[1] - len(areas)
    return (
        np.append(areas, np.full(lacking, np.nan)).reshape(shape),
        np.append(rows, np.zeros(lacking)).reshape(shape),
    )


def figures_by_slice(
    slices: Mapping[str, Sliced],
    labels: NDArray[Any],
    scores: NDArray[Any],
    users: NDArray[Any],
    defined: Collection[str],
) -> dict[str, list[dict[str, float]]]:
    """Return kind → the figures of each slice by name: those that are `defined`, NaN where the rows give none.

    A slice's GAUC is that of its rows alone: a user's rows in other slices are not compared with these.
    """
    place = places(scores)
    means = (
        {"log_loss": log_losses(labels, scores), "brier": squared_errors(labels, scores)}
        if Metric.LOG_LOSS in defined
        else {}
    )
    return {
        kind: _figures(sliced, labels, scores, users, defined, place=place, means=means)
        for kind, sliced in slices.items()
    }


def _figures(
    sliced: Sliced,
    labels: NDArray[Any],
    scores: NDArray[Any],
    users: NDArray[Any],
    defined: Collection[str],
    *,
    place: NDArray[np.int64],
    means: Mapping[str, NDArray[np.float64]],
) -> list[dict[str, float]]:
    count = len(sliced.names)
    rows = np.bincount(sliced.codes, minlength=count).astype(float)
    found: dict[str, NDArray[np.float64]] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        if Metric.AUC in defined:
            areas, _ = grouped_auc_of_places(labels, place, sliced.codes)
            found["auc"] = np.append(areas, np.full(count - len(areas), np.nan))
        if Metric.GAUC in defined:
            areas, weights = user_aucs(sliced, labels, place, users)
            weights = np.where(np.isnan(areas), 0.0, weights)
            found["gauc"] = (np.nan_to_num(areas) * weights).sum(axis=1) / weights.sum(axis=1)
        if Metric.LOG_LOSS in defined:
            found |= {name: np.bincount(sliced.codes, each, count) / rows for name, each in means.items()}
            expected = np.bincount(sliced.codes, scores, count)
            found["observed_over_expected"] = np.bincount(sliced.codes, labels, count) / expected
    return [{name: float(values[each]) for name, values in found.items()} for each in range(count)]


def slices_record(
    slices: Mapping[str, Sliced],
    labels: NDArray[Any],
    users: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    defined: Mapping[str, Collection[str]],
) -> dict[str, list[dict[str, Any]]]:
    """Return kind → what the report has of each of its slices: size, and the figures of each row of the table."""
    record = {}
    of_rows = {row: figures_by_slice(slices, labels, each, users, defined[row]) for row, each in scores.items()}
    for kind, sliced in slices.items():
        record[kind] = [
            {
                "slice": name,
                "rows": size.rows,
                "users": size.users,
                "judged_users": size.judged_users,
                "figures": {
                    row: {
                        metric: value if np.isfinite(value) else None for metric, value in figures[kind][place].items()
                    }
                    for row, figures in of_rows.items()
                },
            }
            for place, (name, size) in enumerate(zip(sliced.names, sizes(sliced, labels, users), strict=True))
        ]
    return record


def slice_metrics(record: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return the candidate's figures as MLflow shows them: `slices/<kind>/<slice>/<metric>`.

    Slices whose names MLflow cannot tell apart have their place behind the name.
    """
    return {
        f"slices/{kind}/{name}/{metric}": value
        for kind, found in record.items()
        for name, each in zip(_metric_names([each["slice"] for each in found]), found, strict=True)
        for metric, value in each["figures"][CANDIDATE_ROW].items()
        if value is not None
    }


def _metric_names(slices: Sequence[str]) -> list[str]:
    names = [_NO_NAME.sub("_", name) for name in slices]
    count = Counter(names)
    return [name if count[name] == 1 else f"{name}.{place}" for place, name in enumerate(names, start=1)]
