"""What a published layout says: which files, how their lines are cut, and what a row means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from feature_repo.contracts.schemas import Schema

_YEAR_IN_TITLE = re.compile(r"\s*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\)\s*$")
_YEAR = re.compile(r"\b(1[89]\d\d|20\d\d)\b")


class RowError(ValueError):
    """A row does not fit its layout: which column, which check, what it wanted, what it got."""

    def __init__(self, column: str, reason: str, expected: str, received: str) -> None:
        super().__init__(f"{column}: {reason}: expected {expected}, received {received!r}")
        self.column, self.reason, self.expected, self.received = column, reason, expected, received


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How one file of a layout is written."""

    suffix: str
    """What the file's name ends with."""
    columns: tuple[str, ...]
    """The layout's own names, in the order of the fields."""
    separator: str
    encoding: str = "utf-8"
    has_header: bool = False
    """Whether the first line names the columns."""
    quoted: bool = False
    """Whether fields may stand in double quotes, as in CSV."""


Row = dict[str, object]
"""A row of the items or users dataset: column → value; attributes that are not there are null."""


class Layout(Protocol):
    """A published layout. Its events have four fields: user, item, stars, seconds since 1970."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def schema(self) -> Schema:
        """What the layout's data sets have."""

    @property
    def events(self) -> FileFormat:
        """The file of events."""

    @property
    def items(self) -> FileFormat:
        """The file of items."""

    @property
    def users(self) -> FileFormat | None:
        """The file of users, where the layout has one."""

    def item(self, fields: Sequence[str]) -> Row:
        """Read an item's row; RowError where a field makes no sense."""

    def user(self, fields: Sequence[str]) -> Row:
        """Read a user's row; RowError where a field makes no sense."""


def movie(item_id: str, title: str, release_year: int | None, genres: Iterable[str]) -> Row:
    """Return an item of MovieLens."""
    return {"item_id": item_id, "title": title, "release_year": release_year, "genres": list(genres)}


def person(user_id: str, age: int | None = None, gender: str = "", occupation: str = "") -> Row:
    """Return a user of MovieLens."""
    return {"user_id": user_id, "age": age, "gender": gender or None, "occupation": occupation or None}


def split_title(title: str) -> tuple[str, int | None]:
    """Part 'Toy Story (1995)' into title and year. A title of nothing but a year stays as it is."""
    match = _YEAR_IN_TITLE.search(title)
    if match is None or not title[: match.start()].strip():
        return title.strip(), None
    return title[: match.start()].strip(), int(match[1])


def year_of(date: str) -> int | None:
    """Return the year in '01-Jan-1995' or '1995'; None where there is none."""
    match = _YEAR.search(date)
    return int(match[1]) if match else None


def whole_number(text: str, column: str) -> int | None:
    """Read a whole number that may be absent; RowError for anything else."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise RowError(column, "bad_number", "a whole number or nothing", text) from None
