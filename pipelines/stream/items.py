"""What the fold must know of items: read from the lake, as Spark reads them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.datasets import ITEM_ID, items_dataset
from feature_repo.contracts.schemas import Kind, Schema, read_schema
from pipelines.features.terms import MOST_TERMS
from pipelines.io.lake import stored_dataset
from pipelines.stream.fold import UNKNOWN_ITEM, ItemFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa

    from feature_repo.contracts.places import Namespace


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A data set's schema, and what its items are."""

    schema: Schema
    items: Mapping[str, ItemFacts]

    def facts(self, item_id: str) -> ItemFacts:
        """Return what is known of an item; of one that the lake does not have, nothing."""
        return self.items.get(item_id, UNKNOWN_ITEM)


def read_knowledge(place: Namespace) -> Knowledge:
    """Return what the lake knows now.

    Raises:
        JobError: Nothing was ingested yet.
        TransientError: The items are being written.
    """
    schema = read_schema(place)
    return Knowledge(schema, item_facts(stored_dataset(place, items_dataset(schema)).snapshot().read(), schema))


def item_facts(items: pa.Table, schema: Schema) -> dict[str, ItemFacts]:
    """Return item id → what the fold must know, from the rows of the items dataset."""
    ids: list[str] = items.column(ITEM_ID.name).to_pylist()
    numbers = {
        attribute.name: items.column(attribute.name).to_pylist()
        for attribute in schema.item_attributes
        if attribute.kind is Kind.NUMERIC
    }
    terms = {
        attribute.name: _counted_terms(items.column(attribute.name).to_pylist(), attribute.kind)
        for attribute in schema.item_attributes
        if attribute.is_term
    }
    return {
        item_id: ItemFacts(
            {name: values[row] for name, values in numbers.items() if values[row] is not None},
            {name: values[row] for name, values in terms.items()},
        )
        for row, item_id in enumerate(ids)
    }


def _counted_terms(values: list[Any], kind: Kind) -> list[frozenset[str]]:
    """Return each item's terms, less those beyond the most common ones, of which no counts are kept."""
    listed: Iterable[list[str]] = ([value] if value else [] for value in values) if kind is Kind.CATEGORICAL else values
    sets = [frozenset(term for term in terms or () if term) for terms in listed]
    counts = Counter(term for terms in sets for term in terms)
    counted = set(sorted(counts, key=lambda term: (-counts[term], term))[:MOST_TERMS])
    return [terms & counted for terms in sets]
