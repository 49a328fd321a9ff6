"""A made-up log in a layout that `ingest` reads, or in Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipelines.sources.movielens_100k import MovieLens100K
from pipelines.sources.movielens_csv import MovieLensCsv
from pipelines.synthetic.catalogue import GENRES
from pipelines.synthetic.people import GENDERS, OCCUPATIONS
from pipelines.synthetic.scale import LogLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipelines.sources.layout import FileFormat
    from pipelines.synthetic.events import Block, Log

PARQUET_FILES = ("events.parquet", "items.parquet", "users.parquet")
_CSV_ROWS = 1 << 16
_TIME = pa.timestamp("us", tz="UTC")


def write_log(log: Log, folder: Path, layout: LogLayout) -> None:
    """Write a log's files to a folder; the same log gives the same bytes. Memory is that of one block of events."""
    _WRITERS[layout](log, folder)


def event_batches(log: Log) -> Iterator[pa.RecordBatch]:
    """Make the events with the columns of the lake, in the order of the users."""
    for block in log.blocks():
        yield _lake_events(block)


def item_table(log: Log) -> pa.Table:
    """Return the items: id, title, year of release, genres."""
    years = log.catalogue.years
    return pa.table(
        {
            "item_id": _ids(np.arange(len(years))),
            "title": pc.binary_join_element_wise("Film", _ids(np.arange(len(years))), " "),
            "release_year": pa.array(years, pa.int64()),
            "genres": _genre_lists(log.catalogue.genres),
        }
    )


def user_table(log: Log) -> pa.Table:
    """Return the users: id, age, gender, occupation."""
    people = log.people
    return pa.table(
        {
            "user_id": _ids(np.arange(len(people.ages))),
            "age": pa.array(people.ages, pa.int64()),
            "gender": pa.array(np.array(GENDERS)[people.genders], pa.string()),
            "occupation": pa.array(np.array(OCCUPATIONS)[people.occupations], pa.string()),
        }
    )


def _write_parquet(log: Log, folder: Path) -> None:
    events, items, users = PARQUET_FILES
    batches = event_batches(log)
    first = next(batches)
    with pq.ParquetWriter(folder / events, first.schema, compression="zstd") as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)
    pq.write_table(item_table(log), folder / items, compression="zstd")
    pq.write_table(user_table(log), folder / users, compression="zstd")


def _write_movielens_csv(log: Log, folder: Path) -> None:
    layout = MovieLensCsv()
    _write_events(log, folder, layout.events)
    items = item_table(log)
    rows = [items["item_id"], _titles(items), pc.binary_join(items["genres"].cast(pa.list_(pa.string())), "|")]
    _write_rows(pa.table(rows, names=list(layout.items.columns)), folder, layout.items)


def _write_movielens_100k(log: Log, folder: Path) -> None:
    layout = MovieLens100K()
    _write_events(log, folder, layout.events)
    items, users = item_table(log), user_table(log)
    flags = layout.items.columns[5:]
    has = {name: (log.catalogue.genres == number).any(axis=1) for number, name in enumerate(GENRES)}
    nothing = np.zeros(items.num_rows, dtype=bool)
    dates = pc.binary_join_element_wise("01-Jan-", items["release_year"].cast(pa.string()), "")
    blank = pa.array(np.full(items.num_rows, ""), pa.string())
    rows = [items["item_id"], _titles(items), dates, blank, blank]
    rows += [pa.array(has.get(name, nothing).astype(np.int8)) for name in flags]
    _write_rows(pa.table(rows, names=list(layout.items.columns)), folder, layout.items)
    zip_codes = pa.array(np.full(users.num_rows, "00000"), pa.string())
    _write_rows(users.append_column("zip", zip_codes), folder, layout.users)


_WRITERS: dict[LogLayout, Callable[[Log, Path], None]] = {
    LogLayout.MOVIELENS_CSV: _write_movielens_csv,
    LogLayout.MOVIELENS_100K: _write_movielens_100k,
    LogLayout.PARQUET: _write_parquet,
}


def _write_events(log: Log, folder: Path, form: FileFormat) -> None:
    """Write the events of a MovieLens layout: user, item, stars, seconds since 1970."""
    types = (pa.int64(), pa.int64(), pa.float32(), pa.int64())
    schema = pa.schema(zip(form.columns, types, strict=True))
    with pa_csv.CSVWriter(folder / form.suffix, schema, write_options=_options(form)) as writer:
        for block in log.blocks():
            stars = (block.half_stars / 2).astype(np.float32)
            columns = (block.users + 1, block.items + 1, stars, block.seconds)
            writer.write_batch(pa.record_batch([pa.array(column) for column in columns], schema=schema))


def _write_rows(rows: pa.Table, folder: Path, form: FileFormat) -> None:
    pa_csv.write_csv(rows, folder / form.suffix, write_options=_options(form))


def _options(form: FileFormat) -> pa_csv.WriteOptions:
    """Return how a layout's lines are cut. Nothing that is made up here needs quotes."""
    return pa_csv.WriteOptions(
        include_header=form.has_header,
        delimiter=form.separator,
        quoting_style="none",
        quoting_header="none",
        batch_size=_CSV_ROWS,
    )


def _lake_events(block: Block) -> pa.RecordBatch:
    count = len(block.users)
    return pa.record_batch(
        {
            "user_id": _ids(block.users),
            "item_id": _ids(block.items),
            "event_type": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), ["rating"]).cast(
                pa.string()
            ),
            "value": pa.array((block.half_stars / 2).astype(np.float32)),
            "event_time": pa.array(block.seconds * 1_000_000).cast(_TIME),
        }
    )


def _ids(numbers: np.ndarray) -> pa.Array:
    return pa.array(numbers + 1, pa.int64()).cast(pa.string())


def _titles(items: pa.Table) -> pa.ChunkedArray:
    years = items["release_year"].cast(pa.string())
    return pc.binary_join_element_wise(items["title"], pc.binary_join_element_wise("(", years, ")", ""), " ")


def _genre_lists(genres: np.ndarray) -> pa.Array:
    """Return the names of each item's genres as a list."""
    known = genres >= 0
    offsets = np.concatenate([[0], np.cumsum(known.sum(axis=1))]).astype(np.int32)
    names = pa.array(np.array(GENRES)[genres[known]], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), names, type=pa.list_(pa.field("element", pa.string(), False)))  # noqa: FBT003 - pyarrow's own positional flag
