"""Names, texts and files, as SQL has them."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

from feature_repo.contracts.ids import CUT_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def identifier(name: str) -> str:
    """Quote a column or table name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string."""
    return "'" + text.replace("'", "''") + "'"


def without_surroundings(text: str) -> str:
    """Return SQL for a text without the white space around it, as `contracts.ids.cut` cuts it."""
    return f"regexp_replace({text}, {literal(CUT_PATTERN)}, '', 'g')"


def parquet(files: Iterable[Path], *options: str) -> str:
    """Return a table of the rows of some Parquet files, at least one, as DuckDB reads it.

    A path is a path: what looks like a pattern in it finds nothing else, and a folder `rating=1` is no column.
    """
    return parquet_like((glob.escape(str(file)) for file in files), *options)


def parquet_like(patterns: Iterable[str], *options: str) -> str:
    """Return a table of the Parquet files that patterns find, whose folders' names are no columns."""
    listed = ", ".join(map(literal, patterns))
    return f"read_parquet([{listed}], {', '.join(('hive_partitioning = false', *options))})"
