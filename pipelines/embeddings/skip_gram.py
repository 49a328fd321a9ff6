"""The skip-gram with negative sampling: vectors from sequences, such that an item predicts those around it.

Barkan and Koenigstein, "Item2Vec: Neural Item Embedding for Collaborative Filtering" (2016), by gensim. Deviations: the
window moves along the sequence, where the paper takes whole sets, and frequent items are not thinned out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.embeddings import EMBEDDING_SIZE
from pipelines.errors import TooFewLikesError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from feature_repo.contracts.embeddings import SkipGram


def write_sequences(sequences: DataFrame, folder: Path) -> Path:
    """Have Spark write sequences as lines of numbers, and return the one file.

    An item that stands in no sequence beside another is left out: its vector would stay as it was drawn at the start.

    Args:
        sequences: `nodes`, in one partition whose order is part of what is learned.
        folder: Where to; it is not there yet.

    Raises:
        TooFewLikesError: No sequence has two items.
    """
    line = F.array_join(F.col("nodes").cast("array<string>"), " ")
    sequences.where(F.size("nodes") > 1).select(line.alias("line")).write.text(str(folder))
    files = [file for file in folder.glob("part-*.txt") if file.stat().st_size]
    if not files:
        msg = "expected users who liked two items one after the other, found none; ingest more events"
        raise TooFewLikesError(msg)
    (file,) = files
    return file


def fit_skip_gram(file: Path, skip_gram: SkipGram) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return nodes, ascending, `[nodes]`, and their vectors, `[nodes, size]`.

    One thread: with several, the order of the examples would be by chance, and so the vectors.

    Args:
        file: What `write_sequences` wrote.
        skip_gram: How to fit.
    """
    from gensim.models import Word2Vec  # noqa: PLC0415 - heavy

    logging.getLogger("gensim").setLevel(logging.WARNING)
    fitted = Word2Vec(
        corpus_file=str(file),
        vector_size=EMBEDDING_SIZE,
        sg=1,
        negative=skip_gram.negative,
        ns_exponent=skip_gram.negative_exponent,
        window=skip_gram.window,
        epochs=skip_gram.epochs,
        alpha=skip_gram.learning_rate,
        min_count=1,
        sample=0,
        workers=1,
        seed=skip_gram.seed,
    ).wv
    nodes = np.array(fitted.index_to_key, dtype=np.int64)
    order = np.argsort(nodes)
    return nodes[order], np.asarray(fitted.vectors, dtype=np.float32)[order]
