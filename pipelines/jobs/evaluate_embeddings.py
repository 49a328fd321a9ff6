"""The time-ordered test of recall on a data set: kinds of embeddings over several seeds, beside plain baselines."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.columns import definition_hash
from feature_repo.contracts.datasets import EVENTS, known_items_dataset
from feature_repo.contracts.embeddings import EMBEDDING_SIZE, VECTOR
from feature_repo.contracts.features import LAST_ITEMS
from feature_repo.contracts.schemas import read_schema
from pipelines.embeddings import next_like
from pipelines.embeddings.kinds import fit_items
from pipelines.embeddings.likes import liked_events, liked_often
from pipelines.embeddings.side_information import side_information
from pipelines.embeddings.vectors import matrix
from pipelines.errors import JobError
from pipelines.io.lake import exclusive, stored_dataset
from pipelines.io.spark import read_snapshot, spark_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from feature_repo.contracts.embeddings import Embedding
    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Schema
    from pipelines.embeddings.side_information import SideInformation
    from pipelines.io.lake import Snapshot
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_DEPTHS = (10, 50, 200)
_SAMPLE_SEED = 1
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table: a method's hit rates, over its seeds."""

    method: str
    hit_rates: tuple[tuple[float, ...], ...]
    """For each seed, for each of the depths."""
    known: float
    """Share of the questions whose answer the method knows at all."""
    seconds: float
    """Of one fit."""

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean over the seeds, for each depth."""
        return tuple(float(np.mean(rates)) for rates in zip(*self.hit_rates, strict=True))

    @property
    def spread(self) -> tuple[float, ...]:
        """The sample standard deviation over the seeds, for each depth; 0 for one seed."""
        degrees = min(1, len(self.hit_rates) - 1)
        return tuple(float(np.std(rates, ddof=degrees)) for rates in zip(*self.hit_rates, strict=True))


def run(  # noqa: PLR0917 - what is measured, and on what
    settings: Settings,
    place: Namespace,
    cutoff: datetime,
    kinds: Sequence[Embedding],
    seeds: int,
    window: tuple[float, float, int],
) -> Mapping[str, object]:
    """Ask the questions of a window, log the table, and return its rows.

    Args:
        settings: Where Spark runs.
        place: The namespace.
        cutoff: Events from then on do not exist.
        kinds: What is measured beside the baselines.
        seeds: How often each kind is fitted.
        window: Share of the likes, in order of time, that is known; share where questions end; how many at most.

    Raises:
        JobError: The window is empty, or nobody in it likes again.
    """
    schema = read_schema(place)
    with (
        stored_dataset(place, EVENTS).reading(before=cutoff) as snapshot,
        stored_dataset(place, known_items_dataset(schema)).reading() as items,
    ):
        log, ids = read_log(snapshot, schema)
        begin, questions = _ask(place, log, window)
        before = log.before(begin)
        rows = [
            _measure("popularity", [next_like.by_popularity(before)], questions, 0.0),
            _measure("ItemCF", [next_like.by_item_cosine(before)], questions, 0.0),
        ]
        with (
            _scratch(place) as scratch,
            spark_session(settings, f"evaluate embeddings {place.name}", rows=snapshot.rows) as spark,
        ):
            liked = liked_events(read_snapshot(spark, snapshot), schema.positive)
            liked = liked.where(F.unix_micros("event_time") < F.lit(begin)).cache()
            side = side_information(items.read(), schema, datetime.fromtimestamp(begin // _SECOND_US, UTC))
            for kind in kinds:
                rows.extend(_measure_kind(kind, seeds, liked, side, ids, questions, scratch))
    _LOG.info("%d questions, fitted on %d likes\n%s", len(questions), int(before.liked.sum()), table(rows))
    return {
        "questions": len(questions),
        "hit_rates": {row.method: dict(zip(map(str, _DEPTHS), row.mean, strict=True)) for row in rows},
    }


def read_log(snapshot: Snapshot, schema: Schema) -> tuple[next_like.Log, NDArray[np.str_]]:
    """Return the counted events with numbers for users and items, and the items' ids, ascending, `[items]`."""
    table = snapshot.read()
    table = table.filter(pc.is_in(table.column("event_type"), pa.array(schema.counted_types)))
    (users, _), (items, ids) = (
        np.unique(table.column(name).to_numpy(zero_copy_only=False).astype(np.str_), return_inverse=True)[::-1]
        for name in ("user_id", "item_id")
    )
    times = table.column("event_time").cast("int64").to_numpy()
    order = np.lexsort((items, users, times))
    positive = pc.is_in(table.column("event_type"), pa.array(schema.positive.event_types)).to_numpy()
    liked = positive & (table.column("value").to_numpy() >= schema.positive.threshold)
    return next_like.Log(users[order], items[order], liked[order], times[order], len(ids)), ids


def _ask(place: Namespace, log: next_like.Log, window: tuple[float, float, int]) -> tuple[int, next_like.Questions]:
    """Return the moment up to which methods know everything, a whole second, and the questions after it."""
    likes = log.times[log.liked]
    if len(likes):
        begin, end = (
            int(likes[int(share * len(likes))]) // _SECOND_US * _SECOND_US if share < 1 else int(log.times[-1]) + 1
            for share in window[:2]
        )
        questions = next_like.ask(log.before(end), begin, LAST_ITEMS, window[2], _SAMPLE_SEED)
        if len(questions):
            return begin, questions
    msg = f"namespace {place.name}: expected users who like again within {window}, found none; widen the window"
    raise JobError(msg)


def _measure(
    method: str, scorers: Sequence[next_like.Scorer], questions: next_like.Questions, seconds: float
) -> Measured:
    ranks = [next_like.ranks(scorer, questions) for scorer in scorers]
    rates = tuple(tuple(float((rank < depth).mean()) for depth in _DEPTHS) for rank in ranks)
    return Measured(method, rates, float(np.isfinite(ranks[0]).mean()), seconds)


def _measure_kind(  # noqa: PLR0917 - what is measured, and on what
    kind: Embedding,
    seeds: int,
    liked: DataFrame,
    side: SideInformation,
    ids: NDArray[np.str_],
    questions: next_like.Questions,
    scratch: Path,
) -> Iterator[Measured]:
    began = time.monotonic()
    fits = [
        _fitted(
            replace(kind, skip_gram=replace(kind.skip_gram, seed=kind.skip_gram.seed + number)),
            liked,
            side,
            ids,
            scratch,
        )
        for number in range(seeds)
    ]
    seconds = (time.monotonic() - began) / seeds
    yield _measure(f"{kind.name}, user vector", [next_like.by_user_vector(*one) for one in fits], questions, seconds)
    yield _measure(f"{kind.name}, nearest like", [next_like.by_nearest(*one) for one in fits], questions, seconds)


def _fitted(
    kind: Embedding, liked: DataFrame, side: SideInformation, ids: NDArray[np.str_], scratch: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return `[items, size]`, the vectors in the order of `ids`, and `[items]`, whether an item has one."""
    folder = scratch / definition_hash(kind.parameters)
    rows = fit_items(kind, liked_often(liked, kind.skip_gram.least_likes).cache(), side, folder)
    rows = rows.filter(pc.is_in(rows.column("item_id"), pa.array(ids)))  # an item without events can be no answer
    places = np.searchsorted(ids, rows.column("item_id").to_numpy(zero_copy_only=False).astype(np.str_))
    vectors, known = np.zeros((len(ids), EMBEDDING_SIZE), dtype=np.float32), np.zeros(len(ids), dtype=np.bool_)
    vectors[places], known[places] = matrix(rows.column(VECTOR.name)), True
    return vectors, known


def table(rows: Sequence[Measured]) -> str:
    """Return the rows as text, the figures below their names."""
    width = max(len(row.method) for row in rows)
    head = " ".join(f"{f'hit rate @{depth}':>16}" for depth in _DEPTHS)
    lines = [f"{'method':<{width}} {head} {'known':>7} {'s/fit':>6}"]
    for row in rows:
        pairs = zip(row.mean, row.spread, strict=True)
        figures = " ".join(f"{f'{mean:.4f} ±{spread:.4f}':>16}" for mean, spread in pairs)
        lines.append(f"{row.method:<{width}} {figures} {row.known:>7.3f} {row.seconds:>6.1f}")
    return "\n".join(lines)


@contextmanager
def _scratch(place: Namespace) -> Iterator[Path]:
    folder = place.root / ".evaluate-embeddings"
    with exclusive(place.locks / "evaluate-embeddings.lock", f"evaluation of embeddings of namespace {place.name}"):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
