"""What the data benchmark works on: made-up logs, and a namespace whose lake holds one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.datasets import EVENT_TIME, EVENTS, items_dataset, users_dataset
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, ITEM2VEC, VECTOR
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS, write_schema
from infra.bench.data_features import write_item_codes
from pipelines.embeddings.tables import write_embedding_table
from pipelines.io.arrow import arrow_type
from pipelines.io.days import by_day
from pipelines.io.duck import duckdb_session
from pipelines.io.lake import UNDIVIDED, partition_name, stored_dataset
from pipelines.io.sql_text import parquet
from pipelines.synthetic.events import make_log
from pipelines.synthetic.files import PARQUET_FILES, write_log
from pipelines.synthetic.scale import LogLayout, LogScale

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_MEMORY = "4GB"
_BATCH_ROWS = 1 << 17
_SEED = 1
_NO_FIT = "0" * 64


@dataclass(frozen=True, slots=True)
class BenchLog:
    """A log in Parquet, and what the engines need beside it."""

    scale: LogScale
    folder: Path

    @property
    def events(self) -> Path:
        """The events' file."""
        return self.folder / PARQUET_FILES[0]

    @property
    def cutoff(self) -> str:
        """As of when features are computed: the log's end, as a date."""
        return f"{self.scale.end:%Y-%m-%d}"


def write_bench_log(scale: LogScale, folder: Path) -> BenchLog:
    """Make up a log, and the codes of its items."""
    folder.mkdir(parents=True)
    write_log(make_log(scale), folder, LogLayout.PARQUET)
    genres = write_item_codes(folder / PARQUET_FILES[1], folder / "codes.parquet")
    (folder / "genres.json").write_text(json.dumps(genres), encoding="utf-8")
    return BenchLog(scale, folder)


def write_vectors(place: Namespace, cutoff: datetime) -> None:
    """Give every item and user a vector, as `embeddings` would in a much longer time: what is measured is their way."""
    for group, dataset in ((ITEM2VEC.item_group, items_dataset), (ITEM2VEC.user_group, users_dataset)):
        ids = stored_dataset(place, dataset(MOVIELENS)).snapshot().read().select([group.entity.name])
        numbers = np.random.default_rng(_SEED).standard_normal((ids.num_rows, EMBEDDING_SIZE), dtype=np.float32)
        numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), EMBEDDING_SIZE)
        rows = ids.append_column(VECTOR.name, vectors.cast(arrow_type(VECTOR)))
        write_embedding_table(place, group, cutoff, rows, _NO_FIT)


def write_lake(log: BenchLog, state: Path, name: str) -> Namespace:
    """Put a log into the lake of a namespace, as ingestion would, without its checks."""
    place = Namespace(state, name)
    write_schema(place, MOVIELENS)
    order = ", ".join(EVENTS.sort)
    with duckdb_session(_MEMORY) as connection, stored_dataset(place, EVENTS).rewriting() as writer:
        stream = connection.sql(f"SELECT * FROM {parquet([log.events])} ORDER BY {order}")  # noqa: S608 - the benchmark's own path
        for day, rows in by_day(stream.to_arrow_reader(_BATCH_ROWS), EVENT_TIME.name):
            writer.add(partition_name(day), rows)
    tables = ((items_dataset(MOVIELENS), PARQUET_FILES[1]), (users_dataset(MOVIELENS), PARQUET_FILES[2]))
    for dataset, file in tables:
        with stored_dataset(place, dataset).rewriting() as writer:
            writer.add(UNDIVIDED, pq.read_table(log.folder / file, partitioning=None))
    return place
