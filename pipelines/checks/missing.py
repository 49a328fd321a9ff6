"""Which share of the items and users lacks each attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.checks import attribute_figure
from feature_repo.contracts.datasets import ITEMS, USERS
from feature_repo.contracts.schemas import Kind

if TYPE_CHECKING:
    import duckdb

    from feature_repo.contracts.schemas import Attribute, Schema


def missing_shares(database: duckdb.DuckDBPyConnection, schema: Schema) -> dict[str, float]:
    """Return attribute → share of the rows of `items`, or `users`, without it, the largest first."""
    shares: dict[str, float] = {}
    for dataset, attributes in ((ITEMS, schema.item_attributes), (USERS, schema.user_attributes)):
        if not attributes:
            continue
        figures = ", ".join(
            f"count(*) FILTER (WHERE {_is_missing(each)}) / greatest(count(*), 1)" for each in attributes
        )
        row = database.execute(f"SELECT {figures} FROM {dataset}").fetchall()[0]  # noqa: S608 - names of the schema
        shares |= {attribute_figure(dataset, each.name): share for each, share in zip(attributes, row, strict=True)}
    return dict(sorted(shares.items(), key=lambda share: -share[1]))


def _is_missing(attribute: Attribute) -> str:
    column = f'"{attribute.name}"'
    return f"coalesce(len({column}), 0) = 0" if attribute.kind is Kind.MULTI_VALUED else f"{column} IS NULL"
