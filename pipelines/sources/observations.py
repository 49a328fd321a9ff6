"""Items and users read off what event rows say of them, over everything that the lake holds.

So the whole of a source, and the same source in parts, in whatever order, give the same items and users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from pipelines.io.arrow import arrow_schema
from pipelines.io.sql_text import identifier, literal
from pipelines.sources.adapter import Reduction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from feature_repo.contracts.datasets import Dataset
    from pipelines.sources.adapter import Derived

_MEMORY = "1GB"


def reduce_observations(files: Sequence[Path], dataset: Dataset, derived: Sequence[Derived], scratch: Path) -> pa.Table:
    """Return the rows of `dataset` (items or users) that follow from observations.

    Args:
        files: partitions of the observations dataset.
        dataset: items or users.
        derived: the attributes of both.
        scratch: a folder for what does not fit in memory.
    """
    (key,) = dataset.key
    schema = arrow_schema(dataset)
    if not files:
        return schema.empty_table()
    owner = key.removesuffix("_id")
    mine = {each.target: each for each in derived if each.owner == owner}
    listed = ", ".join(literal(str(file)) for file in files)
    read = f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"  # noqa: S608 - quoted
    with duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(scratch / "spill")}) as database:
        database.execute(f"CREATE VIEW observations AS {read}")
        database.execute(f"CREATE TABLE found AS SELECT DISTINCT {key} FROM observations")  # noqa: S608 - a contract's column
        for each in mine.values():
            database.execute(f"CREATE TABLE {identifier(each.target)} AS {_reduced(key, each)}")
        joins = " ".join(f"LEFT JOIN {identifier(name)} USING ({key})" for name in mine)
        columns = ", ".join(_column(name, key, mine, schema) for name in dataset.column_names)
        rows = database.sql(f"SELECT {columns} FROM found {joins}").to_arrow_table()  # noqa: S608 - quoted
    return rows.cast(schema)


def _column(name: str, key: str, mine: dict[str, Derived], schema: pa.Schema) -> str:
    """Return one column of the result: its reduction, else what stands for nothing."""
    if name == key:
        return key
    value = f"{identifier(name)}.chosen" if name in mine else "NULL"
    if name == "title":
        return f"coalesce({value}, {key}) AS title"
    return (
        f"coalesce({value}, []) AS {identifier(name)}"
        if not schema.field(name).nullable
        else f"{value} AS {identifier(name)}"
    )


def _reduced(key: str, derived: Derived) -> str:
    """Return a query of `key` and `chosen`, one row for each key that has any value.

    Equal values are counted first: what is left fits in memory, and ties are broken by the value.
    """
    column = identifier(derived.column.name)
    is_empty = f"len({column}) = 0" if derived.column.length else "false"
    counted = (
        f"SELECT {key}, {column} AS chosen, count(*) AS number, max(event_time) AS latest FROM observations "  # noqa: S608 - quoted
        f"WHERE {column} IS NOT NULL AND NOT {is_empty} GROUP BY ALL"
    )
    match derived.reduction:
        case Reduction.LATEST:
            order = "latest DESC, chosen"
        case Reduction.MOST_COMMON:
            order = "number DESC, chosen"
        case Reduction.MEDIAN:
            return (
                f"SELECT {key}, min(chosen) AS chosen FROM (SELECT *, sum(number) OVER so_far AS below, "  # noqa: S608 - quoted
                f"sum(number) OVER (PARTITION BY {key}) AS total FROM ({counted}) "
                f"WINDOW so_far AS (PARTITION BY {key} ORDER BY chosen)) WHERE 2 * below >= total GROUP BY {key}"
            )
    return (
        f"SELECT {key}, chosen FROM (SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS place "  # noqa: S608 - quoted
        f"FROM ({counted})) WHERE place = 1"
    )
