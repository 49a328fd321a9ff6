"""Item2vec: items that the same users liked in sequence lie close together.

Barkan and Koenigstein, "Item2Vec: Neural Item Embedding for Collaborative Filtering" (2016). Deviations: Spark's
Word2Vec is skip-gram with hierarchical softmax, not negative sampling, and its window moves along the order of time,
where the paper takes whole sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.ml.feature import Word2Vec
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.datasets import EMBEDDING_SIZE, ITEM2VEC
from pipelines.errors import JobError
from pipelines.features.activity import is_liked
from pipelines.io.arrow import arrow_schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from feature_repo.contracts.schemas import Positive

_SEED = 20_161_101
_WINDOW = 10
_ITERATIONS = 10
_LEAST_LIKES = 3
"""An item liked less often has no embedding: nothing could be learned of it."""
_LONGEST_SEQUENCE = 1000


def liked_sequences(events: DataFrame, positive: Positive) -> DataFrame:
    """Return one row per user: `items`, those of the user's positive events, in order of time.

    Users come in the order of their ids, in one partition: Word2Vec learns by example after example, so that the
    order of the examples is part of what it computes.
    """
    liked = events.where(is_liked(positive))
    in_order = F.sort_array(F.collect_list(F.struct("event_time", "item_id")))
    sequences = liked.groupBy("user_id").agg(in_order.alias("liked"))
    items = F.col("liked.item_id").alias("items")
    return sequences.coalesce(1).sortWithinPartitions("user_id").select(items)


def fit_item2vec(events: DataFrame, positive: Positive) -> pa.Table:
    """Fit embeddings on the events and return them as rows of ITEM2VEC, each vector of unit length.

    Raises:
        JobError: no item was liked often enough.
    """
    sequences = liked_sequences(events, positive).cache()
    model = Word2Vec(
        vectorSize=EMBEDDING_SIZE,
        minCount=_LEAST_LIKES,
        windowSize=_WINDOW,
        maxIter=_ITERATIONS,
        maxSentenceLength=_LONGEST_SEQUENCE,
        numPartitions=1,
        seed=_SEED,
        inputCol="items",
        outputCol="vector",
    )
    enough = sequences.select(F.explode("items").alias("item")).groupBy("item").count()
    if enough.where(F.col("count") >= F.lit(_LEAST_LIKES)).isEmpty():
        msg = f"item2vec: expected an item with {_LEAST_LIKES} positive events ({positive}), found none"
        raise JobError(msg)
    rows = sorted((row["word"], row["vector"].toArray()) for row in model.fit(sequences).getVectors().collect())
    vectors = unit_length(np.stack([vector for _, vector in rows]))
    flat = pa.array(vectors.ravel(), pa.float32())
    offsets = pa.array(np.arange(0, vectors.size + 1, EMBEDDING_SIZE, dtype=np.int32))
    schema = arrow_schema(ITEM2VEC)
    embedding = pa.ListArray.from_arrays(offsets, flat).cast(schema.field("embedding").type)
    return pa.Table.from_arrays([pa.array([item for item, _ in rows]), embedding], schema=schema)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Scale each row of `vectors`, [items, size], to length 1, as float32; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
