"""Who is asked at an origin, and what they liked after it: DuckDB over the lake's events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts.datasets import EVENT_TIME, EVENT_TYPE, ITEM_ID, USER_ID, VALUE
from feature_repo.contracts.questions import (
    ANSWERS,
    ASKED,
    ASKED_TIME,
    HISTORY,
    QUESTION_ID,
    QUESTIONS,
    Asked,
    Role,
)
from pipelines.feast_store.tables import microseconds
from pipelines.io.arrow import conform
from pipelines.io.sql_text import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import duckdb
    from numpy.typing import NDArray

    from feature_repo.contracts.schemas import Positive
    from pipelines.questions.origins import Origin

SAMPLING = "questions-1"
"""Seed of which users are asked where there are too many. Raised by whoever changes how."""
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class AskedUsers:
    """Questions and answers of one origin."""

    questions: pa.Table
    """Rows of QUESTIONS."""
    answers: pa.Table
    """Rows of ANSWERS, of the asked users."""
    counted: Mapping[str, object]
    """Figures for the manifest."""

    @property
    def users(self) -> pa.Array:
        """Who is asked, ascending."""
        at_origin = pc.equal(self.questions.column(ASKED.name), Asked.AT_ORIGIN.value)
        return self.questions.column(USER_ID.name).filter(at_origin).combine_chunks()


@dataclass(frozen=True, slots=True)
class Likes:
    """What was liked before an origin: each user and item once, with the latest time."""

    user_ids: NDArray[np.str_]
    """`[users]`, ascending: those who like anything."""
    item_ids: NDArray[np.str_]
    """`[items]`, ascending: those that anybody likes."""
    users: NDArray[np.intp]
    """`[likes]`, positions in `user_ids`: an array of texts takes four bytes for each letter of the longest."""
    items: NDArray[np.intp]
    """`[likes]`, positions in `item_ids`."""
    age_days: NDArray[np.float64]
    """`[likes]`, how long before the origin it was liked last."""


def is_positive(positive: Positive) -> str:
    """Return, as SQL, whether an event says that the user likes the item."""
    types = ", ".join(map(literal, positive.event_types))
    return f"({identifier(EVENT_TYPE.name)} IN ({types}) AND {identifier(VALUE.name)} >= {positive.threshold!r}::FLOAT)"


def first_and_last_event(connection: duckdb.DuckDBPyConnection) -> tuple[datetime, datetime]:
    """Return the times of the first and the last event of the view `events`, which has one at least."""
    query = f"SELECT min({EVENT_TIME.name}), max({EVENT_TIME.name}) FROM events"  # noqa: S608 - a contract's column
    ((first, last),) = connection.execute(query).fetchall()
    return first, last


def span_before(connection: duckdb.DuckDBPyConnection, moment: datetime) -> tuple[datetime, datetime] | None:
    """Return the times of the first and the last event before a moment; None where there is none."""
    query = (
        f"SELECT min({EVENT_TIME.name}), max({EVENT_TIME.name}) FROM events "  # noqa: S608 - a contract's column
        f"WHERE {microseconds(EVENT_TIME.name)} < {time_us(moment)}"
    )
    ((first, last),) = connection.execute(query).fetchall()
    return None if first is None else (first, last)


def ask(connection: duckdb.DuckDBPyConnection, origin: Origin, positive: Positive, most_users: int) -> AskedUsers:
    """Return the questions of everybody who likes something new after the origin, or of a sample of them.

    Args:
        connection: With the view `events`.
        origin: Where.
        positive: What is a like.
        most_users: How many are asked at most.
    """
    connection.execute(
        _TABLES.format(positive=is_positive(positive), start=time_us(origin.moment), end=time_us(origin.end))
    )
    ((likes, repeats),) = connection.execute("SELECT count(*), count(*) FILTER (had) FROM liked_after").fetchall()
    ((users, answers, new_items),) = connection.execute(
        "SELECT count(DISTINCT user_id), count(*), count(DISTINCT item_id) FILTER (is_new = 1) FROM answer"
    ).fetchall()
    asked = connection.sql(_ASKED, params=[SAMPLING, most_users]).to_arrow_table()
    connection.register("asked_users", asked.select([USER_ID.name]))
    rows = connection.sql("SELECT answer.* FROM answer SEMI JOIN asked_users USING (user_id)").to_arrow_table()
    connection.unregister("asked_users")
    counted = {
        "users": users,
        "asked": asked.num_rows,
        "answers": answers,
        "new_items": new_items,
        "repeats": repeats / likes if likes else None,
    }
    return AskedUsers(_questions(asked, origin), conform(rows, ANSWERS), counted)


_TABLES = """
CREATE OR REPLACE TEMP TABLE met AS
    SELECT DISTINCT user_id, item_id FROM events WHERE epoch_us(event_time) < {start};
CREATE OR REPLACE TEMP TABLE known_item AS SELECT DISTINCT item_id FROM met;
CREATE OR REPLACE TEMP TABLE liked_after AS
    SELECT after.*, met.user_id IS NOT NULL AS had, (known_item.item_id IS NULL)::BIGINT AS is_new FROM (
        SELECT user_id, item_id, min(event_time) AS liked_time FROM events
        WHERE {positive} AND epoch_us(event_time) >= {start} AND epoch_us(event_time) < {end} GROUP BY ALL
    ) AS after LEFT JOIN met USING (user_id, item_id) LEFT JOIN known_item USING (item_id);
CREATE OR REPLACE TEMP TABLE answer AS
    SELECT user_id, item_id, liked_time, is_new FROM liked_after WHERE NOT had;
CREATE OR REPLACE TEMP TABLE asked_user AS
    SELECT user_id, count(*) FILTER (epoch_us(event_time) < {start}) AS history,
        min(event_time) FILTER (epoch_us(event_time) >= {start}) AS next_time
    FROM events SEMI JOIN answer USING (user_id) GROUP BY user_id;
"""
_ASKED = """
SELECT * FROM (SELECT * FROM asked_user ORDER BY md5_number_lower(concat($1, '|', user_id)), user_id LIMIT $2)
ORDER BY user_id
"""


def time_us(moment: datetime) -> int:
    """Return microseconds since 1970."""
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def _questions(asked: pa.Table, origin: Origin) -> pa.Table:
    """Return a question of each user at the origin, and where lists are judged one just before the next event."""
    count = asked.num_rows
    stamp = pa.timestamp("us", tz="UTC")
    moments = {Asked.AT_ORIGIN: pa.array(np.full(count, time_us(origin.moment)), pa.int64()).cast(stamp)}
    if origin.role is Role.TEST:
        moments[Asked.BEFORE_NEXT] = asked.column("next_time").cast(stamp).combine_chunks()
    columns = {
        QUESTION_ID.name: pa.array(range(count * len(moments)), pa.int64()),
        USER_ID.name: pa.chunked_array([*asked.column(USER_ID.name).chunks] * len(moments), pa.string()),
        ASKED.name: pa.array(np.repeat([kind.value for kind in moments], count), pa.string()),
        ASKED_TIME.name: pa.concat_arrays(list(moments.values())),
        HISTORY.name: pa.chunked_array([*asked.column(HISTORY.name).chunks] * len(moments), pa.int64()),
    }
    return conform(pa.table(columns), QUESTIONS)


def likes_before(connection: duckdb.DuckDBPyConnection, moment: datetime, positive: Positive) -> Likes:
    """Return what users liked before a moment, in the order of users and items."""
    rows = connection.sql(
        f"SELECT {USER_ID.name}, {ITEM_ID.name}, ($start - max({microseconds(EVENT_TIME.name)})) / {_DAY_US} AS age "  # noqa: S608 - quoted
        f"FROM events WHERE {is_positive(positive)} AND {microseconds(EVENT_TIME.name)} < $start "
        f"GROUP BY ALL ORDER BY {USER_ID.name}, {ITEM_ID.name}",
        params={"start": time_us(moment)},
    ).to_arrow_table()
    (user_ids, users), (item_ids, items) = (_numbered(rows.column(name)) for name in (USER_ID.name, ITEM_ID.name))
    return Likes(user_ids, item_ids, users, items, pc.cast(rows.column("age"), pa.float64()).to_numpy())


def _numbered(ids: pa.ChunkedArray) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """Return the distinct ids, ascending, and for each row the position of its own."""
    coded = ids.dictionary_encode().unify_dictionaries().combine_chunks()
    distinct = coded.dictionary.to_numpy(zero_copy_only=False).astype(np.str_)
    order = np.argsort(distinct)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return distinct[order], ranks[coded.indices.to_numpy()]


def seen_before(connection: duckdb.DuckDBPyConnection, moment: datetime, users: pa.Array) -> pa.Table:
    """Return user_id, item_id of everything that some users had an event with before a moment."""
    connection.register("some_users", pa.table({USER_ID.name: users}))
    rows = connection.sql(
        f"SELECT DISTINCT {USER_ID.name}, {ITEM_ID.name} FROM events SEMI JOIN some_users USING ({USER_ID.name}) "  # noqa: S608 - contract columns
        f"WHERE {microseconds(EVENT_TIME.name)} < $start ORDER BY ALL",
        params={"start": time_us(moment)},
    ).to_arrow_table()
    connection.unregister("some_users")
    return rows
