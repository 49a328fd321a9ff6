"""Parquet as cells, in the types that the file has."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from pipelines.errors import SourceError
from pipelines.io.scratch import scratch_folder
from pipelines.io.sql_text import identifier, parquet
from pipelines.sources.cells import FAULT, Cells, nothing
from pipelines.sources.expressions import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipelines.sources.archive import SourceFile

_SHOWN = 120


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """A Parquet file, and which of its columns are wanted."""

    file: SourceFile
    columns: tuple[str, ...]
    missing: tuple[str, ...]

    def check(self) -> None:
        """Read the file's end, which says what it holds."""
        with duckdb.connect() as database, self._read() as read:
            kinds = _kinds(database, read)
            for column in self.columns:
                if column not in kinds:
                    there = ", ".join(kinds)[:_SHOWN]
                    msg = (
                        f"{self.file.name}: expected a column {column!r}, as the mapping says, received the columns "
                        f"{there}; {self.file.remedy_without(column)}"
                    )
                    raise SourceError(msg)
            if database.execute(f"SELECT 1 FROM {read} LIMIT 1").fetchall() == []:  # noqa: S608 - quoted
                msg = f"{self.file.name}: expected rows, received none"
                raise SourceError(msg)

    @contextmanager
    def cells(self, database: duckdb.DuckDBPyConnection) -> Iterator[Cells]:
        """Give the wanted columns; texts are trimmed, and empty ones null, as are numbers that are none."""
        with self._read() as read:
            kinds = _kinds(database, read)
            cells = {name: Cell(f"_c{number}", kinds[name], name) for number, name in enumerate(self.columns)}
            wanted = [f"{self._clean(identifier(name), cell)} AS {cell.sql}" for name, cell in cells.items()]
            faults = [f"CAST(NULL AS VARCHAR) AS {name}" for name in FAULT[1:]]
            query = f"SELECT file_row_number + 1 AS _line, {', '.join((*faults, *wanted))} FROM {read}"  # noqa: S608 - quoted
            yield Cells(query, cells)

    def _clean(self, name: str, cell: Cell) -> str:
        if cell.is_text:
            return nothing(f"trim({name})", self.missing)
        return f"CASE WHEN NOT isnan({name}) THEN {name} END" if cell.kind in {"FLOAT", "DOUBLE"} else name

    @contextmanager
    def _read(self) -> Iterator[str]:
        """Give the table function that reads the file; SourceError where it turns out to be damaged."""
        with self._on_disk() as path:
            try:
                yield parquet([path], "file_row_number = true", "binary_as_string = true")
            except (duckdb.IOException, duckdb.InvalidInputException, duckdb.SerializationException) as error:
                said = " ".join(str(error).split())[:300]
                if "No space left" in said:
                    raise
                msg = f"{self.file.name}: expected a whole Parquet file, received a damaged one ({said}); write it anew"
                raise SourceError(msg) from error

    @contextmanager
    def _on_disk(self) -> Iterator[Path]:
        """Give the file under a plain name, or a copy of one that is packed: Parquet is read from its end.

        A file may be called anything, and DuckDB reads a backslash as another slash.
        """
        with scratch_folder() as folder:
            plain = folder / "rows.parquet"
            if not self.file.is_packed:
                plain.symlink_to(self.file.path.absolute())
            else:
                with self.file.open() as packed, plain.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
            yield plain


def _kinds(database: duckdb.DuckDBPyConnection, read: str) -> dict[str, str]:
    """Return column → type."""
    rows = database.execute(f"DESCRIBE SELECT * EXCLUDE (file_row_number) FROM {read}").fetchall()  # noqa: S608 - quoted
    return {name: kind for name, kind, *_ in rows}
