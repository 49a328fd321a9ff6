"""The strict as-of join: each label gets the latest feature row strictly before it, and every label stays one row.

DuckDB's ASOF join sorts each side once, so it is linear in both for a key of any size; Feast's own join compares every
row of a key with every label of it. It also joins on `<=`: a feature row at the label's own second holds the label's
event, and would give it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.feast_store.tables import FeatureTable, microseconds
from pipelines.io.sql_text import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LABEL_TIME = "__label_us"
_FEATURE_TIME = "__feature_us"


@dataclass(frozen=True, slots=True)
class AsOfJoin:
    """One feature table to be joined to the label rows."""

    table: FeatureTable
    key_map: Mapping[str, str]
    """The table's key column → the label rows' column."""
    features: Mapping[str, str]
    """The table's column → its name in the result."""
    ttl_us: int
    """How old a feature row may be at the label's time, in microseconds; 0 is any age."""


def point_in_time_sql(labels: str, label_time: str, joins: Sequence[AsOfJoin], order_by: str) -> str:
    """Return the query that joins features to labels.

    Args:
        labels: A table expression: a name, or a query in parentheses.
        label_time: Its column with the moment as of which features are wanted; a row at that very moment is not taken.
        joins: The feature tables.
        order_by: The label column that the result is in the order of.

    Returns:
        SQL whose result has the labels' columns, then the features in the order of `joins`.
    """
    selected = ["label.* EXCLUDE (" + _LABEL_TIME + ")"]
    sources = [f"(SELECT *, {microseconds(label_time)} AS {_LABEL_TIME} FROM {labels}) AS label"]  # noqa: S608 - names are quoted
    for number, join in enumerate(joins):
        alias = f"feature_{number}"
        selected += [_selected(alias, join.ttl_us, column, name) for column, name in join.features.items()]
        sources.append(_as_of(alias, join))
    return f"SELECT {', '.join(selected)} FROM {' '.join(sources)} ORDER BY label.{identifier(order_by)}"  # noqa: S608 - names are quoted


def _selected(alias: str, ttl_us: int, column: str, name: str) -> str:
    value = f"{alias}.{identifier(column)}"
    if ttl_us:
        value = f"CASE WHEN label.{_LABEL_TIME} - {alias}.{_FEATURE_TIME} <= {ttl_us} THEN {value} END"
    return f"{value} AS {identifier(name)}"


def _as_of(alias: str, join: AsOfJoin) -> str:
    columns = ", ".join(identifier(name) for name in (*join.key_map, *join.features))
    rows = f"SELECT {columns}, {join.table.time_us} AS {_FEATURE_TIME} FROM {join.table.sql}"  # noqa: S608 - names are quoted
    equal = [f"label.{identifier(label)} = {alias}.{identifier(key)}" for key, label in join.key_map.items()]
    conditions = " AND ".join([*equal, f"label.{_LABEL_TIME} > {alias}.{_FEATURE_TIME}"])
    return f"ASOF LEFT JOIN ({rows}) AS {alias} ON {conditions}"


def latest_sql(table: FeatureTable, features: Sequence[str], start_us: int, end_us: int) -> str:
    """Return the query for each key's latest row with a time of [start_us, end_us), in the order of the keys.

    Two steps, so that only keys and times are aggregated, never the wide rows.
    """
    keys = ", ".join(identifier(key) for key in table.keys)
    columns = ", ".join(identifier(name) for name in (*table.keys, *features, table.time))
    bounds = f"{table.time_us} >= {start_us} AND {table.time_us} < {end_us}"
    time = identifier(table.time)
    latest = f"SELECT {keys}, max({time}) AS {time} FROM {table.sql} WHERE {bounds} GROUP BY {keys}"  # noqa: S608 - names are quoted
    return f"SELECT {columns} FROM {table.sql} SEMI JOIN ({latest}) USING ({keys}, {time}) ORDER BY {keys}"  # noqa: S608 - names are quoted
