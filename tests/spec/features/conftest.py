"""One Spark session for all feature specifications, and the way from Python rows through the real transforms."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import EVENTS, RELATIONS, items_dataset, users_dataset
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import MOVIELENS
from pipelines.features.tables import feature_dataset
from pipelines.io.arrow import conform
from pipelines.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.schemas import Schema

BASE = datetime(1998, 1, 1, tzinfo=UTC)
CUTOFF = BASE + timedelta(days=2)
Rows = list[dict[str, Any]]
Compute = Callable[..., pa.Table]


class SharedSession:
    """One session for all tests; a new one where a job that ran in this process has ended it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self._session: SparkSession | None = None

    def live(self) -> SparkSession:
        from pipelines.io.spark import spark_session

        if self._session is None or self._session.sparkContext._jsc is None:
            self.close()
            self._session = self._stack.enter_context(spark_session(self._settings, "specifications"))
        return self._session

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def shared_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedSession]:
    state: Path = tmp_path_factory.mktemp("state")
    shared = SharedSession(Settings(state=state, spark_master="local[2]", spark_driver_memory="1g"))
    yield shared
    shared.close()


@pytest.fixture
def spark(shared_session: SharedSession) -> SparkSession:
    return shared_session.live()


@pytest.fixture
def compute_group(spark: SparkSession) -> Compute:
    """Run a group's real transform on rows and return what would be stored."""
    from pipelines.features.groups import Inputs, compute
    from pipelines.io.spark import spark_schema

    def run(
        group: FeatureGroup,
        events: Rows,
        items: Rows,
        users: Rows | None = None,
        *,
        cutoff: datetime = CUTOFF,
        start: datetime | None = None,
        schema: Schema = MOVIELENS,
        relations: Rows | None = None,
    ) -> pa.Table:
        event_rows, item_rows, user_rows, relation_rows = (
            spark.createDataFrame(
                [tuple(_typed(row[column.name], column) for column in dataset.columns) for row in rows],
                spark_schema(dataset),
            )
            for dataset, rows in (
                (EVENTS, events),
                (items_dataset(schema), items),
                (users_dataset(schema), users or []),
                (RELATIONS, relations or []),
            )
        )
        inputs = Inputs(schema, event_rows, item_rows, user_rows, cutoff, start, relation_rows)
        table = compute(group, inputs).toArrow()
        return conform(table, feature_dataset(group))

    return run


@pytest.fixture
def compute_vectors(spark: SparkSession, tmp_path: Path) -> Compute:
    """Take drawn item vectors through snapshot, user vectors and feature table; return what is stored.

    The snapshot's checksum reads as "snapshot".
    """
    from feature_repo.contracts.embeddings import EMBEDDINGS
    from feature_repo.contracts.features import LAST_ITEMS
    from pipelines.embeddings.snapshots import write_item_embeddings
    from pipelines.embeddings.tables import embedding_table, write_embedding_table
    from pipelines.embeddings.user_vectors import last_liked, user_vectors
    from pipelines.io.spark import spark_schema

    def run(group: FeatureGroup, vectors: pa.Table, events: Rows, cutoff: datetime) -> pa.Table:
        (kind,) = (kind for kind in EMBEDDINGS.values() if group in (kind.item_group, kind.user_group))
        place = Namespace(tmp_path, "drawn")
        snapshot = write_item_embeddings(place, kind, cutoff, vectors)
        if group == kind.user_group:
            known = [tuple(row[name] for name in EVENTS.column_names) for row in events if row["event_time"] < cutoff]
            lasts = last_liked(spark.createDataFrame(known, spark_schema(EVENTS)), MOVIELENS, LAST_ITEMS)
            vectors = user_vectors(lasts, place.root / snapshot.item_embeddings).toArrow()
        write_embedding_table(place, group, cutoff, vectors, snapshot.sha256)
        stored = embedding_table(place, group).snapshot().read()
        name = group.features[1].name
        named = pc.replace_substring(stored.column(name), snapshot.sha256, "snapshot")
        return stored.set_column(stored.column_names.index(name), name, named)

    return run


def event(user: str, item: str, value: float, second: float) -> dict[str, Any]:
    """Return a rating `second` seconds after BASE."""
    time = BASE + timedelta(seconds=second)
    return {"user_id": user, "item_id": item, "event_type": "rating", "value": value, "event_time": time}


def item(item_id: str, year: int | None = None, genres: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an item."""
    return {"item_id": item_id, "title": item_id, "release_year": year, "genres": list(genres)}


def _typed(value: Any, column: Column) -> Any:
    """Return a number as Spark wants it for the column's type."""
    return float(value) if column.dtype is Dtype.FLOAT32 and value is not None else value
