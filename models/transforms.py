"""The parameters of the encodings, fitted by the data plane on train rows and shipped as `transforms.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.columns import SCALE_ENCODINGS, Encoding
from feature_repo.contracts.manifests import TRANSFORMS_VERSION
from feature_repo.contracts.publishing import read_json
from models.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feature_repo.contracts.columns import Column
    from feature_repo.contracts.signatures import Signature

LIMIT = 8.0
"""Numbers are cut here, so many scales from the centre: a wild value online must not drown the others."""
_FITTED = {
    Encoding.STANDARD: ("mean", "std"),
    Encoding.MIN_MAX: ("min", "max"),
    Encoding.ROBUST: ("median", "iqr"),
    Encoding.QUANTILES: ("boundaries",),
}
"""What each encoding has fitted."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a number is moved and stretched: (x - centre) / scale, cut to a range."""

    centre: float
    scale: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Transforms:
    """Everything that the graph needs to turn raw columns into numbers."""

    vocabularies: Mapping[str, tuple[str, ...]]
    """Vocabulary → its terms; the first has index 2."""
    scalings: Mapping[str, Scaling]
    """Column that is moved and stretched → how."""
    boundaries: Mapping[str, tuple[float, ...]]
    """Column that is cut into buckets → the lowest number of each bucket but the first, ascending."""
    prior_mean: float
    """Mean value of the train rows: what smoothing pulls towards."""


def read_transforms(path: Path, signature: Signature, prior_mean: float) -> Transforms:
    """Read `transforms.json`.

    Raises:
        DatasetError: it is of another version, or names what a column of the signature needs and the file lacks.
    """
    record: dict[str, Any] = read_json(path)
    if record.get("version") != TRANSFORMS_VERSION:
        msg = (
            f"{path}: expected parameters of version {TRANSFORMS_VERSION}, received {record.get('version', 'none')}; "
            "build the training set again with this code"
        )
        raise DatasetError(msg)
    vocabularies, fitted = record.get("vocabularies", {}), record.get("columns", {})
    columns = [column for column in signature.input_columns if column.encoding is not Encoding.NONE]
    for column in columns:
        _check(path, column, vocabularies, fitted)
    return Transforms(
        vocabularies={name: tuple(terms) for name, terms in vocabularies.items()},
        scalings={
            column.name: _scaling(column.encoding, fitted[column.name])
            for column in columns
            if column.encoding in SCALE_ENCODINGS
        },
        boundaries={
            column.name: tuple(fitted[column.name]["boundaries"])
            for column in columns
            if column.encoding is Encoding.QUANTILES
        },
        prior_mean=prior_mean,
    )


def _check(path: Path, column: Column, vocabularies: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Refuse a column whose parameters are not there, or were fitted for another encoding than the contract's."""
    if column.vocabulary and column.vocabulary not in vocabularies:
        msg = f"{path}: column {column.name} needs vocabulary {column.vocabulary!r}, received {sorted(vocabularies)}"
        raise DatasetError(msg)
    parameters = fitted.get(column.name, {})
    needed = _FITTED.get(column.encoding, ())
    received = {name: value for name, value in parameters.items() if name not in needed}
    if received != column.encoding_definition or not parameters.keys() >= set(needed):
        msg = (
            f"{path}: column {column.name}: expected parameters {list(needed)} of {column.encoding_definition}, "
            f"received {parameters or 'none'}; build the training set again"
        )
        raise DatasetError(msg)


def _scaling(encoding: Encoding, fitted: Mapping[str, float | None]) -> Scaling:
    """Return a column's scaling; one without any value, or without spread, is left unscaled."""
    if encoding is Encoding.MIN_MAX:
        low, high = _finite(fitted["min"], 0.0), _finite(fitted["max"], 0.0)
        return Scaling(low, high - low if high > low else 1.0, 0.0, 1.0)
    centre, scale = (fitted[name] for name in _FITTED[encoding])
    spread = _finite(scale, 1.0)
    return Scaling(_finite(centre, 0.0), spread if spread > 0 else 1.0, -LIMIT, LIMIT)


def _finite(figure: float | None, otherwise: float) -> float:
    return figure if figure is not None and math.isfinite(figure) else otherwise
