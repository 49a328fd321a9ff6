"""Rows of a source, judged in DuckDB by one list of checks: the first that a row fails is the reason of its refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import QUARANTINE
from feature_repo.contracts.ids import ID_MAX, ID_PATTERN
from pipelines.checks.refusals import RECEIVED_LENGTH
from pipelines.io.arrow import arrow_schema
from pipelines.io.sql_text import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import pyarrow as pa

REFUSAL_COLUMNS = ("_reason", "_fault_column", "_expected", "_received")

TERM_MAX = ID_MAX
"""Characters of a term: more is a mistake of the mapping, and every copy of it costs memory online."""
TERM_MEANING = f"a term of up to {TERM_MAX} characters, none of them a control character"


@dataclass(frozen=True, slots=True)
class Check:
    """What refuses a row. All parts but the first are SQL over the row."""

    reason: str
    """Short code; an SQL expression where it begins with a bracket."""
    refuses: str
    """True, not null, where the row is refused."""
    column: str
    expected: str
    received: str


FAULT = Check("(_fault)", "_fault IS NOT NULL", "_fault_column", "_fault_expected", "_fault_received")
"""A row that could not be read at all."""


def named(reason: str, refuses: str, column: str, expected: str, received: str) -> Check:
    """Return a check whose column and expectation are plain texts."""
    return Check(reason, refuses, literal(column), literal(expected), received)


def is_no_id(text: str) -> str:
    """Return SQL that tells whether a text is no id as it stands, as `contracts.ids.is_id` has it."""
    return f"(length({text}) > {ID_MAX} OR NOT regexp_full_match({text}, {literal(ID_PATTERN)}))"


def is_no_term(text: str) -> str:
    """Return SQL that tells whether a term is too long or holds a control character."""
    return f"(length({text}) > {TERM_MAX} OR regexp_matches({text}, '[\\x00-\\x1f\\x7f]'))"


def judged(typed: str, checks: Sequence[Check], kept: Sequence[str], *, skip: str = "NULL") -> str:
    """Return a query of the columns `kept` and `REFUSAL_COLUMNS`; the latter are null where the row passed.

    Rows where `skip` is not null are not judged.
    """
    cases = " ".join(f"WHEN {check.refuses} THEN {number}" for number, check in enumerate(checks))
    reasons = (check.reason if check.reason.startswith("(") else literal(check.reason) for check in checks)
    told = ", ".join(
        f"CASE _verdict {' '.join(f'WHEN {number} THEN {part}' for number, part in enumerate(parts))} END AS {name}"
        for name, parts in zip(
            REFUSAL_COLUMNS,
            (
                reasons,
                (check.column for check in checks),
                (check.expected for check in checks),
                (f"left(CAST({check.received} AS VARCHAR), {RECEIVED_LENGTH})" for check in checks),
            ),
            strict=True,
        )
    )
    return (
        f"SELECT {', '.join(kept)}, {told} FROM (SELECT *, "  # noqa: S608 - built from constants and quoted names
        f"CASE WHEN {skip} IS NOT NULL THEN NULL {cases} END AS _verdict FROM ({typed}))"
    )


def refused_rows(database: duckdb.DuckDBPyConnection, table: str, file: str) -> pa.Table:
    """Return the refused rows of a judged table as rows of the quarantine dataset; `file` is SQL for a file's name."""
    rows = database.sql(
        f"SELECT {file} AS file, _line AS line, coalesce(_fault_column, '') AS \"column\", "  # noqa: S608 - as above
        f"_reason AS reason, _expected AS expected, coalesce(_received, '') AS received "
        f"FROM {table} WHERE _reason IS NOT NULL"
    ).to_arrow_table()
    return rows.select(QUARANTINE.column_names).cast(arrow_schema(QUARANTINE))
