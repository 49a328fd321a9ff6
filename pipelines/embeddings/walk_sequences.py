"""Random walks over the item graph, on Spark: each task walks some of them, over the whole graph.

The graph lies in Parquet beside what is being computed, where the tasks read it: it is as large as the catalogue times
the successors of an item, while walks and events are what grows. Nothing of either comes to the driver.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.embeddings.item_graph import item_edges, weighted_edges
from pipelines.embeddings.random_walks import NO_NODE, Graph, WalkRule, from_edges, random_walks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from feature_repo.contracts.embeddings import Walks


def walk_sequences(likes: DataFrame, items: int, walks: Walks, seed: int, folder: Path) -> DataFrame:
    """Return one row per walk: `nodes`; `walks.per_item` walks from each item, in one partition.

    The walks come in an order by chance, which depends on nothing but the seed: a skip-gram that saw all walks of one
    item in a row would learn that item, and forget it.

    Args:
        likes: user_id, node, event_time.
        items: How many nodes there are.
        walks: How to walk.
        seed: Of the walks' random numbers.
        folder: Where the edges are written; they stay there as long as the rows are read. Executors must see it.
    """
    weighted_edges(item_edges(likes, walks), walks).write.parquet(str(folder))
    rule = WalkRule(walks.length, seed, walks.p, walks.q)
    numbers = likes.sparkSession.range(items * walks.per_item)
    walked = numbers.mapInArrow(walker(str(folder), items, rule), "place long, nodes array<long>")
    return walked.repartition(1).sortWithinPartitions("place", "nodes").select("nodes")


def walker(folder: str, items: int, rule: WalkRule) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what turns the numbers of walks into `place`, which orders them, and `nodes`."""

    def walk(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        graph = read_graph(folder, items)
        for batch in batches:
            numbers = batch.column(0).to_numpy().astype(np.int64)
            path = random_walks(graph, numbers % items, numbers, rule)
            yield pa.record_batch({"place": rule.shuffled(numbers), "nodes": _lists(path)})

    return walk


@lru_cache(maxsize=1)
def read_graph(folder: str, items: int) -> Graph:
    """Return the graph of the edges that Spark wrote to `folder`; once per process."""
    edges = pq.read_table(folder, partitioning=None)
    return from_edges(items, *(edges.column(name).to_numpy() for name in ("source", "target", "weight")))


def _lists(path: NDArray[np.int64]) -> pa.ListArray:
    """Return walks, `[walks, length]`, as lists, without what stands for the steps after an end."""
    walked = path != NO_NODE
    offsets = np.concatenate([[0], np.cumsum(walked.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(path[walked]))
