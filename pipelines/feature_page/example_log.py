"""A few people who rate a few films, and follow one another: small enough to check an example by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import EVENTS, RELATIONS, items_dataset, users_dataset
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.features.groups import Inputs
from pipelines.io.spark import spark_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame, SparkSession

    from feature_repo.contracts.datasets import Dataset

SCHEMA = replace(MOVIELENS, has_relations=True)
FIRST_DAY = datetime(1998, 3, 1, 20, tzinfo=UTC)
CUTOFF = datetime(1998, 3, 8, tzinfo=UTC)
ENTITIES = {"user_id": "ann", "item_id": "heat"}
"""Of whom, and of what, the examples are."""
_ITEMS = {
    "alien": ("Alien", 1979, ["Horror", "Sci-Fi"]),
    "casablanca": ("Casablanca", 1942, ["Drama", "Romance"]),
    "fargo": ("Fargo", 1996, ["Crime", "Drama"]),
    "heat": ("Heat", 1995, ["Crime", "Drama", "Thriller"]),
    "totoro": ("My Neighbour Totoro", 1988, ["Animation"]),
    "vertigo": ("Vertigo", 1958, ["Mystery", "Thriller"]),
}
_USERS = {"ann": (34, "F", "engineer"), "bob": (51, "M", "writer"), "cem": (None, None, None)}
_RATINGS = (
    # user, item, stars, minutes after 8 p.m. of the first day
    ("ann", "casablanca", 4.5, 0),
    ("ann", "vertigo", 5.0, 2),
    ("bob", "heat", 3.0, 30),
    ("cem", "heat", 4.5, 31),
    ("cem", "alien", 4.0, 33),
    ("ann", "totoro", 2.5, 1441),
    ("bob", "fargo", 4.0, 2900),
    ("ann", "alien", 3.5, 4330),
    ("ann", "heat", 4.0, 4332),
    ("bob", "casablanca", 5.0, 5800),
)
_FRIENDS = (
    # user, other, days after the first
    ("ann", "bob", 1),
    ("cem", "ann", 2),
)


def example_inputs(spark: SparkSession) -> Inputs:
    """Return the log as the feature transforms take it."""
    items = [(item, *details) for item, details in _ITEMS.items()]
    users = [(user, *details) for user, details in _USERS.items()]
    events = [
        (user, item, "rating", stars, FIRST_DAY + timedelta(minutes=minutes)) for user, item, stars, minutes in _RATINGS
    ]
    tables = (
        _table(spark, EVENTS, events),
        _table(spark, items_dataset(SCHEMA), [_floats(row) for row in items]),
        _table(spark, users_dataset(SCHEMA), [_floats(row) for row in users]),
    )
    relations = [(user, other, FIRST_DAY + timedelta(days=days)) for user, other, days in _FRIENDS]
    return Inputs(SCHEMA, *tables, CUTOFF, relations=_table(spark, RELATIONS, relations))


def _floats(row: tuple[object, ...]) -> tuple[object, ...]:
    """Return a row with its whole numbers as the floats that attributes are stored as."""
    return tuple(float(value) if isinstance(value, int) else value for value in row)


def _table(spark: SparkSession, dataset: Dataset, rows: Sequence[tuple[object, ...]]) -> DataFrame:
    return spark.createDataFrame(rows, spark_schema(dataset))
