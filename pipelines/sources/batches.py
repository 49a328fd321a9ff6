"""Arrow batches made by Python, given to DuckDB."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def registered(
    database: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> Iterator[None]:
    """Let queries of the block read `batches` under `name`, once; an error of the source comes out as it was raised."""
    failure: list[BaseException] = []
    database.register(name, pa.RecordBatchReader.from_batches(schema, _keeping(failure, batches)))
    try:
        yield
    except duckdb.Error as error:
        if failure:
            raise failure[0] from error
        raise
    finally:
        database.unregister(name)


def _keeping(failure: list[BaseException], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pass batches on, keeping an error, which DuckDB would turn into one of its own."""
    try:
        yield from batches
    except Exception as error:
        failure.append(error)
        raise
