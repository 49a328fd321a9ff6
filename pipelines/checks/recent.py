"""The interval beside the recent past: how many events a day has, and how each figure is distributed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from feature_repo.contracts.checks import (
    EVENTS_PER_ITEM,
    EVENTS_PER_USER,
    TYPE_FIGURE,
    VALUE_FIGURE,
    Check,
    Delivery,
    Distribution,
    Volume,
    attribute_figure,
)
from feature_repo.contracts.datasets import ITEM_ID, ITEMS, USER_ID, USERS
from feature_repo.contracts.schemas import Kind
from pipelines.checks.drift import Histogram, index_by_chance, population_stability_index
from pipelines.checks.outcomes import Outcome, Status
from pipelines.checks.windows import LEAST_EVENTS, Windows, corridor
from pipelines.io.duck import create_view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import duckdb

    from feature_repo.contracts.schemas import Schema
    from pipelines.io.lake import Snapshot

MISSING, OTHERS = "(none)", "(others)"
_TERMS = 50
"""Terms of an attribute that are compared one by one; the rest is `OTHERS`."""
_FEW_VALUES = 24
"""A number with at most so many values is compared value by value, any other by tenths of the recent past."""
_RANK_CUTS = (0.01, 0.1, 0.5)
_RANKS = ("busiest 1%", "to 10%", "to 50%", "other half")
_EXAMPLES = 3
_NO_HISTORY = "too little history before the interval"
_FEW_EVENTS = f"fewer than {LEAST_EVENTS} events"


class Scale(StrEnum):
    """What the values of a figure are."""

    TERMS = "terms"
    """Strings without order."""
    LISTS = "lists of terms"
    NUMBERS = "numbers"
    COUNTS = "counts"
    """How many events something has; compared by powers of two."""
    RANKS = "ranks"
    """How the events are shared out among the busiest and the others: it stays as it is when all have twice as many."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Something whose distribution is judged: an expression over events joined to items and users."""

    name: str
    """The `column` of its `Distribution`."""
    scale: Scale
    expression: str
    """SQL over `windowed`, `items` and `users`; of COUNTS and RANKS: the column that is counted by."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure's bins in their order, with how often each occurs now and in the recent past."""

    bins: tuple[str, ...]
    now: Histogram
    past: Histogram
    is_ordered: bool
    """Whether the bins follow a scale; else they come by falling frequency."""


_WINDOWED = """
CREATE OR REPLACE TEMP TABLE windowed AS
SELECT * EXCLUDE (event_time), (epoch_us($1) - epoch_us(event_time) - 1) // $2 AS number FROM recent_events
"""
"""The interval's events have the number 0, those of the window before it 1, and so on."""


class RecentPast:
    """The events of the interval and of the windows before it, in a DuckDB that has `items` and `users`."""

    def __init__(self, database: duckdb.DuckDBPyConnection, events: Snapshot, windows: Windows) -> None:
        self._database, self.windows = database, windows
        interval = windows.interval
        start = windows.past.start if windows.past else interval.start
        length = int((interval.end - interval.start).total_seconds()) * 1_000_000
        create_view(database, "recent_events", events.within(start, interval.end))
        database.execute(_WINDOWED, [interval.end, length])

    def compare(self, figure: Figure) -> Compared:
        """Count the figure's bins in the interval and in the recent past."""
        if figure.scale is Scale.COUNTS:
            return self._counts(figure.expression)
        if figure.scale is Scale.RANKS:
            return self._ranks(figure.expression)
        expression = figure.expression
        if figure.scale is Scale.LISTS:
            expression = f"unnest(CASE WHEN coalesce(len({expression}), 0) = 0 THEN [NULL] ELSE {expression} END)"
        cases = f"SELECT windowed.number, {expression} AS bin FROM windowed LEFT JOIN items USING (item_id) LEFT JOIN users USING (user_id)"  # noqa: E501,S608 - names come from the contracts
        labels, binned = self._numbers(cases) if figure.scale is Scale.NUMBERS else self._terms(cases)
        rows = self._database.execute(
            f"SELECT number > 0, bin, count(*) FROM ({binned}) GROUP BY ALL"  # noqa: S608 - as above
        ).fetchall()
        return self._filled(labels, rows, USER_ID.name, is_ordered=figure.scale is Scale.NUMBERS, weighted=True)

    def units(self, column: str, *, weighted: bool) -> tuple[float, float]:
        """Return how many values of `column` the interval has, and the windows before it, added up.

        Weighted, a value counts by its share of the window's events: a few busy users are not many users (Kish's
        effective sample size, the square of the sum over the sum of squares).
        """
        counted = f"SELECT number, CAST(count(*) AS DOUBLE) AS n FROM windowed GROUP BY number, {column}"  # noqa: S608 - a contract's column
        size = "sum(n) * sum(n) / sum(n * n)" if weighted else "CAST(count(*) AS DOUBLE)"
        query = f"SELECT number > 0, {size} FROM ({counted}) GROUP BY number"  # noqa: S608 - as above
        now = past = 0.0
        for is_past, units in self._database.execute(query).fetchall():
            now, past = (now, past + units) if is_past else (now + units, past)
        return now, past

    def events(self) -> tuple[int, int]:
        """Return the events of the interval, and of all windows before it."""
        query = "SELECT count(*) FILTER (WHERE number = 0), count(*) FILTER (WHERE number > 0) FROM windowed"
        now, past = self._database.execute(query).fetchall()[0]
        return now, past

    def ranked(self, column: str, number: int) -> list[int]:
        """Return the events of each value of `column` in one window, in falling order."""
        query = f"SELECT count(*) AS n FROM windowed WHERE number = $1 GROUP BY {column} ORDER BY n DESC"  # noqa: S608 - a contract's column
        return [row[0] for row in self._database.execute(query, [number]).fetchall()]

    def _terms(self, cases: str) -> tuple[list[str], str]:
        """Return the labels, the most frequent first, and a query for (number, label)."""
        query = f"""
            SELECT bin FROM ({cases}) WHERE bin IS NOT NULL
            GROUP BY bin ORDER BY count(*) DESC, bin LIMIT {_TERMS}"""  # noqa: S608 - as above
        top = [row[0] for row in self._database.execute(query).fetchall()]
        self._database.execute("CREATE OR REPLACE TEMP TABLE top_terms (term VARCHAR)")
        if top:
            self._database.executemany("INSERT INTO top_terms VALUES ($1)", [[term] for term in top])
        binned = f"""
            SELECT number, CASE WHEN bin IS NULL THEN '{MISSING}' ELSE coalesce(term, '{OTHERS}') END AS bin
            FROM ({cases}) LEFT JOIN top_terms ON bin = term"""  # noqa: S608 - as above
        return [*top, OTHERS, MISSING], binned

    def _numbers(self, cases: str) -> tuple[list[str], str]:
        """Return the labels in rising order, and a query for (number, label)."""
        distinct = f"SELECT DISTINCT bin FROM ({cases}) WHERE bin IS NOT NULL ORDER BY bin LIMIT {_FEW_VALUES + 1}"  # noqa: S608 - as above
        values = [row[0] for row in self._database.execute(distinct).fetchall()]
        if len(values) <= _FEW_VALUES:
            labels = _told_apart(values)
            edges = values[:-1]
        else:
            edges = self._tenths(cases)
            named = _told_apart(edges)
            labels = [f"≤ {edge}" for edge in named] + [f"> {named[-1]}"]
        cuts = " + ".join(f"CAST(bin > {edge!r} AS INT)" for edge in edges) or "0"
        names = ", ".join(f"'{label}'" for label in labels) or "''"
        binned = f"""
            SELECT number, CASE WHEN bin IS NULL THEN '{MISSING}' ELSE ([{names}])[1 + {cuts}] END AS bin
            FROM ({cases})"""  # noqa: S608 - as above
        return [*labels, MISSING], binned

    def _tenths(self, cases: str) -> list[float]:
        """Return the different tenths of the recent past; of everything where there is none."""
        for where in ("number > 0", "true"):
            tenths = [round(share / 10, 1) for share in range(1, 10)]
            query = f"SELECT quantile_disc(bin, {tenths}) FROM ({cases}) WHERE {where} AND bin IS NOT NULL"  # noqa: S608 - as above
            found = self._database.execute(query).fetchall()[0][0]
            if found:
                return sorted(set(found))
        return []

    def _counts(self, column: str) -> Compared:
        binned = f"""
            SELECT number, CAST(floor(log2(count(*))) AS INT) AS power FROM windowed GROUP BY number, {column}"""  # noqa: S608 - as above
        rows = self._database.execute(
            f"SELECT number > 0, power, count(*) FROM ({binned}) GROUP BY ALL ORDER BY power"  # noqa: S608 - as above
        ).fetchall()
        labels = {power: _power_label(power) for _, power, _ in rows}
        named = [(is_past, labels[power], count) for is_past, power, count in rows]
        return self._filled(list(labels.values()), named, column, is_ordered=True)

    def _ranks(self, column: str) -> Compared:
        counted = f"SELECT number, {column} AS id, count(*) AS events FROM windowed GROUP BY ALL"  # noqa: S608 - as above
        placed = f"""
            SELECT number > 0 AS is_past, events, (row_number() OVER busiest - 1) / count(*) OVER (PARTITION BY number)
                AS place FROM ({counted}) WINDOW busiest AS (PARTITION BY number ORDER BY events DESC, id)"""  # noqa: S608 - as above
        cuts = " + ".join(f"CAST(place >= {share} AS INT)" for share in _RANK_CUTS)
        rows = self._database.execute(
            f"SELECT is_past, {cuts} AS bin, sum(events) FROM ({placed}) GROUP BY ALL"  # noqa: S608 - as above
        ).fetchall()
        named = [(is_past, _RANKS[place], int(events)) for is_past, place, events in rows]
        return self._filled(_RANKS, named, column, is_ordered=True)

    def _filled(
        self,
        labels: Sequence[str],
        rows: Sequence[tuple[bool, str, int]],
        column: str,
        *,
        is_ordered: bool,
        weighted: bool = False,
    ) -> Compared:
        now: dict[str, float] = {name: n for is_past, name, n in rows if not is_past}
        past: dict[str, float] = {name: n for is_past, name, n in rows if is_past}
        units_now, units_past = self.units(column, weighted=weighted)
        seen = tuple(name for name in labels if name in now or name in past)
        return Compared(seen, Histogram(now, units_now), Histogram(past, units_past), is_ordered)


def judge_recent(
    checks: Sequence[Check], past: RecentPast, figures: Mapping[str, Compared], events: Mapping[datetime, int]
) -> Iterator[Outcome]:
    """Judge delivery, volume and distributions.

    Args:
        checks: what is declared; kinds that are not about the recent past are left out.
        past: the windows.
        figures: name → bins, for every `Distribution` among `checks`.
        events: events per day.
    """
    reason = _reason_not_to_judge(past)
    now, before = past.events()
    for check in checks:
        match check:
            case Delivery():
                yield _delivery(check, now, before, past.windows)
            case Volume() if past.windows.past is None:
                yield Outcome(check, Status.NOT_JUDGED, _NO_HISTORY)
            case Volume():
                yield _volume(check, past.windows, events)
            case Distribution() if reason:
                yield Outcome(check, Status.NOT_JUDGED, reason)
            case Distribution():
                yield _distribution(check, figures[check.column])


def _reason_not_to_judge(past: RecentPast) -> str:
    if past.windows.past is None:
        return _NO_HISTORY
    now, before = past.events()
    if now < LEAST_EVENTS:
        return f"{_FEW_EVENTS} in the interval ({now:,})"
    return f"{_FEW_EVENTS} in the recent past ({before:,})" if before < LEAST_EVENTS else ""


def _delivery(check: Delivery, now: int, before: int, windows: Windows) -> Outcome:
    if windows.past is None or before < LEAST_EVENTS:
        return Outcome(check, Status.NOT_JUDGED, _NO_HISTORY)
    status = Status.PASSED if now else Status.FAILED
    days = len(windows.past.days)
    received = f"{now:,} events" if now else f"none, after {before:,} in the {days} days before; look at the source"
    return Outcome(check, status, received)


def _volume(check: Volume, windows: Windows, events: Mapping[datetime, int]) -> Outcome:
    if windows.past is None:
        return Outcome(check, Status.NOT_JUDGED, _NO_HISTORY)
    bounds = corridor(events, windows.past, check.ratio)
    counts = {day: events.get(day, 0) for day in windows.interval.days}
    outside = [day for day, count in counts.items() if not bounds.low <= count <= bounds.high]
    wanted = f"{math.ceil(bounds.low):,} to {math.floor(bounds.high):,} events a day"
    within = f"{min(counts.values()):,} to {max(counts.values()):,}, within {wanted}"
    received = f"{len(outside)} of {len(counts)} days outside {wanted}" if outside else within
    examples = tuple(f"{day:%Y-%m-%d}: {counts[day]:,}" for day in outside[:_EXAMPLES])
    return Outcome(check, Status.FAILED if outside else Status.PASSED, received, examples)


def _distribution(check: Distribution, compared: Compared) -> Outcome:
    index = population_stability_index(compared.past, compared.now)
    chance = index_by_chance(compared.past, compared.now)
    limit = max(check.limit, chance)
    units = f"{compared.now.units:,.0f} and {compared.past.units:,.0f}"
    by_chance = f" (up to {chance:.2f} may be chance, with effectively {units})" if chance > check.limit else ""
    examples = tuple(_largest_moves(compared)) if index > limit else ()
    return Outcome(check, Status.FAILED if index > limit else Status.PASSED, f"{index:.3f}{by_chance}", examples)


def _largest_moves(compared: Compared) -> Iterator[str]:
    """Say of the bins that moved most what share they had and have."""
    bins = list(compared.bins)
    pairs: list[tuple[float, float, str]] = list(
        zip(compared.past.shares(bins), compared.now.shares(bins), bins, strict=True)
    )
    for before, now, name in sorted(pairs, key=_move, reverse=True)[:_EXAMPLES]:
        yield f"{name}: {before:.1%} → {now:.1%}"


def _move(pair: tuple[float, float, str]) -> float:
    return abs(pair[1] - pair[0])


def _told_apart(numbers: Sequence[float]) -> list[str]:
    """Return different numbers as different texts, as short as that allows."""
    texts = ([f"{number:.{digits}g}" for number in numbers] for digits in (6, 9, 17))
    return next(found for found in texts if len(set(found)) == len(numbers))


def _power_label(power: int) -> str:
    low, high = 2**power, 2 ** (power + 1) - 1
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def compared_figures(schema: Schema) -> tuple[Figure, ...]:
    """Return how each figure of the declared distributions is read off the events."""
    sides = ((ITEMS, schema.item_attributes), (USERS, schema.user_attributes))
    return (
        Figure(VALUE_FIGURE, Scale.NUMBERS, f'windowed."{VALUE_FIGURE}"'),
        Figure(TYPE_FIGURE, Scale.TERMS, f'windowed."{TYPE_FIGURE}"'),
        Figure(EVENTS_PER_USER, Scale.COUNTS, USER_ID.name),
        Figure(EVENTS_PER_ITEM, Scale.RANKS, ITEM_ID.name),
        *(
            Figure(attribute_figure(dataset, each.name), _SCALES[each.kind], f'{dataset}."{each.name}"')
            for dataset, attributes in sides
            for each in attributes
            if each.kind in _SCALES
        ),
    )


_SCALES = {Kind.CATEGORICAL: Scale.TERMS, Kind.MULTI_VALUED: Scale.LISTS, Kind.NUMERIC: Scale.NUMBERS}
