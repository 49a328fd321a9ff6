"""How far two samples of rows are apart: inputs of training rows and test rows, scores of two models.

The measure is the population stability index (`feature_repo.stability_index`): 0 where the shares are alike; by the
rule of thumb of credit scoring, more than 0.25 is a shift (Siddiqi, Credit Risk Scorecards, 2006). A column
whose values all end in one bucket, as one does whose unit changed or that is missing everywhere, has 6 and more. So
has a count that only grows, if it grows alike on all rows: the index says that a person should look, and not why.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.contracts.columns import Dtype, Encoding
from feature_repo.stability_index import stability_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.signatures import Signature
    from models.inputs import Columns

_TENTHS = 10
_TERMS = 20
"""Commonest terms of the training rows that have a bucket each; all others share one."""


def score_drift(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Return the index of two models' scores of the same rows, `[rows]` each, over tenths of the first's."""
    edges = _tenths(before)
    return stability_index(_counts(before, edges), _counts(after, edges))


def _tenths(values: NDArray[Any]) -> NDArray[Any]:
    """Return the lowest value of each tenth but the first; a value that most rows have ends a bucket by itself."""
    if not len(values):
        return np.empty(0)
    return np.unique(np.quantile(values, np.linspace(0, 1, _TENTHS + 1)[1:-1], method="lower"))


def _counts(values: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def input_drift(before: Columns, after: Columns, signature: Signature) -> dict[str, float]:
    """Return raw column → index, of those that have an encoding; the others are ids and times, which only move on.

    A missing value is a bucket of its own, and so is one that is no number: the encoder takes it for missing, too. Of a
    list every value counts, and an empty list is a missing value.

    Args:
        before: The training rows' columns.
        after: The test rows' columns.
        signature: What the model takes.
    """
    return {
        column.name: _drift(before[column.name], after[column.name], column)
        for column in signature.input_columns
        if column.encoding is not Encoding.NONE
    }


def _drift(before: NDArray[Any], after: NDArray[Any], column: Column) -> float:
    if column.dtype is Dtype.STRING:
        return _term_drift(before, after, column)
    known = [each[_is_known(each, column)] for each in (before, after)]
    edges = _tenths(known[0])
    missing = [len(each) - _rows_with(each, column) for each in (before, after)]
    return stability_index(
        *(np.append(_counts(values, edges), gone) for values, gone in zip(known, missing, strict=True))
    )


def _is_known(values: NDArray[Any], column: Column) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = values != column.missing
    return known if column.dtype is Dtype.STRING else known & np.isfinite(values)


def _rows_with(values: NDArray[Any], column: Column) -> int:
    """Return how many rows have a value, or a list with one."""
    known = _is_known(values, column)
    return int((known.any(axis=1) if column.length else known).sum())


def _term_drift(before: NDArray[Any], after: NDArray[Any], column: Column) -> float:
    counts = [_term_counts(each, column) for each in (before, after)]
    common = sorted(counts[0], key=lambda term: (-counts[0][term], term))[:_TERMS]
    named = [[each.get(term, 0) for term in common] for each in counts]
    return stability_index(
        *(np.array([*own, sum(each.values()) - sum(own)]) for own, each in zip(named, counts, strict=True))
    )


def _term_counts(values: NDArray[Any], column: Column) -> dict[str, int]:
    # Not by `np.unique`: it sorts, and NumPy's own texts have the length of the longest.
    found = Counter[str](values.ravel().tolist())
    if column.length:  # padding says nothing, an empty list does
        found[str(column.missing)] = len(values) - _rows_with(values, column)
    return found
