"""What a made-up world holds for a feature that it says nothing of, so that a new feature needs no edit there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from feature_repo.contracts.columns import Column


def blank(column: Column) -> Any:
    """Return the value that stands for "no value"."""
    return [column.missing] * max(column.length, 0) if column.length else column.missing


def completed(row: Mapping[str, Any], columns: Iterable[Column]) -> dict[str, Any]:
    """Return `row` with every column that it lacks."""
    return {column.name: blank(column) for column in columns} | dict(row)
