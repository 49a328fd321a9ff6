"""Parquet feature tables as DuckDB reads them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import FileSource

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.sources import files_of
from pipelines.feast_store.errors import FeatureTableMissingError, RepeatedFeatureRowError
from pipelines.io.sql_text import identifier, parquet_like

if TYPE_CHECKING:
    from feast.data_source import DataSource

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace


def microseconds(column: str) -> str:
    """Return a time column in microseconds since 1970, as SQL. A time without a zone is UTC."""
    return f"epoch_us({identifier(column)}::TIMESTAMPTZ)"


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """The files of one feature view, and the columns by which its rows are found."""

    view: str
    pattern: str
    """Which Parquet files are its own: a path with `*` for the partitions, as `glob.escape` writes the rest."""
    keys: tuple[str, ...]
    time: str
    """The event time's column. With or without a time zone: without one it is UTC."""

    @classmethod
    def of_source(cls, source: DataSource, view: str, keys: tuple[str, ...], repo_path: str) -> FeatureTable:
        """Describe a Feast file source; TypeError for any other source or format, and for renamed columns."""
        if not isinstance(source, FileSource) or not isinstance(source.file_format, ParquetFormat):
            msg = f"feature view {view}: expected a FileSource with file_format=ParquetFormat(), received {source!r}"
            raise TypeError(msg)
        if source.field_mapping:
            msg = f"feature view {view}: field_mapping is not supported, name the columns of the table as the features"
            raise TypeError(msg)
        return cls(view, os.path.join(repo_path, source.path), keys, source.timestamp_field)  # noqa: PTH118 - a pattern

    @classmethod
    def of_group(cls, place: Namespace, group: FeatureGroup) -> FeatureTable:
        """Describe the table of a feature group in a namespace."""
        return cls(group.view_name, files_of(group, place), (group.entity.name,), EVENT_TIME.name)

    @property
    def sql(self) -> str:
        """The rows as a table expression. The partitions' `event_date` is left in the path: it is no feature."""
        return parquet_like([self.pattern])

    @property
    def time_us(self) -> str:
        """The event time in microseconds since 1970 in UTC, as SQL."""
        return microseconds(self.time)

    @property
    def files(self) -> list[Path]:
        """The files that the pattern finds, in the order of their names."""
        return sorted(Path("/").glob(self.pattern.lstrip("/")))

    @property
    def no_files(self) -> str:
        """What to say where the pattern finds none."""
        return (
            f"feature view {self.view}: expected Parquet files at {self.pattern}, found none; "
            "run 'python -m pipelines features' for this namespace first"
        )

    def repeated_row(self, received: str) -> str:
        """Return what to say of two rows of one key and time."""
        return (
            f"feature view {self.view}: expected one row for each {self.keys} and {self.time}, received {received} "
            f"in {self.pattern}; run the features job again"
        )

    def check(self, connection: duckdb.DuckDBPyConnection, before_us: int | None = None) -> None:
        """Refuse a table that has no files, or two rows of one key and time (before `before_us`, if given)."""
        keys = ", ".join(identifier(key) for key in self.keys)
        bound = "" if before_us is None else f"WHERE {self.time_us} < {before_us}"
        query = (
            f"SELECT {keys}, {identifier(self.time)}::VARCHAR, count(*) FROM {self.sql} {bound}"  # noqa: S608 - quoted
            f" GROUP BY {keys}, {identifier(self.time)} HAVING count(*) > 1 ORDER BY ALL LIMIT 1"
        )
        try:
            repeated = connection.execute(query).fetchall()
        except duckdb.IOException as error:
            if self.files:
                raise
            raise FeatureTableMissingError(self.no_files) from error
        if repeated:
            *key, time, count = repeated[0]
            raise RepeatedFeatureRowError(self.repeated_row(f"{count} for {key} at {time}"))
