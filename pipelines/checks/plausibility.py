"""Attributes that can be read, and are hardly meant as they were declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from feature_repo.contracts.schemas import Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from feature_repo.contracts.schemas import Attribute, Schema

_ROWS_AT_LEAST = 20
"""Of fewer rows nothing can be told."""


def implausible_attributes(schema: Schema, items: pa.Table, users: pa.Table) -> list[str]:
    """Return a sentence for each multi-valued attribute with more terms than rows: free text, or another separator."""
    return [
        warning
        for owner, rows, attributes in (
            ("item", items, schema.item_attributes),
            ("user", users, schema.user_attributes),
        )
        for attribute in attributes
        if (warning := _implausible(owner, rows, attribute))
    ]


def _implausible(owner: str, rows: pa.Table, attribute: Attribute) -> str:
    if attribute.kind is not Kind.MULTI_VALUED or rows.num_rows < _ROWS_AT_LEAST:
        return ""
    terms = pc.count_distinct(pc.list_flatten(rows.column(attribute.name))).as_py()
    if terms <= rows.num_rows:
        return ""
    return (
        f"{owner} attribute {attribute.name}: expected terms that several {owner}s share, received {terms:,} different "
        f"ones in {rows.num_rows:,} rows; is it text, or is the separator another one?"
    )
