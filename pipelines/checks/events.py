"""Events, checked in DuckDB: whole columns at a time, in bounded memory, each row with its line number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from feature_repo.contracts.datasets import QUARANTINE
from pipelines.checks.refusals import RECEIVED_LENGTH
from pipelines.io.arrow import arrow_schema
from pipelines.sources.lines import LINES, UNDECODABLE, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feature_repo.contracts.schemas import ValueRange
    from pipelines.sources.archive import SourceFile
    from pipelines.sources.layout import FileFormat

_MEMORY = "1GB"
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""
_BATCH_ROWS = 1 << 17
_STEP_TOLERANCE = 1e-6
"""Of a step: decimal fractions have no exact binary form."""


class CheckedEvents:
    """The events of one file in a DuckDB database on disk: read once, then asked for what is needed.

    Table `checked`: line, user_id, item_id, value, seconds, and `reason`, which is null where the row passed.
    """

    def __init__(self, scratch: Path, file: SourceFile, form: FileFormat, value: ValueRange) -> None:
        self._file, self._form, self._value = file, form, value
        self._database = duckdb.connect(
            str(scratch / "events.duckdb"), config={"memory_limit": _MEMORY, "temp_directory": str(scratch / "spill")}
        )

    def close(self) -> None:
        """Close the database; its files are the caller's to remove."""
        self._database.close()

    def load(self, items: pa.Table, clock: datetime) -> None:
        """Read the file and judge every row; `items` are the known ones, `clock` is now."""
        failure: list[BaseException] = []
        batches = _keeping(failure, read_lines(self._file, self._form))
        self._database.register("lines", pa.RecordBatchReader.from_batches(LINES, batches))
        self._database.register("items", items.select(["item_id"]))
        value = self._value
        values = [self._form.separator, len(self._form.columns), UNDECODABLE, int(clock.timestamp())]
        values += [value.minimum, value.maximum, value.step]
        _execute(self._database, failure, _CHECK, values)
        self._database.execute(_MARK_DUPLICATES)

    @property
    def rows(self) -> int:
        """Data lines of the file."""
        return self._number("SELECT count(*) FROM checked")

    def span(self) -> tuple[int, int] | None:
        """Return the seconds since 1970 of the first and the last event that passed; None if none did."""
        row = self._database.execute("SELECT min(seconds), max(seconds) FROM checked WHERE reason IS NULL").fetchone()
        return None if row is None or row[0] is None else (int(row[0]), int(row[1]))

    def refused(self) -> pa.Table:
        """Return the refused rows as rows of the quarantine dataset."""
        self._database.register("checks", _checks(self._form, self._value))
        self._database.register("field_names", pa.table({"number": [0, 1, 2, 3], "name": list(self._form.columns)}))
        table = self._database.sql(_REFUSED, params=[self._file.name, RECEIVED_LENGTH]).to_arrow_table()
        return table.select(QUARANTINE.column_names).cast(arrow_schema(QUARANTINE))

    def users(self) -> list[str]:
        """Return the users of all events that passed."""
        rows = self._database.execute("SELECT DISTINCT user_id FROM checked WHERE reason IS NULL").fetchall()
        return [row[0] for row in rows]

    def before(self, cutoff: datetime) -> Iterator[pa.RecordBatch]:
        """Yield the events that passed and lie before `cutoff`, in order of their time."""
        yield from self._database.sql(_ORDERED, params=[int(cutoff.timestamp())]).to_arrow_reader(_BATCH_ROWS)

    def _number(self, query: str) -> int:
        row = self._database.execute(query).fetchone()
        return int(row[0]) if row else 0


_CHECK = f"""
CREATE OR REPLACE TABLE checked AS
WITH cut AS (
    SELECT line, text, string_split(text, $1) AS fields FROM lines
), typed AS (
    SELECT line, text, fields, len(fields) AS number_of_fields,
        fields[1] AS user_id, fields[2] AS item_id,
        TRY_CAST(fields[3] AS DOUBLE) AS value, TRY_CAST(fields[4] AS DOUBLE) AS seconds
    FROM cut
), judged AS (
    SELECT *, CASE
        WHEN contains(text, $3) THEN 'undecodable_bytes'
        WHEN number_of_fields < $2 THEN 'missing_field'
        WHEN number_of_fields > $2 THEN 'too_many_fields'
        WHEN user_id = '' THEN 'missing_user'
        WHEN item_id = '' THEN 'missing_item'
        WHEN value IS NULL THEN 'bad_number'
        WHEN isnan(value) THEN 'not_a_number'
        WHEN value < $5 OR value > $6 THEN 'out_of_range'
        WHEN abs(value / $7 - round(value / $7)) > {_STEP_TOLERANCE} THEN 'not_a_whole_step'
        WHEN seconds IS NULL OR NOT isfinite(seconds) OR seconds <> floor(seconds)
            OR seconds < 0 OR seconds > {_LAST_SECOND} THEN 'bad_time'
        WHEN seconds > $4 THEN 'future_time'
        WHEN item_id NOT IN (SELECT item_id FROM items) THEN 'unknown_item'
    END AS reason FROM typed
)
SELECT line, user_id, item_id, TRY_CAST(value AS FLOAT) AS value, TRY_CAST(seconds AS BIGINT) AS seconds, reason,
    CASE WHEN reason IS NOT NULL THEN text END AS text, CASE WHEN reason IS NOT NULL THEN fields END AS fields
FROM judged
"""  # noqa: S608 - built from constants of this project

# Grouping by a hash first keeps the table that DuckDB has to hold small; only hashes that occur twice are looked at.
_MARK_DUPLICATES = """
UPDATE checked SET reason = 'duplicate_event' WHERE line IN (
    SELECT line FROM (
        SELECT line, row_number() OVER (PARTITION BY user_id, item_id, seconds ORDER BY line) AS nth FROM checked
        WHERE reason IS NULL AND hash(user_id, item_id, seconds) IN (
            SELECT hash(user_id, item_id, seconds) AS code FROM checked WHERE reason IS NULL
            GROUP BY code HAVING count(*) > 1
        )
    ) WHERE nth > 1
)
"""

_REFUSED = """
SELECT $1 AS file, line,
    CASE WHEN reason = 'missing_field' THEN (SELECT name FROM field_names WHERE number = len(fields)) ELSE name END
        AS column,
    reason, expected,
    left(CASE WHEN reason = 'duplicate_event' THEN concat_ws(' ', user_id, item_id, seconds)
        ELSE coalesce(fields[field + 1], text) END, $2) AS received
FROM checked JOIN checks USING (reason)
"""

_ORDERED = """
SELECT user_id, item_id, 'rating' AS event_type, value, make_timestamptz(seconds * 1000000) AS event_time
FROM checked WHERE reason IS NULL AND seconds < $1 ORDER BY seconds, user_id, item_id
"""


_SCAN = """
WITH times AS (SELECT TRY_CAST(string_split(text, $1)[4] AS DOUBLE) AS seconds FROM lines)
SELECT count(*), CAST(max(seconds) FILTER (WHERE isfinite(seconds) AND seconds <= $2) AS BIGINT) FROM times
"""


def scan_events(file: SourceFile, form: FileFormat, clock: datetime) -> tuple[int, datetime | None]:
    """Count a file's lines and find its last time that is not after `clock`, without keeping or judging the rows."""
    failure: list[BaseException] = []
    with duckdb.connect(config={"memory_limit": _MEMORY}) as database:
        database.register("lines", pa.RecordBatchReader.from_batches(LINES, _keeping(failure, read_lines(file, form))))
        row = _execute(database, failure, _SCAN, [form.separator, int(clock.timestamp())]).fetchone()
    rows, last = row or (0, None)
    return rows, None if last is None else datetime.fromtimestamp(last, UTC)


def _keeping(failure: list[BaseException], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pass batches on, keeping an error of the source, which DuckDB would turn into one of its own."""
    try:
        yield from batches
    except Exception as error:
        failure.append(error)
        raise


def _execute(
    database: duckdb.DuckDBPyConnection, failure: list[BaseException], query: str, values: list[object]
) -> duckdb.DuckDBPyConnection:
    """Run a query over kept batches; the source's own error comes first."""
    try:
        return database.execute(query, values)
    except duckdb.Error as error:
        if failure:
            raise failure[0] from error
        raise


def _checks(form: FileFormat, value: ValueRange) -> pa.Table:
    """Say of every reason which field it is about (none: the whole line), and what was expected."""
    fields = f"{len(form.columns)} fields"
    values = f"{value.minimum:g} to {value.maximum:g} in steps of {value.step:g} ({value.meaning})"
    seconds = "whole seconds since 1970"
    checks: dict[str, tuple[int | None, str]] = {
        "undecodable_bytes": (None, f"{form.encoding.upper()} text"),
        "missing_field": (None, fields),
        "too_many_fields": (None, fields),
        "missing_user": (0, "an id"),
        "missing_item": (1, "an id"),
        "bad_number": (2, values),
        "not_a_number": (2, values),
        "out_of_range": (2, values),
        "not_a_whole_step": (2, values),
        "bad_time": (3, seconds),
        "future_time": (3, f"{seconds}, not after the clock"),
        "unknown_item": (1, "an item of the items file"),
        "duplicate_event": (None, "one event of a user, an item and a second; the first is kept"),
    }
    return pa.table(
        {
            "reason": list(checks),
            "field": pa.array([field for field, _ in checks.values()], pa.int64()),
            "name": [form.columns[field] if field is not None else "" for field, _ in checks.values()],
            "expected": [expected for _, expected in checks.values()],
        }
    )
