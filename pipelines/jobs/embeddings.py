"""Fit item embeddings on what users liked before a cutoff, and store them: snapshots, feature tables, and a report."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.datasets import EVENTS, TITLE, items_dataset, known_items_dataset
from feature_repo.contracts.embeddings import embeddings_named
from feature_repo.contracts.features import LAST_ITEMS
from feature_repo.contracts.schemas import Kind, read_schema
from feature_repo.locks import exclusive
from pipelines.embeddings.kinds import Fit, fit
from pipelines.embeddings.likes import liked_events, summarise
from pipelines.embeddings.neighbours import item_cosines
from pipelines.embeddings.report import PROJECTED_ITEMS, SHOWN_NEIGHBOURS, SHOWN_TITLES, describe, write_report
from pipelines.embeddings.side_information import NOTHING_SAID, side_information
from pipelines.embeddings.snapshots import write_item_embeddings
from pipelines.embeddings.tables import write_embedding_table
from pipelines.embeddings.user_vectors import last_liked
from pipelines.feast_store.online_cutoff import online_cutoff
from pipelines.io.lake import stored_dataset
from pipelines.io.spark import read_snapshot, spark_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from feature_repo.contracts.places import Namespace
    from pipelines.embeddings.snapshots import ItemEmbeddings
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)


def run(settings: Settings, place: Namespace, cutoff: datetime) -> Mapping[str, object]:
    """Write snapshots, feature tables and report; the same events give the same files.

    Raises:
        JobError: nothing was ingested.
        TransientError: another job is writing the lake or the embeddings.
    """
    kinds = embeddings_named(settings.embedding_names)
    schema = read_schema(place)
    told = {each.kind: each.name for each in reversed(schema.item_attributes)}
    terms = told.get(Kind.MULTI_VALUED) or told.get(Kind.CATEGORICAL)
    with _scratch(place) as scratch:
        with (
            stored_dataset(place, EVENTS).reading(before=cutoff) as snapshot,
            stored_dataset(place, items_dataset(schema)).reading() as items,
            stored_dataset(place, known_items_dataset(schema)).reading() as known,
            spark_session(settings, f"embeddings {place.name}", rows=snapshot.rows) as spark,
        ):
            events = read_snapshot(spark, snapshot).where(F.col("event_time") < F.lit(cutoff))
            liked = liked_events(events, schema.positive).cache()
            lasts = last_liked(events, schema, LAST_ITEMS).cache()
            asked = any(kind.side_information for kind in kinds)
            side = side_information(known.read(), schema, cutoff) if asked else NOTHING_SAID
            fits = []
            for kind in kinds:
                began = time.monotonic()
                fits.append(fit(kind, liked, lasts, side, scratch / kind.name))
                _LOG.info("%s: %d items, %.1f s", kind.name, fits[-1].items.num_rows, time.monotonic() - began)
            summary = summarise(liked, PROJECTED_ITEMS)
            baseline = item_cosines(liked, [item for item, _ in summary.most[:SHOWN_TITLES]], SHOWN_NEIGHBOURS)
            descriptions = describe(items.read(), TITLE.name, terms)
        records = {one.kind.name: _store(place, cutoff, one) for one in fits}
        report = write_report(place, cutoff, summary, fits, baseline, descriptions)
    return {
        "embeddings": {name: asdict(record) for name, record in records.items()},
        "report": report,
    }


def _store(place: Namespace, cutoff: datetime, one: Fit) -> ItemEmbeddings:
    """Store the snapshot of one kind, and its feature tables unless this is a backfill: they hold the latest only."""
    record = write_item_embeddings(place, one.kind, cutoff, one.items)
    online = online_cutoff(place)
    if online is None or cutoff >= online:
        write_embedding_table(place, one.kind.item_group, cutoff, one.items, record.sha256)
        write_embedding_table(place, one.kind.user_group, cutoff, one.users, record.sha256)
    return record


@contextmanager
def _scratch(place: Namespace) -> Iterator[Path]:
    """Give a folder for what Spark writes; one job at a time, which removes what a killed one left."""
    folder = place.root / ".embeddings"
    with exclusive(place.locks / "embeddings.lock", f"embeddings of namespace {place.name}"):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
