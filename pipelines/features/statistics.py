"""Mean and population standard deviation from counts, sums and sums of squares of integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

if TYPE_CHECKING:
    from pyspark.sql import Column

MISSING = -1.0
"""What a figure is where there is nothing to compute it from, as the contracts declare."""


def mean(count: str, total: str | Column, unit: int) -> Column:
    """Return total / count in whole units, `unit` integer steps each; MISSING where the count is zero."""
    total = F.col(total) if isinstance(total, str) else total
    return _or_missing(count, total.cast("double") / (F.col(count) * F.lit(unit)))


def population_std(count: str, total: str, squares: str, unit: int) -> Column:
    """Return sqrt(count * squares - total²) / count in whole units; MISSING where the count is zero.

    The difference is one of longs and so exact: no cancellation, and zero for equal values.
    """
    number, sums = F.col(count), F.col(total)
    spread = number * F.col(squares) - sums * sums
    return _or_missing(count, F.sqrt(spread.cast("double")) / (number * F.lit(unit)))


def _or_missing(count: str, figure: Column) -> Column:
    return F.when(F.col(count) > 0, figure).otherwise(F.lit(MISSING)).cast("float")
