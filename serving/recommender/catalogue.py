"""The items in memory, as arrays that a request can index: positions in these arrays are how stages name an item."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts.columns import Column, Dtype
from feature_repo.contracts.datasets import ITEM_ID, TITLE, attribute_column
from feature_repo.contracts.schemas import Attribute, Kind
from serving.recommender.errors import SnapshotError
from serving.recommender.lifetimes import Lifetime, item_lifetimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from feature_repo.contracts.features import Declared

AttributeValue = str | float | list[str] | None

_NUMPY = {Dtype.INT64: np.int64, Dtype.FLOAT32: np.float32}
_ARROW = {Dtype.STRING: pa.string(), Dtype.INT64: pa.int64(), Dtype.FLOAT32: pa.float32()}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every item that can be recommended; all sequences have one entry per item, in one order."""

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    attributes: tuple[Mapping[str, AttributeValue], ...]
    """What the source says of each item, for people."""
    terms: Mapping[str, tuple[frozenset[str], ...]]
    """Attribute that has terms → the terms of each item."""
    positions: Mapping[str, int]
    """Item id → position."""
    inputs: Mapping[str, NDArray[Any]]
    """Item column → raw model input, `[items]` or `[items, length]`; text as bytes in an object array."""
    lifetimes: tuple[Lifetime, ...]
    """Of the item features that grow old."""
    popular: NDArray[np.intp]
    """Positions by falling number of events, ties by their mean value, then by item id."""
    namesakes: NDArray[np.intp]
    """`[items]`, the same number for items whose titles are alike but for case and spaces."""
    trending: NDArray[np.intp] | None = None
    """Positions of items that more people have to do with than before, by falling trend, ties by popularity; None where
    the catalogue is of before it had trends."""
    having: Mapping[tuple[str, str], NDArray[np.intp]] = field(default_factory=dict)
    """(attribute, term) → positions of the items that have it, ascending."""

    def __len__(self) -> int:
        return len(self.item_ids)

    def find(self, item_ids: Iterable[str]) -> NDArray[np.intp]:
        """Return the positions of those ids that the catalogue knows, in their order."""
        found = self.places(item_ids)
        return found[found >= 0]

    def places(self, item_ids: Iterable[str]) -> NDArray[np.intp]:
        """Return the position of every id, -1 for one that the catalogue does not know."""
        return np.fromiter(map(self.positions.get, item_ids, repeat(-1)), dtype=np.intp)


def catalogue_from_table(table: pa.Table, declaration: Declared, source: str) -> Catalogue:
    """Turn the rows of a catalogue.parquet, what a person reads and the latest item features, into arrays.

    Raises:
        SnapshotError: A column is missing or of another type, an id is missing or occurs twice, a list has a wrong
            length. `source` names the file.
    """
    attributes = declaration.schema.item_attributes
    # A catalogue of before the windows were in it serves the models of its time.
    groups = [
        group
        for group in declaration.items
        if group in declaration.item_ranking or {each.name for each in group.features} <= set(table.column_names)
    ]
    features = [ITEM_ID, *(column for group in groups for column in group.features)]
    stored = [*features, TITLE, *map(attribute_column, attributes)]
    absent = [column.name for column in stored if column.name not in table.column_names]
    if absent:
        expected = [column.name for column in stored]
        msg = f"{source}: expected columns {expected}, {absent} are missing; publish again"
        raise SnapshotError(msg)
    table = table.sort_by(ITEM_ID.name)
    columns = {column.name: _typed(table, column, source) for column in stored}
    item_ids = tuple(columns[ITEM_ID.name].to_pylist())
    if not item_ids or None in item_ids or len(set(item_ids)) != len(item_ids):
        msg = f"{source}: expected items with distinct ids, received {len(item_ids)} rows, {len(set(item_ids))} ids"
        raise SnapshotError(msg)
    inputs = {column.name: model_input(columns[column.name], column, source) for column in features}
    order = np.lexsort((np.arange(len(item_ids)), -inputs["item_value_mean"], -inputs["item_event_count"]))
    said = {attribute.name: _said(columns[attribute.name], attribute) for attribute in attributes}
    titles = tuple(title or item_id for title, item_id in zip(columns["title"].to_pylist(), item_ids, strict=True))
    numbers: dict[str, int] = {}
    terms = {attribute.name: _terms(said[attribute.name]) for attribute in attributes if attribute.is_term}
    return Catalogue(
        item_ids=item_ids,
        titles=titles,
        attributes=tuple(dict(zip(said, values, strict=True)) for values in zip(*said.values(), strict=True))
        or ({},) * len(item_ids),
        terms=terms,
        positions={item_id: position for position, item_id in enumerate(item_ids)},
        inputs=inputs,
        lifetimes=item_lifetimes(table, groups, source),
        popular=order,
        namesakes=np.array(
            [numbers.setdefault(" ".join(title.casefold().split()), len(numbers)) for title in titles], dtype=np.intp
        ),
        trending=_trending(inputs, order),
        having=_having(terms),
    )


def _trending(inputs: Mapping[str, NDArray[Any]], popular: NDArray[np.intp]) -> NDArray[np.intp] | None:
    if "item_trend" not in inputs:
        return None
    trend = inputs["item_trend"][popular]
    rising = np.flatnonzero(trend > 0)
    return popular[rising[np.argsort(-trend[rising], kind="stable")]]


def _having(terms: Mapping[str, tuple[frozenset[str], ...]]) -> dict[tuple[str, str], NDArray[np.intp]]:
    having: dict[tuple[str, str], list[int]] = {}
    for attribute, of_items in terms.items():
        for position, own in enumerate(of_items):
            for term in own:
                having.setdefault((attribute, term), []).append(position)
    return {key: np.array(positions, dtype=np.intp) for key, positions in having.items()}


def _said(values: pa.Array, attribute: Attribute) -> list[AttributeValue]:
    """Return an attribute as people read it: whole numbers without a fraction, no list as an empty one."""
    listed: list[Any] = values.to_pylist()
    if attribute.kind is Kind.MULTI_VALUED:
        return [terms or [] for terms in listed]
    if attribute.kind is Kind.NUMERIC and attribute.step.is_integer():
        return [None if number is None else int(number) for number in listed]
    if attribute.kind is Kind.NUMERIC:
        # float32 holds 2.55 as 2.5499999523: in whole steps it is what the source said.
        return [
            None if number is None else round(round(number / attribute.step) * attribute.step, 6) for number in listed
        ]
    return listed


def _terms(said: list[AttributeValue]) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(value if isinstance(value, list) else [str(value)] if value else []) for value in said)


def _typed(table: pa.Table, column: Column, source: str) -> pa.Array:
    kind = _ARROW[column.dtype]
    target = kind if column.length == 0 else pa.list_(kind)
    try:
        return table.column(column.name).cast(target).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        received = table.schema.field(column.name).type
        msg = f"{source}: column {column.name}: expected {target}, received {received} ({error}); publish again"
        raise SnapshotError(msg) from error


def model_input(values: pa.Array, column: Column, source: str) -> NDArray[Any]:
    """Return a column as the model takes it: `missing` in place of nulls, lists as `[rows, length]`."""
    rows = len(values)
    if column.length > 0:
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        if rows and pc.any(pc.not_equal(lengths, column.length)).as_py():
            msg = f"{source}: column {column.name}: expected lists of {column.length}, received {pc.unique(lengths)}"
            raise SnapshotError(msg)
        values = values.flatten()
    if column.missing is not None:
        values = pc.fill_null(values, pa.scalar(column.missing, values.type))
    if values.null_count:
        msg = f"{source}: column {column.name}: expected a value in every row, {values.null_count} are null"
        raise SnapshotError(msg)
    if column.dtype is Dtype.STRING:
        flat: NDArray[Any] = np.array([*values.cast(pa.binary()).to_pylist(), None], dtype=object)[:-1]
    else:
        flat = values.to_numpy(zero_copy_only=False).astype(_NUMPY[column.dtype])
    return flat.reshape(rows, column.length) if column.length > 0 else flat
