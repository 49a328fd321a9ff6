"""What can be read, and is hardly meant as it was declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from feature_repo.contracts.columns import FLOAT32_ERROR
from feature_repo.contracts.features import MISSING
from feature_repo.contracts.schemas import Kind
from pipelines.checks.remedies import NO_VALUE
from pipelines.io.sql_text import literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import duckdb
    import pyarrow as pa

    from feature_repo.contracts.schemas import Attribute, Schema

_ROWS_AT_LEAST = 20
"""Of fewer rows nothing can be told of terms."""
_EVENTS_AT_LEAST = 100
_USERS_AT_LEAST = 10
_LARGE = 0.25
PASSED = "_reason IS NULL AND _skip IS NULL"
"""Of rows of `checked` (`events.py`): those that become events."""
_FEW = 0.01
"""Of values between steps no larger share is worth a word: a price of a tenth of a penny may be rounded."""
_STEP_TOLERANCE = 1e-3


def implausible_attributes(schema: Schema, items: pa.Table, users: pa.Table) -> list[str]:
    """Return a sentence for each attribute whose values are hardly what was declared.

    A multi-valued one with more terms than rows is free text, or has another separator. Features of a numeric one count
    whole steps, and take MISSING for no value.
    """
    return [
        warning
        for owner, rows, attributes in (
            ("item", items, schema.item_attributes),
            ("user", users, schema.user_attributes),
        )
        for attribute in attributes
        for warning in _implausible(owner, rows, attribute)
    ]


def implausible_events(database: duckdb.DuckDBPyConnection, schema: Schema) -> list[str]:
    """Return a sentence for whatever in the rows of `checked` that passed is hardly meant as it is."""
    return [
        *(warning for owner in ("user", "item") for warning in _implausible_ids(database, owner)),
        *(() if schema.is_implicit else _one_sided(database, schema)),
    ]


def _implausible_ids(database: duckdb.DuckDBPyConnection, owner: str) -> Iterator[str]:
    """Tell of ids that are none, or were made by a spreadsheet, and of a user who has much of everything."""
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE ids AS SELECT {owner}_id AS id, count(*) AS events FROM checked "  # noqa: S608 - constants
        f"WHERE {PASSED} GROUP BY ALL"
    )
    for text, events in database.execute(_NO_IDS, [sorted(NO_VALUE)]).fetchall():
        yield (
            f"{owner} {text!r}: expected an id, received {events:,} events of a text that mostly stands for none; "
            f"say missing: [{text!r}], and leave such rows out by events.skip"
        )
    ((number, example),) = database.execute(_WRITTEN_TWICE).fetchall()
    if number:
        yield (
            f"{owner} ids: expected one text for each, received {number:,} both as {example!r} and as "
            f"{example.split('.')[0]!r}; say events.{owner}: {{column: ..., whole_number: true}}"
        )
    ((number, example),) = database.execute(_ROUNDED).fetchall()
    if number:
        yield (
            f"{owner} ids: expected whole texts, received {number:,} such as {example!r}, to which spreadsheets round "
            "long numbers: several ids have become one; export the column as text"
        )
    if owner == "user":
        yield from _too_busy(database)


def _too_busy(database: duckdb.DuckDBPyConnection) -> Iterator[str]:
    ((users, events, busiest, most),) = database.execute(_BUSIEST).fetchall()
    if users >= _USERS_AT_LEAST and events >= _EVENTS_AT_LEAST and most > _LARGE * events:
        yield (
            f"user {busiest!r}: expected events of many users, received {most:,} of all {events:,} from this one; "
            "is it everybody without an account? Leave such rows out by events.skip"
        )


_NO_IDS = "SELECT id, events FROM ids WHERE lower(id) IN (SELECT unnest($1::VARCHAR[])) ORDER BY id"
_WRITTEN_TWICE = r"""
SELECT count(*), min(id) FROM ids
WHERE regexp_full_match(id, '[+-]?\d+\.0+') AND split_part(id, '.', 1) IN (SELECT id FROM ids)
"""
_ROUNDED = r"SELECT count(*), min(id) FROM ids WHERE regexp_full_match(id, '[+-]?\d([.,]\d+)?[eE]\+?\d+')"
_BUSIEST = "SELECT count(*), sum(events), arg_min(id, (-events, id)), max(events) FROM ids"


def _one_sided(database: duckdb.DuckDBPyConnection, schema: Schema) -> Iterator[str]:
    """Tell of explicit feedback of which all is liking, or none: nothing can be learned of it."""
    counted = f"event_type IN ({_texts(each.name for each in schema.event_types if each.counted)})"
    likes = f"event_type IN ({_texts(schema.positive.event_types)}) AND value >= {schema.positive.min_value}"
    ((rows, events, positive),) = database.execute(
        f"SELECT count(*), count(*) FILTER ({counted}), count(*) FILTER ({counted} AND {likes}) FROM checked "  # noqa: S608 - quoted
        f"WHERE {PASSED}"
    ).fetchall()
    if rows < _EVENTS_AT_LEAST or not events:
        return
    if positive == events:
        yield (
            f"feedback: expected likes and others, as feedback is explicit, received {events:,} likes and no others; "
            "say feedback: implicit, by which what was passed over is drawn, or raise positive.min_value"
        )
    if not positive:
        yield (
            f"positive: expected some of {events:,} events to be likes, received none; lower positive.min_value, or "
            "name other positive.event_types"
        )


def _texts(texts: Iterable[str]) -> str:
    return ", ".join(map(literal, texts))


def _implausible(owner: str, rows: pa.Table, attribute: Attribute) -> Iterator[str]:
    values = rows.column(attribute.name)
    what = f"{owner} attribute {attribute.name}"
    if attribute.kind is Kind.MULTI_VALUED:
        yield from _too_many_terms(owner, what, values)
    if attribute.kind is Kind.NUMERIC:
        numbers = values.drop_null().to_numpy().astype(np.float64)
        yield from _no_whole_steps(what, numbers, attribute.step)
        yield from _as_if_missing(what, numbers)


def _too_many_terms(owner: str, what: str, values: pa.ChunkedArray) -> Iterator[str]:
    terms = pc.count_distinct(pc.list_flatten(values)).as_py()
    if len(values) >= _ROWS_AT_LEAST and terms > len(values):
        yield (
            f"{what}: expected terms that several {owner}s share, received {terms:,} different ones in {len(values):,} "
            "rows; is it text, or is the separator another one?"
        )


def _no_whole_steps(what: str, numbers: np.ndarray, step: float) -> Iterator[str]:
    steps = numbers / step
    distance = np.abs(steps - np.round(steps))
    wrong = numbers[distance > np.maximum(_STEP_TOLERANCE, np.abs(steps) * FLOAT32_ERROR)]
    if len(wrong) > _FEW * len(numbers):
        yield (
            f"{what}: expected whole steps of {step:g}, received {len(wrong):,} of {len(numbers):,} values between, "
            f"such as {wrong.min():.6g}, which features round; give it a smaller step"
        )


def _as_if_missing(what: str, numbers: np.ndarray) -> Iterator[str]:
    if times := int((numbers == MISSING).sum()):
        yield (
            f"{what}: expected numbers other than {MISSING:g}, which stands for no value in features, received it in "
            f"{times:,} of {len(numbers):,} values; leave these empty if nothing is meant, or count from another zero"
        )
