"""Features for rows, through Feast, streamed, with every gap filled as the contracts declare."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.feast_store.registry import quiet_output
from pipelines.io.arrow import arrow_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from feast import FeatureService, FeatureStore

    from feature_repo.contracts.columns import Column


@contextmanager
def retrieve(
    store: FeatureStore, features: FeatureService | Sequence[str], rows: str, columns: Sequence[Column]
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Stream rows with the latest features strictly before each row's `event_timestamp`.

    Args:
        store: The namespace's feature store.
        features: A registered service, or references `view:feature`.
        rows: A DuckDB query with `example_id`, `event_timestamp`, the entities' keys and whatever else shall be kept.
        columns: What the batches shall hold, in this order; nulls become each column's `missing`.

    Yields:
        Batches in the order of `example_id`, as many rows as the query has.
    """
    with quiet_output():
        job = store.get_historical_features(rows, features if not isinstance(features, tuple) else list(features))
    with job.reader() as reader:
        yield filled(reader, columns)


def filled(batches: Iterable[pa.RecordBatch], columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """Yield batches of exactly `columns`, in the contracts' types, with `missing` in place of null."""
    schema = pa.schema([pa.field(column.name, arrow_type(column), nullable=column.nullable) for column in columns])
    for batch in batches:
        arrays = [fill_missing(batch.column(column.name), column) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def fill_missing(values: pa.Array, column: Column) -> pa.Array:
    """Return `values` in the column's type, with `missing` in place of null; a list gets `length` times `missing`."""
    values = values.cast(arrow_type(column))
    if not values.null_count or column.nullable:
        return values
    if column.missing is None:
        msg = f"column {column.name}: expected a value in every row, received {values.null_count} nulls"
        raise ValueError(msg)
    missing = [column.missing] * max(column.length, 0) if column.length else column.missing
    return pc.coalesce(values, pa.scalar(missing, arrow_type(column)))
