"""The vectors of a snapshot as feature tables: what Feast takes to the online store."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from feature_repo.contracts.embeddings import VECTOR, embeddings_named
from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import read_schema
from pipelines.embeddings.snapshots import WRITER
from pipelines.features.tables import feature_table
from pipelines.io.lake import UNDIVIDED

if TYPE_CHECKING:
    from datetime import datetime

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace
    from pipelines.io.lake import StoredTable
    from pipelines.settings import Settings


def embedding_table(place: Namespace, group: FeatureGroup) -> StoredTable:
    """Return the table of an item or user group of a kind."""
    return feature_table(place, group, WRITER)


def write_embedding_table(place: Namespace, group: FeatureGroup, cutoff: datetime, vectors: pa.Table, fit: str) -> None:
    """Replace a group's rows: one per entity that has a vector, stamped as of the cutoff.

    Args:
        place: The namespace.
        group: `item_group` or `user_group` of a kind.
        cutoff: Exclusive end of what the vectors know.
        vectors: The entity's id, and VECTOR.
        fit: SHA-256 of the snapshot that they belong to.
    """
    vector, fitted = group.features
    stamp = pa.scalar(cutoff - timedelta(microseconds=1), pa.timestamp("us", tz="UTC"))
    rows = pa.table(
        {
            group.entity.name: vectors.column(group.entity.name),
            "event_time": pa.repeat(stamp, vectors.num_rows),
            vector.name: vectors.column(VECTOR.name),
            fitted.name: pa.repeat(pa.scalar(fit), vectors.num_rows),
        }
    )
    with embedding_table(place, group).rewriting() as writer:
        writer.add(UNDIVIDED, rows)


def online_tables(settings: Settings, place: Namespace) -> list[tuple[FeatureGroup, StoredTable]]:
    """Return what the online store is filled from: every feature group, and those of the kinds that are fitted here."""
    groups = [(group, feature_table(place, group)) for group in declared(read_schema(place)).groups]
    kinds = embeddings_named(settings.embedding_names)
    vectors = [group for kind in kinds for group in (kind.item_group, kind.user_group)]
    return [*groups, *((group, embedding_table(place, group)) for group in vectors)]
