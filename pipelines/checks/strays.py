"""Times that stand far before all others: zeros, numbers of a larger unit, numbers that lost a digit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from pipelines.errors import SourceError
from pipelines.io.sql_text import literal
from pipelines.sources.expressions import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import duckdb

    from pipelines.sources.adapter import TimeField

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR = 365 * 86_400_000_000
_EARLY_YEARS = 10
_EMPTY_YEARS = 5
_FEW = 10
"""Of so many rows, one is few."""
_YEARS_S = 365.2425 * 86_400
_MOST_YEARS = 100
_UNITS = ("s", "ms", "us", "ns")


def refuse_strays(
    database: duckdb.DuckDBPyConnection, passed: str, time: TimeField, held: Iterable[tuple[int, int]] = ()
) -> None:
    """Refuse rows of `checked` whose times stand far before the bulk of all others.

    Args:
        database: what has the table, with `micros` and `REFUSAL_COLUMNS`.
        passed: SQL that is true of rows that were not refused, nor left out.
        time: what the source calls the time.
        held: what the lake has, to which the rows are added: a moment, in microseconds since 1970, and how many rows.
    """
    database.execute("CREATE OR REPLACE TEMP TABLE held (micros BIGINT, rows BIGINT)")
    if rows := list(held):
        micros, counts = map(list, zip(*rows, strict=True))
        database.execute("INSERT INTO held SELECT unnest($1::BIGINT[]), unnest($2::BIGINT[])", [micros, counts])
    times = f"SELECT micros, 1 AS rows FROM checked WHERE {passed} UNION ALL FROM held"  # noqa: S608 - constants
    years = database.execute(f"SELECT micros // {_YEAR} AS year, sum(rows) FROM ({times}) GROUP BY year").fetchall()  # noqa: S608 - as above
    bulk = _first_year(dict(years))
    if not bulk:
        return
    ((first, last),) = database.execute(
        f"SELECT min(micros), max(micros) FROM ({times}) WHERE micros >= {bulk * _YEAR}"  # noqa: S608 - as above
    ).fetchall()
    span = f"{_day(first)} to {_day(last)}"
    wanted = literal(f"{time.expected}, near those of the other rows, which are of {span}")
    unit = MICROSECONDS.get(time.unit)
    number = f"concat(trunc(micros / {unit}, 3), ' ', {literal(time.unit)}, ', ')" if unit else "''"
    moment = "strftime(make_timestamp(micros), '%Y-%m-%d %H:%M:%S')"
    database.execute(
        f"UPDATE checked SET _reason = 'implausible_time', _fault_column = {literal(time.column)}, "  # noqa: S608 - quoted
        f"_expected = {wanted}, _received = concat({number}, {moment}) WHERE {passed} AND micros < {bulk * _YEAR}"
    )


def _first_year(rows: Mapping[int, int]) -> int:
    """Return the year since 1970 from which times are those that are meant; 0 where all of them are.

    Before it lie years of which the last is followed by five with next to nothing, and then by the bulk. A tenth is
    next to nothing: one row, of 1972 or 1979, makes no others plausible. Of 1970 any number may be strays, of later
    years no more than a tenth: a log that counts from its beginning has rows in every year.
    """

    def of(first: int, end: int | None = None) -> int:
        return sum(count for year, count in rows.items() if first <= year and (end is None or year < end))

    for end in range(_EARLY_YEARS, 0, -1):
        early, between, bulk = of(0, end), of(end, end + _EMPTY_YEARS), of(end + _EMPTY_YEARS)
        is_alone = early and bulk and between * _FEW <= min(early, bulk)
        if rows.get(end - 1) and is_alone and of(1, end) * _FEW <= bulk:
            return end
    return 0


def check_not_all_of_1970(key: str, time: TimeField, span: tuple[datetime, datetime]) -> None:
    """Refuse times that are of nothing but the year 1970: zeros, or numbers that were read in too small a unit.

    Args:
        key: what the mapping calls the time.
        time: what the source calls it.
        span: the first time and the last.

    Raises:
        SourceError: it names the unit, and what the times would be in others.
    """
    if span[1].year == _EPOCH.year:
        _refuse_1970(key, time, span)


def _refuse_1970(key: str, time: TimeField, span: tuple[datetime, datetime]) -> NoReturn:
    first, last = span
    years = (last - _EPOCH).total_seconds() / _YEARS_S
    others = " or ".join(_units_of(time.unit, years)) if time.unit else ""
    no_times = "are these times? Name another column, or leave out rows that have none"
    msg = (
        f"{key}: expected times after {_EPOCH.year}, received {first:%Y-%m-%d %H:%M:%S} to "
        f"{last:%Y-%m-%d %H:%M:%S} for column {time.column!r}{f' in {time.unit}' if time.unit else ''}; "
        f"{f'is it unit: {others}?' if others else no_times}"
    )
    raise SourceError(msg)


def _units_of(read: str, years: float) -> list[str]:
    """Return the larger units by which what was read as so many years since 1970 would be a time of our days."""
    place = _UNITS.index(read)
    return [unit for number, unit in enumerate(_UNITS[:place]) if 1 < years * 1000 ** (place - number) < _MOST_YEARS]


def _day(micros: int) -> str:
    return f"{datetime.fromtimestamp(micros // 1_000_000, UTC):%Y-%m-%d}"
