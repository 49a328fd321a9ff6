"""What refuses a time, in microseconds since 1970."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.checks.judging import named
from pipelines.io.sql_text import literal
from pipelines.sources.expressions import BARE_NUMBER

if TYPE_CHECKING:
    from datetime import datetime

    from pipelines.checks.judging import Check
    from pipelines.sources.adapter import TimeField

_LAST_MICROSECOND = 253_402_300_799_999_999
"""The end of the year 9999."""


def time_checks(field: TimeField, now: int) -> list[Check]:
    """Return what refuses a row by its columns `micros` and `_time_text`; `now` in microseconds since 1970."""
    is_number = f"micros IS NULL AND regexp_full_match(_time_text, {literal(BARE_NUMBER)})"
    number = named("bad_time", is_number, field.column, field.number_expected, "_time_text")
    bad = named("bad_time", "micros IS NULL", field.column, field.expected, "_time_text")
    outside = f"micros < 0 OR micros > {_LAST_MICROSECOND}"
    far = named("bad_time", outside, field.column, f"{field.expected}, of the years 1970 to 9999", "_time_text")
    expected = f"{field.expected}, not after the clock"
    later = named("future_time", f"micros > {now}", field.column, expected, "_time_text")
    return [*([number] if field.number_expected else []), bad, far, later]


def micros_of_moment(moment: datetime) -> int:
    """Return microseconds since 1970."""
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + moment.microsecond
