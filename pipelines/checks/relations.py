"""Who follows whom, checked in DuckDB: whole columns at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from feature_repo.contracts.datasets import RELATIONS
from feature_repo.contracts.ids import ID_MEANING
from pipelines.checks.checked_parts import checked_table, judge_parts
from pipelines.checks.judging import FAULT, is_no_id, named
from pipelines.checks.strays import check_not_all_of_1970, refuse_strays
from pipelines.checks.times import micros_of_moment, time_checks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pipelines.checks.judging import Check
    from pipelines.sources.adapter import CheckedTable, RelationFields, TimeField, TypedPart

_MEMORY = "1GB"


def check_relations(parts: Sequence[TypedPart], fields: RelationFields, clock: datetime) -> CheckedTable:
    """Read and check the files of relations; `clock` is now: nobody follows anybody since later.

    Of rows of the same two users the earliest counts, and no other is refused: to say a thing twice is no mistake.

    Raises:
        SourceError: all of it is of 1970.
    """
    checks = _checks(fields, micros_of_moment(clock))
    with duckdb.connect(config={"memory_limit": _MEMORY}) as database:
        database.execute("SET TimeZone = 'UTC'")
        judge_parts(database, parts, checks, ["user_id", "other_user_id", "micros"])
        if fields.since:
            _check_plausible(database, fields.since)
        return checked_table(database, parts, RELATIONS, _PASSED)


def _check_plausible(database: duckdb.DuckDBPyConnection, since: TimeField) -> None:
    refuse_strays(database, "_reason IS NULL", since)
    query = "SELECT make_timestamptz(min(micros)), make_timestamptz(max(micros)) FROM checked WHERE _reason IS NULL"
    ((first, last),) = database.execute(query).fetchall()
    if last:
        check_not_all_of_1970("relations.since", since, (first, last))


_PASSED = """
SELECT user_id, other_user_id, make_timestamptz(min(micros)) AS since FROM checked WHERE _reason IS NULL
GROUP BY user_id, other_user_id
"""


def _checks(fields: RelationFields, now: int) -> list[Check]:
    ids = (("user_id", fields.user, "_user_text"), ("other_user_id", fields.other, "_other_text"))
    return [
        FAULT,
        *(
            check
            for name, column, text in ids
            for check in (
                named("missing_user", f"coalesce({name}, '') = ''", column, "an id", text),
                named("bad_id", is_no_id(name), column, ID_MEANING, text),
            )
        ),
        named("follows_itself", "user_id = other_user_id", fields.other, "the id of another user", "_other_text"),
        *(time_checks(fields.since, now) if fields.since else ()),
    ]
