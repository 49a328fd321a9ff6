"""What the attributes say of the catalogue's items, as matrices: one for each attribute that has terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from feature_repo.contracts.datasets import EVENT_TIME, ITEM_ID
from feature_repo.contracts.schemas import Kind

if TYPE_CHECKING:
    from datetime import datetime

    from feature_repo.contracts.schemas import Attribute, Schema


@dataclass(frozen=True, slots=True)
class SideInformation:
    """The terms of some items."""

    ids: pa.Array
    """`[items]`, each once."""
    attributes: tuple[sparse.csr_array, ...]
    """For each attribute `[items, terms]`: an item's terms have equal shares of 1, an item without an empty row."""

    def of(self, ids: pa.Array) -> SideInformation:
        """Return the terms of these items, in their order; one that is not known has none."""
        places = pc.index_in(ids, value_set=self.ids).to_numpy(zero_copy_only=False)
        known = np.flatnonzero(~np.isnan(places.astype(np.float64)))
        shape = (len(ids), len(self.ids))
        take = sparse.csr_array((np.ones(len(known)), (known, places[known].astype(np.int64))), shape=shape)
        return SideInformation(ids, tuple((take @ terms).tocsr() for terms in self.attributes))

    def without(self, ids: pa.Array) -> SideInformation:
        """Return the other items that have any term at all."""
        if not self.attributes:
            return self.of(self.ids.slice(0, 0))
        others = ~pc.is_in(self.ids, value_set=ids).to_numpy(zero_copy_only=False)
        described = np.any([np.diff(terms.indptr) > 0 for terms in self.attributes], axis=0)
        return self.of(self.ids.filter(pa.array(others & described)))


NOTHING_SAID = SideInformation(pa.array([], pa.string()), ())
"""For kinds that do not ask: the versions of items may be many."""


def side_information(items: pa.Table, schema: Schema, cutoff: datetime) -> SideInformation:
    """Return what was known of the items before a cutoff.

    Args:
        items: The items dataset, or the versions of items, of which each item's last one before the cutoff counts.
        schema: Whose attributes count: those that have terms.
        cutoff: Exclusive.
    """
    if EVENT_TIME.name in items.column_names:
        times = items.column(EVENT_TIME.name)
        items = items.filter(pc.less(times, pa.scalar(cutoff, times.type)))
        items = items.sort_by([(ITEM_ID.name, "ascending"), (EVENT_TIME.name, "ascending")])
        ids = items.column(ITEM_ID.name).to_numpy(zero_copy_only=False)
        items = items.filter(pa.array(np.append(ids[1:] != ids[:-1], np.ones(min(1, len(ids)), dtype=np.bool_))))
    attributes = [each for each in schema.item_attributes if each.is_term]
    ids = items.column(ITEM_ID.name).combine_chunks()
    return SideInformation(ids, tuple(_terms(items, attribute) for attribute in attributes))


def _terms(items: pa.Table, attribute: Attribute) -> sparse.csr_array:
    column = items.column(attribute.name).combine_chunks()
    if attribute.kind is Kind.MULTI_VALUED:
        rows, values = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
    else:
        rows, values = np.arange(len(column)), column
    present = pc.fill_null(pc.not_equal(values, ""), False).to_numpy(zero_copy_only=False)  # noqa: FBT003 - Arrow's own
    rows, names = rows[present], values.filter(pa.array(present)).to_numpy(zero_copy_only=False).astype(np.str_)
    terms, codes = np.unique(names, return_inverse=True)
    pairs = np.unique(np.stack([rows.astype(np.int64), codes.astype(np.int64)], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(column))
    shape = (len(column), len(terms))
    return sparse.csr_array((1 / counts[pairs[:, 0]], (pairs[:, 0], pairs[:, 1])), shape=shape)
