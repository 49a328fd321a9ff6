"""Mean and population standard deviation from counts, sums and sums of squares of whole steps.

A value of 3.5 stars is 7 steps of 0.5. Sums of whole numbers are exact, in whatever order they are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.features import MISSING

if TYPE_CHECKING:
    from pyspark.sql import Column, WindowSpec


def whole_steps(column: str, step: float) -> Column:
    """Return a number as a count of steps, a long; null stays null."""
    return F.round(F.col(column).cast("double") / F.lit(float(step))).cast("long")


def sums_so_far(name: str, steps: Column, so_far: WindowSpec) -> tuple[Column, Column, Column]:
    """Return `<name>_count`, `<name>_sum` and `<name>_squares` of the steps that are not null."""
    return (
        F.count(steps).over(so_far).alias(f"{name}_count"),
        F.sum(steps).over(so_far).alias(f"{name}_sum"),
        F.sum(steps * steps).over(so_far).alias(f"{name}_squares"),
    )


def mean(name: str, step: float) -> Column:
    """Return sum x step / count; MISSING where the count is zero."""
    return _or_missing(name, F.col(f"{name}_sum").cast("double") * F.lit(float(step)) / F.col(f"{name}_count"))


def population_std(name: str, step: float) -> Column:
    """Return sqrt(count x squares - sum²) x step / count; MISSING where the count is zero.

    The products are taken in double precision, whatever their size; both are exact, and their difference is zero for
    equal values, as long as they stay below 2^53.
    """
    number, sums, squares = (F.col(f"{name}_{part}").cast("double") for part in ("count", "sum", "squares"))
    spread = F.greatest(number * squares - sums * sums, F.lit(0.0))
    return _or_missing(name, F.sqrt(spread) * F.lit(float(step)) / number)


def _or_missing(name: str, figure: Column) -> Column:
    return F.when(F.col(f"{name}_count") > 0, figure).otherwise(F.lit(MISSING)).cast("float")
