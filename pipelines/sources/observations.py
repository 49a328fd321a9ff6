"""What event rows say of items and users, day by day, over everything that the lake holds.

A version is what had been said of an item or a user by the end of a day: a row for each day on which any of it changed,
and for the first. So whoever asks as of a time is told nothing that was said later, and the whole of a source, and the
same source in parts, in whatever order, give the same versions.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.contracts.schemas import Reduction
from pipelines.io.arrow import arrow_schema
from pipelines.io.sql_text import identifier, parquet
from pipelines.io.versions import newest_sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from feature_repo.contracts.datasets import Dataset
    from pipelines.sources.adapter import Derived

_MEMORY = "1GB"
_BATCH_ROWS = 1 << 16
_END_OF_DAY = "epoch_us(CAST(event_time AS DATE)::TIMESTAMP) + 86_399_999_999"
"""The last microsecond of an observation's day: when all that the day's rows say is known."""


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of items or users, in a database."""

    database: duckdb.DuckDBPyConnection
    dataset: Dataset

    def in_order_of_time(self) -> Iterator[pa.RecordBatch]:
        """Yield all of them as rows of the dataset, in order of time."""
        schema = arrow_schema(self.dataset)
        query = f"SELECT * FROM versions ORDER BY {EVENT_TIME.name}"  # noqa: S608 - a contract's column
        for batch in self.database.sql(query).to_arrow_reader(_BATCH_ROWS):
            yield batch.cast(schema)

    def newest(self, dataset: Dataset) -> pa.Table:
        """Return the last version of each, as rows of the undated dataset."""
        return self.database.sql(newest_sql("versions", dataset)).to_arrow_table().cast(arrow_schema(dataset))


@contextmanager
def read_off(files: Sequence[Path], dataset: Dataset, derived: Sequence[Derived], scratch: Path) -> Iterator[Versions]:
    """Give the versions of items or users that follow from observations.

    Args:
        files: partitions of the observations dataset, at least one.
        dataset: the versions of items or of users.
        derived: the attributes of both.
        scratch: a folder for what does not fit in memory.
    """
    key = dataset.key[0]
    mine = {each.target: each for each in derived if each.owner == key.removesuffix("_id")}
    with duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(scratch / "spill")}) as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(
            f"CREATE VIEW observations AS SELECT *, {_END_OF_DAY} AS _stamp "  # noqa: S608 - quoted
            f"FROM {parquet(files)}"
        )
        for each in mine.values():
            database.execute(f"CREATE TABLE {identifier(_changes_of(each.target))} AS {_changes(key, each)}")
        database.execute(f"CREATE TABLE versions AS {_versions(dataset, mine)}")
        yield Versions(database, dataset)


def _versions(dataset: Dataset, mine: dict[str, Derived]) -> str:
    """Return a query of the dataset's rows: each attribute as of the days on which any of them changes."""
    key = dataset.key[0]
    first = f"SELECT {key}, min(_stamp) AS _stamp FROM observations GROUP BY {key}"  # noqa: S608 - a contract's column
    changes = (f"SELECT {key}, _stamp FROM {identifier(_changes_of(name))}" for name in mine)  # noqa: S608 - quoted
    joins = " ".join(f"LEFT JOIN {identifier(_changes_of(name))} USING ({key}, _stamp)" for name in mine)
    schema = arrow_schema(dataset)
    columns = ", ".join(
        _column(field.name, key, is_derived=field.name in mine, nullable=field.nullable) for field in schema
    )
    return (
        f"SELECT {columns} FROM ({' UNION '.join([first, *changes])}) {joins} "  # noqa: S608 - quoted
        f"WINDOW so_far AS (PARTITION BY {key} ORDER BY _stamp)"
    )


def _column(name: str, key: str, *, is_derived: bool, nullable: bool) -> str:
    """Return one column of the versions: what was said last, else what stands for nothing."""
    if name == key:
        return key
    if name == EVENT_TIME.name:
        return f"make_timestamptz(_stamp) AS {name}"
    value = f"last_value({identifier(_changes_of(name))}.chosen IGNORE NULLS) OVER so_far" if is_derived else "NULL"
    if name == "title":
        return f"coalesce({value}, {key}) AS title"
    return f"{value} AS {identifier(name)}" if nullable else f"coalesce({value}, []) AS {identifier(name)}"


def _changes_of(attribute: str) -> str:
    """Return the name of the table of an attribute's changes: no attribute's, which begins with a letter."""
    return f"_{attribute}"


def _changes(key: str, derived: Derived) -> str:
    """Return a query of `key`, `_stamp` and `chosen`: a row for each day by whose end the reduction is another."""
    return (
        f"SELECT {key}, _stamp, chosen FROM (SELECT *, lag(chosen) OVER (PARTITION BY {key} ORDER BY _stamp) AS before "  # noqa: S608 - quoted
        f"FROM ({_reduced(key, derived)})) WHERE chosen IS DISTINCT FROM before"
    )


def _reduced(key: str, derived: Derived) -> str:
    """Return a query of `key`, `_stamp` and `chosen`: the reduction of all values by the end of each day that has any.

    Each is one pass over sorted rows; ties are broken by the value.
    """
    column = identifier(derived.column.name)
    is_empty = f"len({column}) = 0" if derived.column.length else "false"
    values = f"FROM observations WHERE {column} IS NOT NULL AND NOT {is_empty}"
    so_far = f"OVER (PARTITION BY {key} ORDER BY _stamp)"
    match derived.reduction:
        case Reduction.LATEST:
            latest = f"min(struct_pack(age := -epoch_us(event_time), chosen := {column})).chosen"
            return f"SELECT {key}, _stamp, {latest} AS chosen {values} GROUP BY ALL"
        case Reduction.MOST_COMMON:
            # A value's number grows only on days that have it, so the most common of all is the best that any day's
            # own values have come to.
            daily = f"SELECT {key}, _stamp, {column} AS chosen, count(*) AS times {values} GROUP BY ALL"
            number = f"sum(times) OVER (PARTITION BY {key}, chosen ORDER BY _stamp)"
            best = "min(struct_pack(number := -number, chosen := chosen))"
            return (
                f"SELECT DISTINCT {key}, _stamp, ({best} {so_far}).chosen AS chosen "  # noqa: S608 - quoted
                f"FROM (SELECT {key}, _stamp, chosen, {number} AS number FROM ({daily}))"
            )
        case Reduction.MEDIAN:
            # Of an even number the discrete quantile is the lower of the two; rows of one day are peers.
            return f"SELECT DISTINCT {key}, _stamp, quantile_disc({column}, 0.5) {so_far} AS chosen {values}"
