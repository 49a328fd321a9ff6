"""What the fold must know of items: read from the lake, as Spark reads them, as of the last refresh."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_repo.contracts.datasets import EVENT_TIME, ITEM_ID, items_dataset, known_items_dataset
from feature_repo.contracts.schemas import Kind, Schema, read_schema
from pipelines.features.terms import MOST_TERMS
from pipelines.io.arrow import arrow_schema
from pipelines.io.duck import create_view, duckdb_session
from pipelines.io.lake import stored_dataset
from pipelines.io.sql_text import identifier
from pipelines.io.versions import known_sql
from pipelines.stream.fold import UNKNOWN_ITEM, ItemFacts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    import pyarrow as pa

    from feature_repo.contracts.places import Namespace
    from feature_repo.contracts.schemas import Attribute
    from pipelines.io.lake import Snapshot

_MEMORY = "1GB"


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A data set's schema, and what its items are."""

    schema: Schema
    items: Mapping[str, ItemFacts]

    def facts(self, item_id: str) -> ItemFacts:
        """Return what is known of an item; of one that the lake does not have, nothing."""
        return self.items.get(item_id, UNKNOWN_ITEM)


def read_knowledge(place: Namespace, cutoff: datetime | None) -> Knowledge:
    """Return what the lake says of items; where event rows say it, what they had said before `cutoff` (None: at all).

    A batch gives each event what was known at the midnight before it. As of the last refresh, that is the same for the
    events of the day that follows it; those of later days are right with the next refresh.

    Raises:
        JobError: Nothing was ingested yet.
        TransientError: The items are being written.
    """
    schema = read_schema(place)
    snapshot = stored_dataset(place, known_items_dataset(schema)).snapshot(before=cutoff)
    if not schema.items_are_derived:
        return Knowledge(schema, item_facts(snapshot.read(), schema))
    return Knowledge(schema, item_facts(_newest(snapshot, schema), schema, _first_terms(snapshot, schema)))


def _newest(versions: Snapshot, schema: Schema) -> pa.Table:
    dataset = items_dataset(schema)
    if not versions.files:
        return arrow_schema(dataset).empty_table()
    with duckdb_session(_MEMORY) as database:
        return database.sql(known_sql(versions, dataset)).to_arrow_table().cast(arrow_schema(dataset))


def _first_terms(versions: Snapshot, schema: Schema) -> dict[str, set[str]]:
    """Return the terms of each attribute that counts are kept for, as `pipelines.features.versions.first_terms` has it.

    Spark computes them of the same versions, from which it computes features; here is no Spark.
    """
    with duckdb_session(_MEMORY) as database:
        create_view(database, "versions", versions)
        return {
            attribute.name: {term for (term,) in database.sql(_first_terms_sql(attribute)).fetchall()}
            for attribute in schema.item_attributes
            if attribute.is_term
        }


def _first_terms_sql(attribute: Attribute) -> str:
    name = identifier(attribute.name)
    terms = f"unnest({name if attribute.kind is Kind.MULTI_VALUED else f'[{name}]'})"
    time = EVENT_TIME.name
    return (
        f"SELECT term FROM (SELECT term, {time}, count(DISTINCT {ITEM_ID.name}) AS items FROM "  # noqa: S608 - quoted
        f"(SELECT {ITEM_ID.name}, {time}, {terms} AS term FROM versions) WHERE term <> '' GROUP BY ALL) "
        f"GROUP BY term ORDER BY min({time}), arg_min(items, {time}) DESC, term LIMIT {MOST_TERMS}"
    )


def item_facts(
    items: pa.Table, schema: Schema, counted: Mapping[str, Collection[str]] | None = None
) -> dict[str, ItemFacts]:
    """Return item id → what the fold must know, from the rows of the items dataset.

    Args:
        items: the rows.
        schema: of the data set.
        counted: attribute → the terms that counts are kept for; by default those that most of `items` have.
    """
    ids: list[str] = items.column(ITEM_ID.name).to_pylist()
    numbers = {
        attribute.name: items.column(attribute.name).to_pylist()
        for attribute in schema.item_attributes
        if attribute.kind is Kind.NUMERIC
    }
    terms = {
        attribute.name: _counted_terms(
            items.column(attribute.name).to_pylist(), attribute.kind, counted and counted[attribute.name]
        )
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


def _counted_terms(values: list[Any], kind: Kind, counted: Collection[str] | None) -> list[frozenset[str]]:
    """Return each item's terms, less those of which no counts are kept: by default beyond the most common ones."""
    listed: Iterable[list[str]] = ([value] if value else [] for value in values) if kind is Kind.CATEGORICAL else values
    sets = [frozenset(term for term in terms or () if term) for terms in listed]
    if counted is None:
        counts = Counter(term for terms in sets for term in terms)
        counted = sorted(counts, key=lambda term: (-counts[term], term))[:MOST_TERMS]
    kept = frozenset(counted)
    return [terms & kept for terms in sets]
