"""The tables of fitted channels, aligned with the catalogue: what a like tells of other items, or one score for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_repo.contracts.channels import TABLES, Table
from feature_repo.contracts.datasets import ITEM_ID
from feature_repo.contracts.questions import Audience
from serving.recommender.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.manifests import Part
    from serving.recommender.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class ChannelTable:
    """One fitted channel: what likes tell (`neighbours`, `weights`), or one score for everybody (`scores`, `order`)."""

    validation: Mapping[str, float]
    """`Audience` → NDCG@10 of the channel's own list on validation, of those that it was measured for."""
    rows: NDArray[np.int32]
    """`[items]`, each item's row of `neighbours` and `weights`; the last row is that of items which tell nothing."""
    neighbours: NDArray[np.int32]
    """`[rows, most neighbours]`, what a like tells of: positions. Rows are copied whole: a sparse matrix, or an
    index of every single neighbour, takes half as long again."""
    weights: NDArray[np.float32]
    """The same shape, how much; 0 where there are no more neighbours."""
    half_life_days: float = 0.0
    """In which a like comes to count half; 0: likes count alike, however old."""
    scores: NDArray[np.float32] | None = None
    """`[items]`, the same for everybody; None where likes tell."""
    order: NDArray[np.intp] | None = None
    """Positions of the items that have a score, by falling score, ties by position."""

    @property
    def is_personal(self) -> bool:
        """Whether what it finds depends on the user."""
        return self.scores is None


_NOTHING = (np.empty(0, dtype=np.int32), np.empty((0, 0), dtype=np.int32), np.empty((0, 0), dtype=np.float32))


def table_from_rows(rows: pa.Table, catalogue: Catalogue, part: Part, source: str) -> ChannelTable:
    """Align the rows of a channel's table with the catalogue; items that the catalogue lacks are left out.

    Raises:
        SnapshotError: The part is of no kind of table that this code knows, a column is missing or of another type, a
            neighbour is no row of the table, or a figure is not finite. `source` names the file.
    """
    try:
        table = Table(part.data["table"])
    except ValueError as error:
        msg = f"{source}: {error}; publish again, or deploy the code that knows it"
        raise SnapshotError(msg) from error
    expected = list(TABLES[table].column_names)
    if absent := [name for name in expected if name not in rows.column_names]:
        msg = f"{source}: expected columns {expected}, {absent} are missing; run `python -m pipelines channels` again"
        raise SnapshotError(msg)
    half_life, validation = part.data["half_life_days"], _validation(part.data.get("validation"))
    places = catalogue.places(rows.column(ITEM_ID.name).to_pylist())
    try:
        if table is Table.SCORES:
            scores = _scores(rows, places, len(catalogue))
            order = np.argsort(-scores, kind="stable")[: int((scores > -np.inf).sum())]
            return ChannelTable(validation, *_NOTHING, scores=scores, order=order)
        return ChannelTable(validation, *_neighbours(rows, places, len(catalogue)), half_life)
    except (pa.ArrowException, ValueError) as error:
        msg = f"{source}: expected a table of {table}, received {error}; run `python -m pipelines channels` again"
        raise SnapshotError(msg) from error


def _validation(stored: Any) -> dict[str, float]:  # noqa: ANN401 - whatever a record holds
    """Return the figures of the audiences that this code knows."""
    figures = stored if isinstance(stored, dict) else {}
    return {audience: float(figures[audience]) for audience in Audience if isinstance(figures.get(audience), float)}


def _scores(rows: pa.Table, places: NDArray[np.intp], items: int) -> NDArray[np.float32]:
    given = _finite(rows.column("score").cast(pa.float32()).to_numpy(), "score")
    scores = np.full(items, -np.inf, dtype=np.float32)
    known = places >= 0
    scores[places[known]] = given[known]
    return scores


def _neighbours(
    rows: pa.Table, places: NDArray[np.intp], items: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    lists = rows.column("neighbours").cast(pa.list_(pa.int32())).combine_chunks()
    weights = rows.column("weights").cast(pa.list_(pa.float32())).combine_chunks()
    counts = lists.value_lengths().to_numpy(zero_copy_only=False)
    if not np.array_equal(counts, weights.value_lengths().to_numpy(zero_copy_only=False)):
        msg = "lists of neighbours and of weights that are not of one length"
        raise ValueError(msg)
    to, data = lists.flatten().to_numpy(), _finite(weights.flatten().to_numpy(), "weights")
    if len(to) and not 0 <= to.min() <= to.max() < len(places):
        msg = f"neighbours {to.min()} to {to.max()} in a table of {len(places)} rows"
        raise ValueError(msg)
    start, end = np.repeat(places, counts), places[to]
    known = (start >= 0) & (end >= 0)
    order = np.flatnonzero(known)[np.argsort(start[known], kind="stable")]
    telling, row, kept = np.unique(start[order], return_inverse=True, return_counts=True)
    column = np.arange(len(order)) - np.repeat(np.cumsum(kept) - kept, kept)
    neighbours = np.zeros((len(telling) + 1, int(kept.max(initial=0))), dtype=np.int32)
    told = np.zeros(neighbours.shape, dtype=np.float32)
    neighbours[row, column], told[row, column] = end[order], data[order]
    row_of = np.full(items, len(telling), dtype=np.int32)
    row_of[telling] = np.arange(len(telling))
    return row_of, neighbours, told


def _finite(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        msg = f"{name} that are not finite"
        raise ValueError(msg)
    return values
