"""Events, checked in DuckDB: whole columns at a time, in bounded memory, each row with its line number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb

from feature_repo.contracts.columns import Dtype
from feature_repo.contracts.events import STEP_TOLERANCE
from feature_repo.contracts.ids import ID_MEANING
from pipelines.checks.attributes import attribute_checks
from pipelines.checks.judging import FAULT, REFUSAL_COLUMNS, is_no_id, judged, named, refused_rows
from pipelines.checks.plausibility import PASSED, implausible_events
from pipelines.checks.strays import refuse_strays
from pipelines.checks.times import micros_of_moment, time_checks
from pipelines.io.sql_text import identifier, literal
from pipelines.sources.adapter import REPEATED, Duplicates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from feature_repo.contracts.schemas import ValueRange
    from pipelines.checks.judging import Check
    from pipelines.sources.adapter import Derived, EventFields, Source

_MEMORY = "1GB"
_BATCH_ROWS = 1 << 17
_MERGED = -1
"""The `skip` of a row that went into another one."""
_KEY = "user_id, item_id, event_type, micros"


class CheckedEvents:
    """The events of a source in a DuckDB database on disk: read once, then asked for what is needed.

    Table `checked`: part (number of the file), line, skip, user_id, item_id, event_type, value, micros, what is
    derived, and `reason`, which is null where the row passed.
    """

    def __init__(self, scratch: Path, source: Source) -> None:
        self._source = source
        self._files: list[str] = []
        file = str(scratch / "events.duckdb")
        # DuckDB finds no place for its log where a path has a question mark: then all that does not fit is spilled.
        place = ":memory:" if "?" in file else file
        options = {"memory_limit": _MEMORY, "temp_directory": str(scratch / "spill")}
        self._database = duckdb.connect(place, config=options)
        self._database.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """Close the database; its files are the caller's to remove."""
        self._database.close()

    def load(self, items: pa.Table | None, clock: datetime, held: Iterable[tuple[int, int]] = ()) -> None:
        """Read every file and judge every row.

        Args:
            items: the known ones, None where any will do.
            clock: now.
            held: what the lake has beside, as `refuse_strays` takes it.
        """
        if items is not None:
            self._database.register("items", items.select(["item_id"]))
        source = self._source
        checks = event_checks(source, micros_of_moment(clock), knows_items=items is not None)
        derived = [identifier(derived.column.name) for derived in source.derived]
        step = source.schema.value.step
        kept = [
            "_line",
            "_skip",
            "user_id",
            "item_id",
            "event_type",
            f"TRY_CAST(round(value / {step!r}) * {step!r} AS FLOAT) AS value",
            "micros",
            *derived,
        ]
        self._database.execute(f"CREATE OR REPLACE TABLE checked ({_columns(source.derived)})")
        for number, part in enumerate(source.event_parts()):
            self._files.append(part.file)
            with part.typed(self._database) as typed:
                rows = judged(typed, checks, [f"{number} AS _part", *kept], skip="_skip")
                self._database.execute(f"INSERT INTO checked {rows}")
        refuse_strays(self._database, PASSED, source.fields.time, held)
        self._settle_duplicates()

    def warnings(self) -> list[str]:
        """Return a sentence for whatever is hardly meant as it is."""
        return implausible_events(self._database, self._source.schema)

    @property
    def rows(self) -> dict[str, int]:
        """Data rows of each file."""
        counts = dict(self._database.execute("SELECT _part, count(*) FROM checked GROUP BY _part").fetchall())
        return {file: counts.get(number, 0) for number, file in enumerate(self._files)}

    @property
    def skipped(self) -> dict[str, int]:
        """How many rows were left out for each reason, and how many went into another row."""
        rows = self._database.execute("SELECT _skip, count(*) FROM checked WHERE _skip IS NOT NULL GROUP BY _skip")
        counts = dict(rows.fetchall())
        by_reason = dict.fromkeys(self._source.skips, 0)
        for number, reason in enumerate(self._source.skips):
            by_reason[reason] += counts.get(number, 0)
        return by_reason | ({REPEATED: counts[_MERGED]} if _MERGED in counts else {})

    def span(self) -> tuple[datetime, datetime] | None:
        """Return the times of the first and the last event that passed; None if none did."""
        query = f"SELECT min(micros), max(micros) FROM checked WHERE {PASSED}"  # noqa: S608 - constants
        ((first, last),) = self._database.execute(query).fetchall()
        return None if first is None else (_moment(first), _moment(last))

    def refused(self) -> pa.Table:
        """Return the refused rows as rows of the quarantine dataset."""
        cases = " ".join(f"WHEN {number} THEN {literal(file)}" for number, file in enumerate(self._files))
        return refused_rows(self._database, "checked", f"CASE _part {cases} END" if cases else "''")

    def passed(self) -> duckdb.DuckDBPyRelation:
        """Return user_id, item_id and micros of the events that passed."""
        return self._database.sql(f"SELECT user_id, item_id, micros FROM checked WHERE {PASSED}")  # noqa: S608 - constants

    def users(self) -> list[str]:
        """Return the users of all events that passed."""
        rows = self._database.execute(f"SELECT DISTINCT user_id FROM checked WHERE {PASSED}").fetchall()  # noqa: S608 - constants
        return [row[0] for row in rows]

    def before(self, cutoff: datetime) -> Iterator[pa.RecordBatch]:
        """Yield the events that passed and lie before `cutoff`, in order of their time."""
        yield from self._ordered("value", cutoff)

    def observations(self, cutoff: datetime) -> Iterator[pa.RecordBatch]:
        """Yield what the same rows say of items and users, in the same order."""
        names = (identifier(derived.column.name) for derived in self._source.derived)
        yield from self._ordered(", ".join(names), cutoff)

    def _ordered(self, columns: str, cutoff: datetime) -> Iterator[pa.RecordBatch]:
        query = (
            f"SELECT user_id, item_id, event_type, make_timestamptz(micros) AS event_time, {columns} FROM checked "  # noqa: S608 - constants and quoted names
            f"WHERE {PASSED} AND micros < {micros_of_moment(cutoff)} ORDER BY micros, user_id, item_id, event_type"
        )
        yield from self._database.sql(query).to_arrow_reader(_BATCH_ROWS)

    def _settle_duplicates(self) -> None:
        """Make one event of the rows that describe one, in the way that the source declares."""
        self._database.execute(_REPEATED)
        match self._source.duplicates:
            case Duplicates.REFUSE:
                self._database.execute(_REFUSE_REPEATED)
            case Duplicates.FIRST:
                self._database.execute(f"{_SKIP_REPEATED} WHERE nth > 1)")
            case Duplicates.LAST:
                self._database.execute(f"{_SKIP_REPEATED} WHERE nth < copies)")
            case Duplicates.SUM:
                maximum = self._source.schema.value.maximum
                fields = [literal(self._source.fields.value), literal(_range(self._source.schema.value))]
                self._database.execute(_REFUSE_SUM.format(maximum=maximum, column=fields[0], expected=fields[1]))
                self._database.execute(f"{_SKIP_REPEATED} WHERE nth > 1 AND total <= {maximum})")
                self._database.execute(f"{_SUM_REPEATED} AND total <= {maximum}")


# Grouping by a hash first keeps the table that DuckDB has to hold small; only hashes that occur twice are looked at.
_REPEATED = f"""
CREATE OR REPLACE TEMP TABLE repeated AS
SELECT rowid AS id, row_number() OVER place AS nth, count(*) OVER events AS copies,
    sum(CAST(value AS DOUBLE)) OVER events AS total
FROM checked WHERE {PASSED} AND hash({_KEY}) IN (
    SELECT hash({_KEY}) AS code FROM checked WHERE {PASSED} GROUP BY code HAVING count(*) > 1
)
WINDOW events AS (PARTITION BY {_KEY}), place AS (PARTITION BY {_KEY} ORDER BY _part, _line, rowid)
"""  # noqa: S608 - constants
_EVENT = "concat_ws(' ', user_id, item_id, event_type, strftime(make_timestamp(micros), '%Y-%m-%dT%H:%M:%SZ'))"
_REFUSE_REPEATED = f"""
UPDATE checked SET _reason = 'duplicate_event', _fault_column = '', _received = {_EVENT},
    _expected = 'one row for each user, item, type and time; the first is kept'
WHERE rowid IN (SELECT id FROM repeated WHERE nth > 1)
"""  # noqa: S608 - constants
_REFUSE_SUM = """
UPDATE checked SET _reason = 'out_of_range', _fault_column = {column}, _expected = {expected},
    _received = concat('a sum of ', total)
FROM repeated WHERE checked.rowid = repeated.id AND total > {maximum}
"""
_SUM_REPEATED = "UPDATE checked SET value = total FROM repeated WHERE checked.rowid = repeated.id AND nth = 1"
_SKIP_REPEATED = f"UPDATE checked SET _skip = {_MERGED} WHERE rowid IN (SELECT id FROM repeated"  # noqa: S608 - constants


def _columns(derived: Sequence[Derived]) -> str:
    """Return the columns of `checked` and their types."""
    kinds = {Dtype.FLOAT32: "DOUBLE", Dtype.STRING: "VARCHAR"}
    columns = {
        "_part": "INTEGER",
        "_line": "BIGINT",
        "_skip": "INTEGER",
        "user_id": "VARCHAR",
        "item_id": "VARCHAR",
        "event_type": "VARCHAR",
        "value": "FLOAT",
        "micros": "BIGINT",
        **{each.column.name: kinds[each.column.dtype] + "[]" * bool(each.column.length) for each in derived},
        **dict.fromkeys(REFUSAL_COLUMNS, "VARCHAR"),
    }
    return ", ".join(f"{identifier(name)} {kind}" for name, kind in columns.items())


def event_checks(source: Source, now: int, *, knows_items: bool) -> list[Check]:
    """Return what refuses an event; `now` in microseconds since 1970."""
    fields, value = source.fields, source.schema.value
    types = [event_type.name for event_type in source.schema.event_types]
    listed = ", ".join(map(literal, types))
    checks = [
        FAULT,
        named("missing_user", "coalesce(user_id, '') = ''", fields.user, "an id", "_user_text"),
        named("bad_id", is_no_id("user_id"), fields.user, ID_MEANING, "_user_text"),
        named("missing_item", "coalesce(item_id, '') = ''", fields.item, "an id", "_item_text"),
        named("bad_id", is_no_id("item_id"), fields.item, ID_MEANING, "_item_text"),
        named(
            "unknown_event_type",
            f"coalesce(event_type, '') NOT IN ({listed})",
            fields.event_type,
            f"a text that stands for one of the event types {', '.join(types)}",
            "_type_text",
        ),
        *_value_checks(fields, value),
        *time_checks(fields.time, now),
    ]
    if knows_items:
        unknown = "item_id NOT IN (SELECT item_id FROM items)"
        checks.append(named("unknown_item", unknown, fields.item, "an item of the items file", "_item_text"))
    return checks + _derived_checks(source.derived)


def _value_checks(fields: EventFields, value: ValueRange) -> list[Check]:
    steps = f"value / {value.step}"
    conditions = {
        "bad_number": "value IS NULL",
        "not_a_number": "isnan(value)",
        "out_of_range": f"value < {value.minimum} OR value > {value.maximum}",
        "not_a_whole_step": f"abs({steps} - round({steps})) > {STEP_TOLERANCE}",
    }
    return [
        named(reason, condition, fields.value, _range(value), "_value_text") for reason, condition in conditions.items()
    ]


def _derived_checks(derived: Sequence[Derived]) -> list[Check]:
    return [
        check
        for each in derived
        if each.attribute is not None
        for check in attribute_checks(each.attribute, each.column.name, each.source_column)
    ]


def _range(value: ValueRange) -> str:
    meaning = f" ({value.meaning})" if value.meaning else ""
    return f"{value.minimum:g} to {value.maximum:g} in steps of {value.step:g}{meaning}"


def scan_events(source: Source, clock: datetime) -> tuple[int, datetime | None]:
    """Count a source's rows that are not left out, and find their last time that is not after `clock`.

    No row is kept or judged.
    """
    rows, last = 0, None
    query = f"SELECT count(*), max(micros) FILTER (WHERE micros <= {micros_of_moment(clock)}) FROM "  # noqa: S608 - a number
    with duckdb.connect(config={"memory_limit": _MEMORY}) as database:
        for part in source.event_parts():
            with part.typed(database) as typed:
                ((count, latest),) = database.execute(f"{query} ({typed}) WHERE _skip IS NULL").fetchall()
            rows, last = rows + count, max((each for each in (last, latest) if each is not None), default=None)
    return rows, None if last is None else _moment(last)


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
