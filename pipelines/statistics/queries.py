"""The daily statistics as SQL: from a few days' events, and the items and users, to the rows of those days.

Means are sums of integers (millionths) over counts, so that no order of execution can change them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import EVENT_TYPE, ITEM_ID, ITEMS, USER_ID, USERS
from feature_repo.contracts.schemas import Kind
from feature_repo.contracts.statistics import DAILY_ACTIVITY, DAILY_TERMS, DAILY_TOP_ITEMS, TOP_ITEMS, TOP_TERMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_repo.contracts.schemas import Schema

_MILLION = 1_000_000
_FIGURES = f"""
    count(*) AS events,
    count(DISTINCT user_id) AS active_users,
    count(DISTINCT item_id) AS active_items,
    CAST(sum(CAST(round(value * {_MILLION}) AS HUGEINT)) / {_MILLION} / count(*) AS FLOAT) AS value_mean,
    CAST(count(*) FILTER (WHERE positive) / count(*) AS FLOAT) AS positive_share
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """An attribute whose terms are counted: a column of events, items or users, a list where it may have several."""

    dataset: str
    """The table's name in the query."""
    column: str
    key: str = ""
    """What joins the table to the events; empty for a column of the events."""
    is_list: bool = False

    @property
    def name(self) -> str:
        """What the statistics call it."""
        return f"{self.dataset}.{self.column}"


def counted_terms(schema: Schema) -> tuple[Terms, ...]:
    """Return the event type, and every attribute of items and users that has terms."""
    sides = ((ITEMS, ITEM_ID.name, schema.item_attributes), (USERS, USER_ID.name, schema.user_attributes))
    return (
        Terms("events", EVENT_TYPE.name),
        *(
            Terms(dataset, attribute.name, key, attribute.kind is Kind.MULTI_VALUED)
            for dataset, key, attributes in sides
            for attribute in attributes
            if attribute.is_term
        ),
    )


def is_positive(schema: Schema) -> str:
    """Return the condition on a row of events that it shows a liking, as SQL."""
    types = ", ".join(f"'{name}'" for name in schema.positive.event_types)
    return f"event_type IN ({types}) AND value >= {schema.positive.threshold!r}::FLOAT"


def daily_queries(terms: Sequence[Terms]) -> dict[str, str]:
    """Return table name → query over the views `events` (with `day` and `positive`), `items` and `users`."""
    return {
        DAILY_ACTIVITY.name: f"SELECT day, {_FIGURES} FROM events GROUP BY day",  # noqa: S608 - constants of this project
        DAILY_TOP_ITEMS.name: f"""
            SELECT *, row_number() OVER (PARTITION BY day ORDER BY events DESC, item_id) AS place
            FROM (SELECT day, item_id, {_FIGURES} FROM events GROUP BY day, item_id)
            QUALIFY place <= {TOP_ITEMS}""",  # noqa: S608 - as above
        DAILY_TERMS.name: " UNION ALL ".join(map(_terms, terms)),
    }


FIRST_DAYS = """
SELECT day, count(*) FILTER (WHERE entity = 'user') AS new_users, count(*) FILTER (WHERE entity = 'item') AS new_items
FROM (
    SELECT 'user' AS entity, min(day) AS day FROM events GROUP BY user_id
    UNION ALL
    SELECT 'item' AS entity, min(day) AS day FROM events GROUP BY item_id
) GROUP BY day
"""
"""How many users and items have their first event on each day, where `events` are all there are."""


def _terms(attribute: Terms) -> str:
    column = f'{attribute.dataset}."{attribute.column}"'
    term = f"coalesce({column}, '')"
    if attribute.is_list:
        # One row per term, each once; an empty list has the empty term.
        term = f"unnest(CASE WHEN coalesce(len({column}), 0) = 0 THEN [''] ELSE list_distinct({column}) END)"
    join = f'LEFT JOIN {attribute.dataset} USING ("{attribute.key}")' if attribute.key else ""
    return f"""
        SELECT * FROM (
            SELECT day, '{attribute.name}' AS attribute, term, {_FIGURES}
            FROM (SELECT events.*, {term} AS term FROM events {join}) GROUP BY day, term
        ) QUALIFY row_number() OVER (PARTITION BY day ORDER BY events DESC, term) <= {TOP_TERMS}
    """  # noqa: S608 - names come from the contracts
