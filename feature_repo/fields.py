"""The one adapter from a column of the contracts to Feast's types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feast import Field
from feast.types import Array, Float32, Int64, String, UnixTimestamp

from feature_repo.contracts.columns import Column, Dtype

if TYPE_CHECKING:
    from feast.types import FeastType

_SCALARS = {
    Dtype.STRING: String,
    Dtype.INT64: Int64,
    Dtype.FLOAT32: Float32,
    Dtype.TIMESTAMP: UnixTimestamp,
}


def feast_type(column: Column) -> FeastType:
    """Return the Feast type of a column: a scalar, or an array where the column holds a list."""
    scalar = _SCALARS[column.dtype]
    return Array(scalar) if column.length else scalar


def feast_field(column: Column) -> Field:
    """Return a column as a field of a feature view."""
    return Field(name=column.name, dtype=feast_type(column), description=column.meaning)
