"""The parameters of the encodings, fitted by the data plane on train rows and shipped as `transforms.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.columns import Encoding
from feature_repo.contracts.publishing import read_json
from models.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feature_repo.contracts.signatures import Signature


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of a numeric column over the train rows where it is not missing."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Transforms:
    """Everything that the graph needs to turn raw columns into numbers."""

    vocabularies: Mapping[str, tuple[str, ...]]
    """Vocabulary → its terms; the first has index 2."""
    numeric: Mapping[str, Moments]
    prior_mean: float
    """Mean value of the train rows: what smoothing pulls towards."""


def read_transforms(path: Path, signature: Signature, prior_mean: float) -> Transforms:
    """Read `transforms.json`; DatasetError names what a column of the signature needs and the file lacks."""
    record: dict[str, Any] = read_json(path)
    vocabularies = record.get("vocabularies", {})
    numeric = record.get("numeric", {})
    for column in signature.input_columns:
        if column.encoding is Encoding.VOCABULARY and column.vocabulary not in vocabularies:
            msg = (
                f"{path}: column {column.name} needs vocabulary {column.vocabulary!r}, received {sorted(vocabularies)}"
            )
            raise DatasetError(msg)
        if column.encoding in {Encoding.STANDARD, Encoding.LOG_STANDARD} and column.name not in numeric:
            msg = f"{path}: column {column.name} needs its mean and std, received those of {sorted(numeric)}"
            raise DatasetError(msg)
    return Transforms(
        vocabularies={name: tuple(terms) for name, terms in vocabularies.items()},
        numeric={name: _moments(values) for name, values in numeric.items()},
        prior_mean=prior_mean,
    )


def _moments(values: Mapping[str, float | None]) -> Moments:
    """Read one column's moments; a column without any value, or with a single one, is left unscaled."""
    mean, std = values.get("mean"), values.get("std")
    known_mean = mean if mean is not None and math.isfinite(mean) else 0.0
    return Moments(known_mean, std if std is not None and math.isfinite(std) and std > 0 else 1.0)
