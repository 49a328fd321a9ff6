"""One kind of embedding, from likes to vectors of items and users."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.embeddings import ITEM_EMBEDDINGS
from pipelines.embeddings.likes import liked_often, liked_sequences, numbered_items
from pipelines.embeddings.skip_gram import fit_skip_gram, write_sequences
from pipelines.embeddings.user_vectors import user_vectors
from pipelines.embeddings.vectors import unit_length, vector_array
from pipelines.embeddings.walk_sequences import walk_sequences
from pipelines.errors import TooFewLikesError
from pipelines.io.arrow import arrow_schema

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame

    from feature_repo.contracts.embeddings import Embedding


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fit:
    """What was computed of one kind, and not yet stored."""

    kind: Embedding
    items: pa.Table
    """Rows of ITEM_EMBEDDINGS."""
    users: pa.Table
    """Rows of USER_EMBEDDINGS."""
    covered: int
    """How many likes are of items that have a vector."""


def fit(kind: Embedding, liked: DataFrame, lasts: DataFrame, folder: Path) -> Fit:
    """Fit a kind's item vectors, and make the users' from them; no vectors at all where too little was liked.

    A young log is no error: the other sources of recall answer until there are vectors.

    Args:
        kind: Which, with its parameters.
        liked: user_id, item_id, event_time of what was liked before the cutoff.
        lasts: user_id, items: what each user liked among the last events.
        folder: For what Spark writes on the way, which every executor must be able to read.
    """
    often = liked_often(liked, kind.skip_gram.least_likes).cache()
    try:
        items = fit_items(kind, often, folder)
    except TooFewLikesError as reason:
        _LOG.warning("%s: no vectors: %s", kind.name, reason)
        items = arrow_schema(ITEM_EMBEDDINGS).empty_table()
    file = folder / "items.parquet"
    folder.mkdir(parents=True, exist_ok=True)  # Spark made it, unless there was nothing to write
    pq.write_table(items, file)
    covered = often.join(often.sparkSession.read.parquet(str(file)), on="item_id", how="left_semi").count()
    user_vectors(lasts, file).write.parquet(str(folder / "users"))
    often.unpersist()
    return Fit(kind, items, pq.read_table(folder / "users"), covered)


def fit_items(kind: Embedding, often: DataFrame, folder: Path) -> pa.Table:
    """Return the rows of ITEM_EMBEDDINGS from likes of items that were liked often enough; see `fit`.

    Raises:
        TooFewLikesError: There is no such like, or no two that stand beside each other.
    """
    if often.isEmpty():
        least = kind.skip_gram.least_likes
        msg = f"expected an item that was liked {least} times or more, found none; ingest more events"
        raise TooFewLikesError(msg)
    numbered_items(often).write.parquet(str(folder / "nodes"))
    items = often.sparkSession.read.parquet(str(folder / "nodes"))
    ids = pq.read_table(folder / "nodes").sort_by("node").column("item_id")
    likes = often.join(items, on="item_id", how="inner").select("user_id", "node", "event_time")
    if kind.walks is None:
        sequences = liked_sequences(likes)
    else:
        sequences = walk_sequences(likes, len(ids), kind.walks, kind.skip_gram.seed, folder / "edges")
    nodes, vectors = fit_skip_gram(write_sequences(sequences, folder / "sequences"), kind.skip_gram)
    columns = [ids.take(pa.array(nodes)).combine_chunks(), vector_array(unit_length(vectors))]
    return pa.table(columns, schema=arrow_schema(ITEM_EMBEDDINGS))
