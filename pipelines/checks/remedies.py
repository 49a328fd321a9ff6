"""What to say in a mapping so that refused rows are read: the key, where a key is the remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_VALUE = frozenset(
    {
        "null",
        "none",
        "nan",
        "na",
        "n/a",
        "#n/a",
        "<na>",
        r"\n",
        "nil",
        "undefined",
        "nat",
        "inf",
        "-inf",
        "-",
        "--",
        "\u2013",
        "\u2014",
        "?",
    }
)
"""Texts, in lower case, by which programs and people write that there is no value."""
_SHOWN = 5
_LEAVE_OUT = "leave such rows out by events.skip, missing: true (of relations, out of the file)"
_NAN = "nan"
_OF_PARQUET = f", or, where the column is of numbers, {_LEAVE_OUT}"
_SKIP = "leave them out by events.skip; of items, users or relations, out of the file"
_ESCAPED = r"""write a quote within a text twice, not as \": of Spark, by the option escape: '"'"""
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_DATE = re.compile(r"(\d{1,4})([/.-])(\d{1,2})\2(\d{1,4})(?:[ T](\d{1,2}:\d\d)(:\d\d)?( ?[AP]M)?)?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(\.\d+)?")
_LAST_MONTH = 12
_YEAR_DIGITS = 4
_SIMPLE = {
    "duplicate_event": "say events.duplicates: first, last or sum, whichever is meant",
    "missing_user": f"where rows have nobody on purpose, {_SKIP}",
    "missing_item": f"where rows have nothing on purpose, {_SKIP}",
    "not_a_whole_step": "give events.value.step a smaller step",
    "out_of_range": "widen minimum and maximum of the column, or leave such rows out by events.skip",
    "unknown_event_type": "name it in events.type.mapping, or leave such rows out by events.skip",
    "unknown_item": "add it to the items file, or leave out items.files",
    "undecodable_bytes": "give csv.encoding, latin-1 or cp1252 for instance",
    "too_many_fields": (
        "is a separator part of a text? Write the text in quotes, or another csv.separator; does every row have one "
        "field more than the header, as of R's row names or a separator at the end? Give the header a name for it"
    ),
    "missing_field": "is a row cut, or csv.separator another one?",
    "implausible_time": (
        "write all times in one unit; leave out rows whose time stands for none by events.skip, such as "
        "{reason: no time, when: {column: ..., equals: ['0']}}"
    ),
    "bad_term": "take kind: text where it is one, or a separator where several terms stand together",
}


def remedy(reason: str, received: Sequence[str]) -> str:
    """Return what to do about rows refused for a reason, by some of the texts that they had; empty: nothing known."""
    texts = list(dict.fromkeys(text.strip() for text in received))
    match reason:
        case "bad_number" | "not_a_number":
            return _of_numbers(texts)
        case "bad_time" | "future_time":
            return _of_times(texts)
        case "bad_id" if nothing := _no_values(texts):
            return f"say missing: {nothing} if they stand for no value"
        case "open_quote" | "too_many_fields" | "missing_field" if any('\\"' in text for text in texts):
            return _ESCAPED
        case _:
            return _SIMPLE.get(reason, "")


def _no_values(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if text.lower() in NO_VALUE][:_SHOWN]


def _of_numbers(texts: Sequence[str]) -> str:
    if nothing := _no_values(texts):
        return f"say missing: {nothing} if they stand for no value{_OF_PARQUET * (nothing == [_NAN])}"
    if texts == [""]:
        return _LEAVE_OUT
    if texts and all(_DECIMAL_COMMA.fullmatch(text) for text in texts):
        return "say csv.decimal: ',' for decimal commas"
    return ""


def _of_times(texts: Sequence[str]) -> str:
    if nothing := _no_values(texts):
        return f"{_LEAVE_OUT}; of texts, say missing: {nothing}, too"
    if texts == [""]:
        return _LEAVE_OUT
    if texts and all(_NUMBER.fullmatch(text) for text in texts):
        return "say events.time.unit, or relations.since.unit: s, ms, us or ns, whichever these numbers count"
    dates = [found for text in texts if (found := _DATE.fullmatch(text))]
    is_known = dates and len(dates) == len(texts)
    return f"say events.time.format: {_format(dates)!r}, or so of relations.since" if is_known else ""


def _format(dates: Sequence[re.Match[str]]) -> str:
    """Return the format by which strptime reads dates such as 12/31/2023 11:59 PM, in the order that they show."""
    first = dates[0]
    mark = first[2]
    if len(first[1]) == _YEAR_DIGITS:
        date = f"%Y{mark}%m{mark}%d"
    else:
        is_day_first = any(int(date[1]) > _LAST_MONTH for date in dates) or (
            mark == "." and all(int(date[3]) <= _LAST_MONTH for date in dates)
        )
        year = "%Y" if len(first[4]) == _YEAR_DIGITS else "%y"
        date = f"%d{mark}%m{mark}{year}" if is_day_first else f"%m{mark}%d{mark}{year}"
    if not first[5]:
        return date
    hour = "%I" if first[7] else "%H"
    seconds, half = ":%S" if first[6] else "", (" %p" if first[7].startswith(" ") else "%p") if first[7] else ""
    return f"{date} {hour}:%M{seconds}{half}"
