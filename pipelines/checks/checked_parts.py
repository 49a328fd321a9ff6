"""A small table's files, judged in DuckDB one after another, and what came of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.checks.judging import judged, refused_rows
from pipelines.io.arrow import arrow_schema
from pipelines.io.sql_text import literal
from pipelines.sources.adapter import CheckedTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from feature_repo.contracts.datasets import Dataset
    from pipelines.checks.judging import Check
    from pipelines.sources.adapter import TypedPart


def judge_parts(
    database: duckdb.DuckDBPyConnection, parts: Sequence[TypedPart], checks: Sequence[Check], kept: Sequence[str]
) -> None:
    """Make the table `checked`: the number of the file, the line, the columns `kept`, and why a row is refused."""
    for number, part in enumerate(parts):
        with part.typed(database) as typed:
            rows = judged(typed, checks, [f"{number} AS _part", "_line", *kept])
            database.execute(f"INSERT INTO checked {rows}" if number else f"CREATE TABLE checked AS {rows}")


def checked_table(
    database: duckdb.DuckDBPyConnection, parts: Sequence[TypedPart], dataset: Dataset, passed: str
) -> CheckedTable:
    """Return what came of the rows of `checked`; `passed` is a query of those that passed, as rows of the dataset."""
    cases = " ".join(f"WHEN {number} THEN {literal(part.file)}" for number, part in enumerate(parts))
    refused = refused_rows(database, "checked", f"CASE _part {cases} END")
    counts = dict(database.execute("SELECT _part, count(*) FROM checked GROUP BY _part").fetchall())
    accepted = database.sql(passed).to_arrow_table().select(dataset.column_names).cast(arrow_schema(dataset))
    return CheckedTable(accepted, refused, {part.file: counts.get(number, 0) for number, part in enumerate(parts)})
