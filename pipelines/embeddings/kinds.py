"""One kind of embedding, from likes to vectors of items and users."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts.embeddings import ITEM_EMBEDDINGS
from pipelines.embeddings.enhanced_skip_gram import fit_enhanced_skip_gram, read_sequences
from pipelines.embeddings.likes import liked_often, liked_sequences, numbered_items
from pipelines.embeddings.skip_gram import fit_skip_gram, write_sequences
from pipelines.embeddings.user_vectors import user_vectors
from pipelines.embeddings.vectors import unit_length, vector_array
from pipelines.embeddings.walk_sequences import walk_sequences
from pipelines.errors import TooFewLikesError
from pipelines.io.arrow import arrow_schema
from pipelines.io.spark import read_files

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from feature_repo.contracts.embeddings import Embedding, SkipGram
    from pipelines.embeddings.side_information import SideInformation


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


def fit(kind: Embedding, liked: DataFrame, lasts: DataFrame, side: SideInformation, folder: Path) -> Fit:
    """Fit a kind's item vectors, and make the users' from them; no vectors at all where too little was liked.

    A young log is no error: the other sources of recall answer until there are vectors.

    Args:
        kind: Which, with its parameters.
        liked: user_id, item_id, event_time of what was liked before the cutoff.
        lasts: user_id, items: what each user liked among the last events.
        side: What is known of the catalogue's items.
        folder: For what Spark writes on the way, which every executor must be able to read.
    """
    often = liked_often(liked, kind.skip_gram.least_likes).cache()
    items = fit_items_if_any(kind, often, side, folder)
    file = folder / "items.parquet"
    folder.mkdir(parents=True, exist_ok=True)  # Spark made it, unless there was nothing to write
    pq.write_table(items, file)
    covered = often.join(read_files(often.sparkSession, [file]), on="item_id", how="left_semi").count()
    user_vectors(lasts, file).write.parquet(str(folder / "users"))
    often.unpersist()
    return Fit(kind, items, pq.read_table(folder / "users", partitioning=None), covered)


def fit_items_if_any(kind: Embedding, often: DataFrame, side: SideInformation, folder: Path) -> pa.Table:
    """Return what `fit_items` returns; no rows at all where too little was liked."""
    try:
        return fit_items(kind, often, side, folder)
    except TooFewLikesError as reason:
        _LOG.warning("%s: no vectors: %s", kind.name, reason)
        return arrow_schema(ITEM_EMBEDDINGS).empty_table()


def fit_items(kind: Embedding, often: DataFrame, side: SideInformation, folder: Path) -> pa.Table:
    """Return the rows of ITEM_EMBEDDINGS from likes of items that were liked often enough; see `fit`.

    With side information there are rows of items, too, of which nothing is known but that.

    Raises:
        TooFewLikesError: There is no such like, or no two that stand beside each other.
    """
    if often.isEmpty():
        least = kind.skip_gram.least_likes
        msg = f"expected an item that was liked {least} times or more, found none; ingest more events"
        raise TooFewLikesError(msg)
    numbered_items(often).write.parquet(str(folder / "nodes"))
    items = read_files(often.sparkSession, [folder / "nodes"])
    ids = pq.read_table(folder / "nodes", partitioning=None).sort_by("node").column("item_id")
    likes = often.join(items, on="item_id", how="inner").select("user_id", "node", "event_time")
    if kind.walks is None:
        sequences = liked_sequences(likes)
    else:
        sequences = walk_sequences(likes, len(ids), kind.walks, kind.skip_gram.seed, folder / "edges")
    file = write_sequences(sequences, folder / "sequences")
    if kind.side_information:
        return _fitted_with(side, ids.combine_chunks(), file, kind.skip_gram)
    nodes, vectors = fit_skip_gram(file, kind.skip_gram)
    return _rows(ids.take(pa.array(nodes)).combine_chunks(), vectors)


def _fitted_with(side: SideInformation, ids: pa.Array, file: Path, skip_gram: SkipGram) -> pa.Table:
    """Return the rows of what stands in the sequences, and of all others that have a term, in the order of the ids."""
    sequences = read_sequences(file)
    fitted = fit_enhanced_skip_gram(sequences, side.of(ids).attributes, skip_gram)
    nodes = np.unique(sequences.nodes)
    learned = ids.take(pa.array(nodes))
    new = side.without(learned)
    vectors = fitted.vectors(nodes)
    if len(new.ids):
        vectors = np.concatenate([vectors, fitted.vectors_of_terms(new.attributes)])
    return _rows(pa.concat_arrays([learned, new.ids]), vectors).sort_by("item_id")


def _rows(ids: pa.Array, vectors: NDArray[np.float32]) -> pa.Table:
    return pa.table([ids, vector_array(unit_length(vectors))], schema=arrow_schema(ITEM_EMBEDDINGS))
