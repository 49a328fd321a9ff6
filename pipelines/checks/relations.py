"""Who follows whom, checked in DuckDB: whole columns at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from feature_repo.contracts.datasets import RELATIONS
from feature_repo.contracts.events import ID_MEANING
from pipelines.checks.judging import FAULT, is_no_id, judged, named, refused_rows
from pipelines.checks.times import micros_of_moment, time_checks
from pipelines.io.arrow import arrow_schema
from pipelines.io.sql_text import literal
from pipelines.sources.adapter import CheckedTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pipelines.checks.judging import Check
    from pipelines.sources.adapter import RelationFields, TypedPart

_MEMORY = "1GB"


def check_relations(parts: Sequence[TypedPart], fields: RelationFields, clock: datetime) -> CheckedTable:
    """Read and check the files of relations; `clock` is now: nobody follows anybody since later.

    Of rows of the same two users the earliest counts, and no other is refused: to say a thing twice is no mistake.
    """
    checks = _checks(fields, micros_of_moment(clock))
    with duckdb.connect(config={"memory_limit": _MEMORY}) as database:
        database.execute("SET TimeZone = 'UTC'")
        for number, part in enumerate(parts):
            with part.typed(database) as typed:
                rows = judged(typed, checks, [f"{number} AS _part", "_line", "user_id", "other_user_id", "micros"])
                database.execute(f"INSERT INTO checked {rows}" if number else f"CREATE TABLE checked AS {rows}")
        cases = " ".join(f"WHEN {number} THEN {literal(part.file)}" for number, part in enumerate(parts))
        refused = refused_rows(database, "checked", f"CASE _part {cases} END")
        counts = dict(database.execute("SELECT _part, count(*) FROM checked GROUP BY _part").fetchall())
        passed = database.sql(_PASSED).to_arrow_table()
    accepted = passed.select(RELATIONS.column_names).cast(arrow_schema(RELATIONS))
    return CheckedTable(accepted, refused, {part.file: counts.get(number, 0) for number, part in enumerate(parts)})


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
