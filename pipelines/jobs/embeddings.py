"""Fit item2vec on what users liked before a cutoff, and store it as that cutoff's snapshot."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.datasets import EVENTS
from feature_repo.contracts.schemas import read_schema
from pipelines.embeddings.item2vec import fit_item2vec
from pipelines.embeddings.snapshots import write_item_embeddings
from pipelines.io.lake import exclusive, stored_dataset
from pipelines.io.spark import read_snapshot, spark_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings


def run(settings: Settings, place: Namespace, cutoff: datetime) -> Mapping[str, object]:
    """Write the snapshot; the same events give the same file.

    Raises:
        JobError: nothing was ingested, or too little was liked before the cutoff.
        TransientError: another job is writing the lake or the embeddings.
    """
    with exclusive(place.locks / "embeddings.lock", f"embeddings of namespace {place.name}"):
        with (
            stored_dataset(place, EVENTS).reading(before=cutoff) as snapshot,
            spark_session(settings, f"embeddings {place.name}") as spark,
        ):
            events = read_snapshot(spark, snapshot).where(F.col("event_time") < F.lit(cutoff))
            rows = fit_item2vec(events, read_schema(place).positive)
        return asdict(write_item_embeddings(place, cutoff, rows))
