"""What every on-demand feature is, drawn as tables: raw inputs on the left, what is made of them on the right.

Times are UTC; `-` is nothing. Elapsed time is the logarithm of the seconds as a share of a day's, a decayed count log2
of one more than it. Most requests are made on 1998-04-23, day 10,339 since 1970.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.on_demand import CALENDAR, Computation
from pipelines.feature_page.request import value_at_request
from tests.ascii_tables import parse_table
from tests.blank_values import blank
from tests.movielens import RANKING

SPECIFICATIONS = {
    "request_hour": """
    | request_time        | value |
    | 1998-04-23 00:59:59 | 0     |
    | 1998-04-23 23:00:00 | 23    |
    | -                   | -     |
    """,
    "request_weekday": """
    | request_time        | value |
    | 1998-04-20 00:00:00 | 0     |
    | 1998-04-26 23:59:59 | 6     |
    | -                   | -     |
    """,
    "request_season": """
    | request_time        | value |
    | 1998-01-15 00:00:00 | 0     |
    | 1998-04-23 00:00:00 | 1     |
    | 1998-07-01 00:00:00 | 2     |
    | 1998-10-31 00:00:00 | 3     |
    | 1998-12-24 00:00:00 | 0     |
    | -                   | -     |
    """,
    "user_recency": """
    | request_time        | user_last_event_time | value |
    | 1998-04-23 00:00:00 | 1998-04-22 00:00:00  | 1     |
    | 1998-04-23 00:00:00 | 1998-04-22 23:59:59  | 0.061 |
    | 1998-04-23 00:00:00 | 1998-04-23 00:00:07  | 0     |
    | 1998-04-23 00:00:00 | -                    | -     |
    | -                   | 1998-04-22 00:00:00  | -     |
    """,
    "user_tenure": """
    | request_time        | user_first_event_time | value |
    | 1998-04-23 00:00:00 | 1998-04-22 00:00:00   | 1     |
    | 1998-04-23 00:00:00 | -                     | -     |
    """,
    "item_recency": """
    | request_time        | item_last_event_time | value |
    | 1998-04-23 00:00:00 | 1998-04-22 00:00:00  | 1     |
    | 1998-04-23 00:00:00 | -                    | -     |
    """,
    "item_tenure": """
    | request_time        | item_first_event_time | value |
    | 1998-04-23 00:00:00 | 1997-04-23 00:00:00   | 1.519 |
    | 1998-04-23 00:00:00 | -                     | -     |
    """,
    "item_decayed_count": """
    | request_time        | item_popular_until | value |
    | 1998-04-23 00:00:00 | 10339              | 1     |
    | 1998-04-23 00:00:00 | 10353              | 1.585 |
    | 1998-04-23 00:00:00 | 10325              | 0.585 |
    | 1998-04-23 12:00:00 | 10339.5            | 1     |
    | 1998-04-23 00:00:00 | -                  | -     |
    """,
    "mean_product": """
    | user_event_count | user_value_mean | item_event_count | item_value_mean | value |
    | 5                | 5               | 15               | 1               | -1.5  |
    | 5                | 5               | -                | -               | 0     |
    """,
    "release_year_match": """
    | item_release_year | user_release_year_mean | user_release_year_std | value |
    | 1990              | 1995                   | 10                    | 0.5   |
    | 1990              | 1995                   | 0                     | 2.5   |
    | -                 | 1995                   | 10                    | -     |
    | 1990              | -                      | -                     | -     |
    """,
    "genres_match": """
    | item_genres   | user_top_genres | value |
    | Action,Comedy | Comedy,Drama    | 0.5   |
    | Drama         | Comedy,Drama    | 1     |
    | Drama         | -               | 0     |
    | -             | Comedy          | 0     |
    | New           | New             | 0     |
    """,
}
COLUMNS = {column.name: column for column in RANKING.input_columns}


def test_every_on_demand_feature_has_a_specification_of_all_its_inputs() -> None:
    specified = {name: set(parse_table(table)[0]) - {"value"} for name, table in SPECIFICATIONS.items()}
    assert specified == {feature.name: set(feature.inputs) for feature in RANKING.on_demand}


@pytest.fixture(scope="module")
def encoder(dataset: Any) -> Any:
    """The encoder with a prior of 3 and years that vary by 20."""
    from models.encoding import build_encoder

    scalings = {
        **dataset.transforms.scalings,
        "item_release_year": replace(dataset.transforms.scalings["item_release_year"], scale=20.0),
    }
    return build_encoder(RANKING, replace(dataset.transforms, prior_mean=3.0, scalings=scalings))


@pytest.mark.parametrize("feature", RANKING.on_demand, ids=lambda feature: feature.name)
def test_specification(feature: Any, encoder: Any) -> None:
    rows = parse_table(SPECIFICATIONS[feature.name])
    columns = {
        name: np.array([_value(row.get(name, "-"), column) for row in rows], _dtype(column))
        for name, column in COLUMNS.items()
    }
    received = encoder.run(columns, RANKING)[feature.name]
    assert len(received) == len(rows)
    for row, value in zip(rows, received, strict=True):
        if feature.computation in CALENDAR:
            assert value == (0 if row["value"] == "-" else int(row["value"]) + 2), row
        elif row["value"] == "-":
            assert value.tolist() == [0, 0], row
        else:
            assert value.tolist() == [pytest.approx(float(row["value"]), abs=6e-4), *[1.0] * (len(value) - 1)], row


@pytest.mark.parametrize("feature", RANKING.on_demand, ids=lambda feature: feature.name)
def test_the_page_of_features_shows_what_the_graph_computes(feature: Any) -> None:
    """The page's example is worked out by hand in another plane; of the first row both make the same."""
    row, *_ = parse_table(SPECIFICATIONS[feature.name])
    inputs = {name: _value(cell, COLUMNS[name]) for name, cell in row.items() if name != "value"}
    value = value_at_request(feature, inputs, prior_mean=3.0)
    encoded = {
        Computation.ELAPSED: math.log1p(value) / math.log1p(86_400) if value >= 0 else math.nan,
        Computation.DECAYED_COUNT: math.log2(1 + value) if value >= 0 else math.nan,
    }
    assert encoded.get(feature.computation, value) == pytest.approx(float(row["value"]), abs=6e-4)


def _dtype(column: Column) -> Any:
    return {Dtype.STRING: object, Dtype.INT64: np.int64, Dtype.FLOAT32: np.float32}[column.dtype]


def _value(cell: str, column: Column) -> Any:
    if cell == "-":
        return blank(column)
    if column.length:
        parts = cell.split(",")
        return [*parts, *[column.missing] * (column.length - len(parts))]
    if column.name.endswith("_time"):
        return int(datetime.fromisoformat(cell).replace(tzinfo=UTC).timestamp())
    return int(cell) if column.dtype is Dtype.INT64 else float(cell)


def test_every_layer_of_the_encoder_is_made_again_by_its_config(encoder: Any) -> None:
    layers = [layer for layer in encoder.model.layers if type(layer).__module__.startswith("models.")]
    assert len({type(layer) for layer in layers}) > 5
    for layer in layers:
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
