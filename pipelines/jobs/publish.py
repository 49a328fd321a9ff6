"""Job: catalogue and snapshot of the online side, and the pointer to them."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.columns import definition_hash
from feature_repo.contracts.datasets import EVENT_TIME, ITEM_ID, Dataset, items_dataset, known_items_dataset
from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.contracts.features import Declared, declared
from feature_repo.contracts.intervals import feast_project, format_cutoff
from feature_repo.contracts.manifests import CATALOGUE, OnlineSnapshot, catalogue_part, views_part
from feature_repo.contracts.places import MANIFEST, cutoff_name
from feature_repo.contracts.publishing import file_sha256, publishing_directory, remove_abandoned
from feature_repo.contracts.schemas import read_schema
from pipelines.channels.fitting import find_channels
from pipelines.embeddings.snapshots import find_item_embeddings
from pipelines.embeddings.tables import online_tables
from pipelines.errors import JobError
from pipelines.feast_store.online_cutoff import Materialized, online_lock, read_materialized, refuse_superseded
from pipelines.feast_store.registry import check_registered
from pipelines.feast_store.retrieval import retrieve
from pipelines.feast_store.store import offline_engine, open_store
from pipelines.io.arrow import arrow_schema, conform, content_sha256
from pipelines.io.lake import stored_dataset
from pipelines.io.sql_text import literal, parquet
from pipelines.io.versions import known_sql

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from feast import FeatureStore

    from feature_repo.contracts.places import Namespace
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_FILE = "catalogue.parquet"


def catalogue_dataset(features: Declared) -> Dataset:
    """Return the table of every item with its latest features."""
    return Dataset(
        name="catalogue",
        columns=(
            *items_dataset(features.schema).columns,
            *(column for group in features.items for column in group.features),
            *(group.time_column for group in features.items if group.ttl_days),
        ),
        key=(ITEM_ID.name,),
        sort=(ITEM_ID.name,),
        partitioned_by_event_date=False,
        meaning="Every item with its latest features, for the recommender's memory",
    )


def run(settings: Settings, place: Namespace, cutoff: datetime) -> dict[str, object]:
    """Publish what the online side serves as of `cutoff`; the same content is the same snapshot.

    Raises:
        SupersededError: A later cutoff is online; nothing was changed.
        JobError: Redis was not filled from the tables as they are now, or embeddings or channels were not fitted for
            this cutoff.
    """
    features = declared(read_schema(place))
    with online_lock(place):
        refuse_superseded(place, cutoff)
        with ExitStack() as stack:
            known = stored_dataset(place, known_items_dataset(features.schema))
            items = stack.enter_context(known.reading(before=cutoff))
            online = online_tables(settings, place)
            tables = {group.view_name: stack.enter_context(table.reading(before=cutoff)) for group, table in online}
            done = _materialized(place, cutoff, {view: table.checksum for view, table in tables.items()})
            stack.enter_context(offline_engine(settings, f"publish {place.name}"))
            store = open_store(settings, place)
            check_registered(store, place)
            files = {view: table.files for view, table in tables.items()}
            catalogue = read_catalogue(store, features, items, cutoff, files)
            views = {group.name: group.view_name for group, _ in online}
            kinds = embeddings_named(settings.embedding_names)
            embeddings = {kind.name: find_item_embeddings(place, kind, cutoff) for kind in kinds}
            fitted = find_channels(place, features.schema, cutoff)
        users = done.rows[features.user_history.view_name]
        moment = format_cutoff(cutoff)
        parts = (
            catalogue_part(moment, "", content_sha256(catalogue)),
            views_part(moment, views),
            *(record.part(name, moment, features.schema) for name, record in embeddings.items()),
            *fitted.values(),
        )
        snapshot = OnlineSnapshot(
            namespace=place.name,
            schema=features.schema.to_json(),
            cutoff=moment,
            feast_project=feast_project(place.name),
            users=users,
            items=catalogue.num_rows,
            parts={part.name: part for part in parts},
        )
        name = _publish(place, cutoff, snapshot, catalogue)
    _LOG.info("snapshot %s: %d items, %d users", name, catalogue.num_rows, users)
    return {"snapshot": name}


def read_catalogue(
    store: FeatureStore, declaration: Declared, items: Snapshot, cutoff: datetime, tables: Mapping[str, list[Path]]
) -> pa.Table:
    """Return every item with its latest features before `cutoff`, in the order of the ids; no features: `missing`.

    Args:
        store: The namespace's feature store.
        declaration: The namespace's feature groups.
        items: The items, or their versions before `cutoff`, of which the last count.
        cutoff: As of when.
        tables: Feature view → its files before the cutoff, for the event times of what grows old.
    """
    end = f"TIMESTAMPTZ {literal(format_cutoff(cutoff))}"
    times = [
        f"LEFT JOIN (SELECT {ITEM_ID.name}, max({EVENT_TIME.name}) AS {group.time_column.name} FROM "  # noqa: S608 - quoted
        f"{parquet(tables[group.view_name])} WHERE {EVENT_TIME.name} < {end} GROUP BY ALL) USING ({ITEM_ID.name})"
        for group in declaration.items
        if group.ttl_days
    ]
    rows = (
        f"SELECT *, row_number() OVER (ORDER BY {ITEM_ID.name}) AS example_id, {end} AS event_timestamp "  # noqa: S608 - quoted
        f"FROM ({known_sql(items, items_dataset(declaration.schema))}) {' '.join(times)}"
    )
    features = tuple(f"{group.view_name}:{column.name}" for group in declaration.items for column in group.features)
    catalogue = catalogue_dataset(declaration)
    with retrieve(store, features, rows, catalogue.columns) as batches:
        return conform(pa.Table.from_batches(batches, arrow_schema(catalogue)), catalogue)


def _materialized(place: Namespace, cutoff: datetime, checksums: Mapping[str, str]) -> Materialized:
    """Return the record of the materialisation that filled Redis from these very tables."""
    done = read_materialized(place)
    if done is None or done.cutoff != cutoff or dict(done.checksums) != dict(checksums):
        received = "nothing" if done is None else f"the tables of {format_cutoff(done.cutoff)}, or as they were then"
        msg = (
            f"namespace {place.name}: expected Redis to be filled from the feature tables as of "
            f"{format_cutoff(cutoff)}, received {received}; run 'python -m pipelines materialize' for this cutoff first"
        )
        raise JobError(msg)
    return done


def _publish(place: Namespace, cutoff: datetime, snapshot: OnlineSnapshot, catalogue: pa.Table) -> str:
    """Write the snapshot under a name that says its content, then point to it; return the name."""
    name = f"{cutoff_name(cutoff)}-{definition_hash(dataclasses.asdict(snapshot))}"
    directory = place.online / name
    remove_abandoned(place.online)
    with publishing_directory(directory) as part:
        pq.write_table(catalogue, part / _FILE, compression="zstd")
        path = (directory / _FILE).relative_to(place.root).as_posix()
        parts = snapshot.parts | {CATALOGUE: catalogue_part(snapshot.cutoff, path, file_sha256(part / _FILE))}
        whole = dataclasses.replace(snapshot, parts=parts)
        whole.write(part / MANIFEST)
    published = OnlineSnapshot.read(directory / MANIFEST)
    if not place.online_current.exists() or OnlineSnapshot.read(place.online_current) != published:
        published.write(place.online_current)
    return name
