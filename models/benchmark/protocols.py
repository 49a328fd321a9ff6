"""The ways in which the benchmark divides rows."""

from enum import StrEnum


class Protocol(StrEnum):
    """How rows are divided."""

    GIVEN_SPLIT = "given-split"
    """As a folder has them: `models.benchmark.given_split`."""
    RANDOM = "random"
    """The first of ten folds of a context table: `models.benchmark.context`."""
    TIME = "time"
    """As production learns: features as of each row's moment; what validates and tests comes after what is learned."""
