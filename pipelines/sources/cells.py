"""The cells of a file's rows, as a query: what every format comes to before the mapping gives them a meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipelines.io.sql_text import without_surroundings
from pipelines.sources.expressions import Cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import duckdb

    from pipelines.sources.found import Found

FAULT = ("_line", "_fault", "_fault_column", "_fault_expected", "_fault_received")
"""What a query of cells has beside them."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A query of `FAULT` and the cells, and where each of the source's columns is in it."""

    query: str
    by_column: Mapping[str, Cell]

    def __getitem__(self, column: str) -> Cell:
        """Return the cell of one of the source's columns."""
        return self.by_column[column]


class Rows(Protocol):
    """A file in one of the formats."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are wanted of it."""

    def found(self) -> Found:
        """Look at its beginning; SourceError for a fault that no single row is to blame for."""

    def cells(self, database: duckdb.DuckDBPyConnection) -> AbstractContextManager[Cells]:
        """Give its rows, null where it has no such column; valid within the block, read once."""


def text_cells(
    rows: str, columns: Sequence[str], missing: Sequence[str], *, is_json: bool = False, decimal: str = "."
) -> Cells:
    """Return cells of texts: `rows` has them as r0, r1 ... in the order of `columns`. They are trimmed; "" is null."""
    found = {
        name: (f"_c{number}", Cell(without_surroundings(f"r{number}"), "VARCHAR", name, missing=tuple(missing)))
        for number, name in enumerate(columns)
    }
    texts = [f"{raw.given} AS {sql}" for sql, raw in found.values()]
    query = f"SELECT {', '.join((*FAULT, *texts))} FROM ({rows})"  # noqa: S608 - names made here
    cells = {name: Cell(sql, "VARCHAR", name, is_json, decimal, raw.missing) for name, (sql, raw) in found.items()}
    return Cells(query, cells)
