"""What was known at a moment of the past and is in no feature table: what only Redis has of users, and item vectors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.datasets import EVENT_TIME, USER_ID
from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.locks import exclusive
from pipelines.embeddings.kinds import fit_items_if_any
from pipelines.embeddings.likes import liked_events, liked_often
from pipelines.embeddings.side_information import NOTHING_SAID, side_information
from pipelines.embeddings.snapshots import write_item_embeddings
from pipelines.features.groups import Inputs, compute
from pipelines.io.spark import read_files, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from pyspark.sql import SparkSession

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.embeddings.snapshots import ItemEmbeddings
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings


@dataclass(frozen=True, slots=True)
class Sources:
    """What questions are made from."""

    settings: Settings
    place: Namespace
    schema: Schema
    lake: tuple[Snapshot, ...]
    """Events, items, users, and relations where the schema has them."""
    tables: Mapping[str, Snapshot]
    """Feature view → its table, of the groups of users and items that are served."""

    @property
    def events(self) -> Snapshot:
        """The events before the cutoff."""
        return self.lake[0]

    @property
    def items(self) -> Snapshot:
        """The items, or their versions."""
        return self.lake[1]

    @property
    def checksums(self) -> dict[str, str]:
        """What determines the content, beside settings and origins."""
        names = {snapshot.dataset.name: snapshot.checksum for snapshot in self.lake}
        return names | {view: table.checksum for view, table in self.tables.items()}


@dataclass(frozen=True, slots=True)
class AsOf:
    """What Spark computes as of one moment."""

    sources: Sources
    inputs: Inputs
    scratch: Path

    @property
    def cutoff(self) -> datetime:
        """The moment."""
        return self.inputs.cutoff

    def latest(self, group: FeatureGroup, users: pa.Array) -> pa.Table:
        """Return the rows of a group that holds the latest state only, of some users."""
        file = self.scratch / "users.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({USER_ID.name: users}), file)
        wanted = read_files(self.inputs.events.sparkSession, [file])
        rows = compute(group, self.inputs).join(wanted, on=USER_ID.name, how="left_semi")
        columns = [USER_ID.name, EVENT_TIME.name, *(column.name for column in group.features)]
        return rows.select(*columns).toArrow()

    def vectors(self) -> dict[str, ItemEmbeddings]:
        """Fit every kind of embedding on what was liked before, as dated snapshots; return kind → record."""
        settings, place = self.sources.settings, self.sources.place
        kinds = embeddings_named(settings.embedding_names)
        asks = any(kind.side_information for kind in kinds)
        side = side_information(self.sources.items.read(), self.sources.schema, self.cutoff) if asks else NOTHING_SAID
        liked = liked_events(self.inputs.known, self.sources.schema.positive)
        records = {}
        with exclusive(place.locks / "embeddings.lock", f"embeddings of namespace {place.name}"):
            for kind in kinds:
                often = liked_often(liked, kind.skip_gram.least_likes).cache()
                rows = fit_items_if_any(kind, often, side, self.scratch / kind.name)
                records[kind.name] = write_item_embeddings(place, kind, self.cutoff, rows)
                often.unpersist()
        return records


@contextmanager
def as_of(sources: Sources, spark: SparkSession, moment: datetime, scratch: Path) -> Iterator[AsOf]:
    """Give what was known before a moment; the events, which lie in many small files, are read once."""
    events, items, users, *relations = (read_snapshot(spark, each) for each in sources.lake)
    known = events.where(F.col(EVENT_TIME.name) < F.lit(moment)).cache()
    try:
        yield AsOf(sources, Inputs(sources.schema, known, items, users, moment, None, *relations), scratch)
    finally:
        known.unpersist()
