"""What a mapping says of a cell, as SQL over it. A cell is text, trimmed, null where there is none; or typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.errors import SourceError
from pipelines.io.sql_text import literal, without_surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.sources.mapping import Id, TimeOf, ValueOf, When

_WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|inf|infinity|nan)", re.IGNORECASE)
_DIGITS = re.compile(r"[+-]?\d{1,20}(\.\d{1,10})?")
_FRACTIONAL = ("FLOAT", "DOUBLE", "DECIMAL")
_MAY_BE_NAN = frozenset({"FLOAT", "DOUBLE"})
MICROSECONDS = {"s": 1_000_000, "ms": 1000, "us": 1}
_DATE, _CLOCK = r"\d{4}-\d{1,2}-\d{1,2}", r"\d{1,2}:\d{1,2}(:\d{1,2}([.,]\d+)?)?"
_MOMENT = rf"{_DATE}([T ]{_CLOCK})?"
_DISTANCE = r"[+-](0\d|1[0-4])(:?[0-5]\d)?"
_MOMENT_WITH_ZONE = rf"{_DATE}[T ]{_CLOCK} ?(Z|z|UTC|GMT|{_DISTANCE})"
"""ISO 8601, the whole text: DuckDB's casts pass over words that follow, such as PM or a zone's name."""
_COMPACT = r"^(\d{4})(\d\d)(\d\d)[T ](\d\d)(\d\d)(\d\d)"
"""The same without marks between, as in 20240101T080244Z. A bare number is no date: it may count seconds."""
BARE_NUMBER = r"[+-]?\d+([.,]\d+)?"
_NESTED = ("STRUCT", "MAP", "UNION")
_MOMENTS = frozenset({"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"})
_WHOLE_TEXT = r"^([+-]?\d+){}0*$"


@dataclass(frozen=True, slots=True)
class Cell:
    """A column of a source as a query has it."""

    sql: str
    """Its name in the query."""
    kind: str
    """Its type, as DuckDB writes it."""
    column: str
    """Its name in the source."""
    is_json: bool = False
    """Whether a list stands in the text as JSON."""
    decimal: str = "."
    """What parts the fraction of a number that is text."""

    missing: tuple[str, ...] = ()
    """Texts that stand for no value, beside the empty one; of a list, for no term."""

    @property
    def known(self) -> str:
        """SQL for the cell, null where it is a number that is none: Arrow, Polars and Spark write NaN for no value."""
        return f"CASE WHEN NOT isnan({self.sql}) THEN {self.sql} END" if self.kind in _MAY_BE_NAN else self.sql

    @property
    def given(self) -> str:
        """SQL for the cell, null where it is empty or one of `missing`; a NaN stays, to be told where it is refused."""
        if self.is_text and not self.missing:
            return f"nullif({self.sql}, '')"
        if self.is_text:
            return f"CASE WHEN {self.sql} NOT IN ({', '.join(map(literal, ('', *self.missing)))}) THEN {self.sql} END"
        is_number = self.kind.startswith((*_WHOLE, *_FRACTIONAL))
        listed = ", ".join(_numbers(self) if is_number else map(literal, self.missing))
        if _is_nested(self) or not listed:
            return self.sql
        return f"CASE WHEN {self.sql if is_number else self.shown} NOT IN ({listed}) THEN {self.sql} END"

    @property
    def is_text(self) -> bool:
        """Whether it has to be read, as opposed to typed data."""
        return self.kind == "VARCHAR"

    @property
    def shown(self) -> str:
        """SQL for the cell as a message shows it, NaN too."""
        return self.sql if self.is_text else f"CAST({self.sql} AS VARCHAR)"


def _numbers(cell: Cell) -> Iterator[str]:
    """Yield SQL for each number that stands for no value; `-1` and `-1.0` are one."""
    for text in cell.missing:
        if cell.kind in _MAY_BE_NAN and _NUMBER.fullmatch(text):
            yield f"CAST({literal(text)} AS {cell.kind})"
        elif _DIGITS.fullmatch(text):
            yield text


def text_of(cell: Cell) -> str:
    """Return SQL for a cell as text; a whole number is written without a decimal point."""
    if cell.is_text:
        return cell.sql
    if cell.kind.startswith(_FRACTIONAL):
        whole = f"TRY_CAST({cell.sql} AS HUGEINT)"
        return f"CASE WHEN {cell.sql} = {whole} THEN CAST({whole} AS VARCHAR) ELSE CAST({cell.known} AS VARCHAR) END"
    return without_surroundings(cell.shown)


def id_of(cell: Cell, how: Id) -> str:
    """Return SQL for an id; null where it is a list or an object of JSON.

    Raises:
        SourceError: a Parquet column holds such.
    """
    if _is_nested(cell):
        msg = f"column {cell.column!r} holds {cell.kind}; expected ids, which are texts or numbers; name another column"
        raise SourceError(msg)
    if cell.is_json:
        return f"CASE WHEN coalesce({_json_type(cell)}, '') NOT IN ('ARRAY', 'OBJECT') THEN {_id_text(cell, how)} END"
    return _id_text(cell, how)


def _id_text(cell: Cell, how: Id) -> str:
    if how.whole_number and cell.is_text:
        return f"regexp_replace({cell.sql}, {literal(_WHOLE_TEXT.format(re.escape(cell.decimal)))}, '\\1')"
    return text_of(cell)


def number_of(cell: Cell) -> str:
    """Return SQL for a cell as a DOUBLE, null where it is none.

    Raises:
        SourceError: a Parquet column holds what is no number, though DuckDB makes one of it.
    """
    if cell.kind == "BOOLEAN" or _is_nested(cell) or cell.kind.startswith(("TIMESTAMP", "DATE", "TIME")):
        msg = (
            f"column {cell.column!r} holds {cell.kind}; expected numbers; write it as numbers, or take it for a "
            "categorical attribute"
        )
        raise SourceError(msg)
    if cell.is_text and cell.decimal != ".":
        point = f"CASE WHEN NOT contains({cell.sql}, '.') THEN replace({cell.sql}, {literal(cell.decimal)}, '.') END"
        return f"TRY_CAST({point} AS DOUBLE)"
    return f"TRY_CAST({cell.known} AS DOUBLE)"


def _is_nested(cell: Cell) -> bool:
    """Tell whether a Parquet column holds lists or objects."""
    return cell.kind.endswith("]") or cell.kind.startswith(_NESTED)


def _json_type(cell: Cell) -> str:
    """Return SQL for the type of a text that is JSON, null where it is none. Of AND, either side may come first."""
    return f"CASE WHEN json_valid({cell.sql}) THEN json_type({cell.sql}) END"


def value_of(cell: Cell | None, how: ValueOf) -> str:
    """Return SQL for an event's value."""
    if cell is None:
        return f"CAST({how.constant} AS DOUBLE)"
    return f"abs({number_of(cell)})" if how.absolute else number_of(cell)


def micros_of(cell: Cell, how: TimeOf, key: str) -> str:
    """Return SQL for a cell as microseconds since 1970, null where it is no time; `key` is where the mapping has it.

    Raises:
        SourceError: a Parquet column holds numbers, and the mapping does not say of what.
    """
    zone = literal(how.zone)
    if how.unit == "ns":
        return f"CAST(TRY_CAST({cell.known} AS HUGEINT) // 1000 AS BIGINT)"
    if how.unit:
        return f"TRY_CAST(round({number_of(cell)} * {MICROSECONDS[how.unit]}) AS BIGINT)"
    if cell.kind in _MOMENTS:
        return f"epoch_us(CAST({cell.sql} AS TIMESTAMPTZ))"
    if cell.kind.startswith(("TIMESTAMP", "DATE")):
        return f"epoch_us(timezone({zone}, CAST({cell.sql} AS TIMESTAMP)))"
    if not cell.is_text:
        msg = (
            f"{key}: column {cell.column!r} holds {cell.kind}; expected times, or the unit of these numbers; "
            "add unit: s, ms, us or ns"
        )
        raise SourceError(msg)
    if how.format:
        read = f"try_strptime({cell.sql}, {literal(how.format)})"
        says_zone = re.search("%z", how.format.replace("%%", ""), re.IGNORECASE)
        return f"epoch_us({read})" if says_zone else f"epoch_us(timezone({zone}, {read}))"
    return _iso_micros(cell, zone)


def _iso_micros(cell: Cell, zone: str) -> str:
    """Return SQL for an ISO 8601 text as microseconds since 1970; a text without a zone is in `zone`, a literal."""
    marked = f"regexp_replace({cell.sql}, {literal(_COMPACT)}, '\\1-\\2-\\3T\\4:\\5:\\6')"
    decimal = f"replace({marked}, ',', '.')"
    with_zone = f"regexp_replace(regexp_replace({decimal}, ' ?(z|UTC|GMT)$', 'Z'), ' ([Z+-])', '\\1')"
    return (
        f"CASE WHEN regexp_full_match({decimal}, {literal(_MOMENT)}) "
        f"THEN epoch_us(timezone({zone}, TRY_CAST({decimal} AS TIMESTAMP))) "
        f"WHEN regexp_full_match({decimal}, {literal(_MOMENT_WITH_ZONE)}) "
        f"THEN epoch_us(TRY_CAST({with_zone} AS TIMESTAMPTZ)) END"
    )


def terms_of(cell: Cell, separator: str | None) -> str:
    """Return SQL for a list of terms: trimmed, none empty, each once, in the source's order.

    Raises:
        SourceError: the terms stand in a text, and the mapping does not say what parts them.
    """
    if not cell.is_text:
        term = Cell("term", cell.kind.removesuffix("[]"), cell.column, missing=cell.missing)
        terms = f"list_transform({cell.sql}, lambda term: CASE WHEN {term.given} IS NOT NULL THEN {text_of(term)} END)"
        terms = terms if cell.kind.endswith("[]") else f"[{text_of(cell)}]"
    elif separator or cell.is_json:
        terms = f"string_split({cell.sql}, {literal(separator)})" if separator else f"[{cell.sql}]"
        if cell.is_json:
            terms = (
                f"CASE WHEN {_json_type(cell)} = 'ARRAY' THEN from_json({cell.sql}, '[\"VARCHAR\"]') ELSE {terms} END"
            )
    else:
        msg = (
            f"column {cell.column!r} holds text; expected what parts the terms of a multi_valued attribute; add "
            "separator: '|', or whatever stands between them"
        )
        raise SourceError(msg)
    nothing = ", ".join(map(literal, ("", *cell.missing)))
    trimmed = f"list_filter(list_transform({terms}, lambda term: trim(term)), lambda term: term NOT IN ({nothing}))"
    once = "list_filter(each, lambda term, place: list_position(each, term) = place)"
    return f"coalesce(list_first(list_transform([{trimmed}], lambda each: {once})), [])"


def holds(cell: Cell, when: When) -> str:
    """Return SQL that is true where a condition holds."""
    if when.missing is not None:
        return f"{cell.known} IS {'' if when.missing else 'NOT '}NULL"
    if when.equals is not None:
        return f"{text_of(cell)} IN ({', '.join(map(literal, when.equals))})"
    if when.matches is not None:
        return f"regexp_full_match({text_of(cell)}, {literal(when.matches)})"
    if when.below is not None:
        return f"{number_of(cell)} < {when.below}"
    return f"{number_of(cell)} > {when.above}"
