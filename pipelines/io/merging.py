"""Rows into a partition that has some already: by the key, the new ones in place of the old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.io.arrow import arrow_schema

if TYPE_CHECKING:
    from feature_repo.contracts.datasets import Dataset


def upserted(rows: pa.Table, onto: pa.Table, dataset: Dataset) -> pa.Table:
    """Return `onto` with `rows` in place of, or beside, the rows of the same keys; in no particular order."""
    schema = arrow_schema(dataset)
    rows, onto = (table.select(dataset.column_names).cast(schema) for table in (rows, onto))
    if not onto.num_rows or not rows.num_rows:
        return rows if rows.num_rows else onto
    key = list(dataset.key)
    # Lists cannot travel through Arrow's join: the rows to keep are found by their place.
    places = onto.select(key).append_column("place", pa.array(range(onto.num_rows), pa.int64()))
    kept = places.join(rows.select(key), keys=key, join_type="left anti").column("place")
    return pa.concat_tables([onto.take(kept), rows])
