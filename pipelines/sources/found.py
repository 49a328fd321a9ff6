"""The columns that a file has, beside those that its mapping wants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from pipelines.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipelines.sources.archive import SourceFile

_SHOWN = 200
_QUOTES = "\"'"
_NUMBER = re.compile(r"\d{1,20}([.,]\d+)?")


@dataclass(frozen=True, slots=True)
class Found:
    """What the beginning of a file shows."""

    file: SourceFile
    names: Sequence[str]
    """The columns that it has, some of them where there are many."""
    wanted: frozenset[str]
    """Those of the mapping's columns that are among them."""
    has_rows: bool = True
    """Whether anything follows the header; a file without rows may lack any column."""
    noun: str = "column"
    is_csv: bool = False

    @property
    def leaves_nulls_out(self) -> bool:
        """Whether a column that is not there may be one without values: JSON's writers leave such keys out."""
        return self.noun == "key"

    def refuse(self, column: str, elsewhere: str | None = None) -> NoReturn:
        """Say that a column is not there, what is there, and how far that is from it; another file may have it."""
        received = ", ".join(map(repr, self.names))
        shown = received if len(received) <= _SHOWN else f"{received[:_SHOWN]}..."
        msg = (
            f"{self.file.name}: expected a {self.noun} {column!r}, as the mapping says, received the {self.noun}s "
            f"{shown}; {self._remedy(column, elsewhere)}"
        )
        raise SourceError(msg)

    def _remedy(self, column: str, elsewhere: str | None) -> str:
        for name in self.names:
            if difference := _difference(column, name):
                return f"{name!r} differs from it by {difference}: write it in the mapping as it is in the file"
            if name[:1] in _QUOTES and name.strip(_QUOTES) == column:
                return f"the header stands in other quotes: give csv.quote: {name[0]!r}"
        if elsewhere:
            return f"{elsewhere} has it, and every file needs what makes an event: write it into this one, too"
        if self.is_csv and self.names[0].startswith("#"):
            return "is the first line a comment? Take out of the file what stands above the header"
        if self.is_csv and any(_NUMBER.fullmatch(name) for name in self.names):
            return "is the first line a row? Name the columns in csv.columns where there is no header"
        return self.file.remedy_without(column)


def _difference(column: str, name: str) -> str:
    """Return what tells two names apart that a person takes for one; empty for any others."""
    if column.strip().casefold() != name.strip().casefold():
        return ""
    by_space, by_case = column.strip() == name.strip(), column.casefold() == name.casefold()
    return "space around it" if by_space else "upper and lower case" if by_case else "space and case"


def check_columns(files: Iterable[Found], required: Iterable[str], optional: Iterable[str]) -> None:
    """Refuse files without a column: one that is `required` of each, one that is `optional` of them all.

    Older files may lack what is only known since; a file without rows has nothing to lack.

    Raises:
        SourceError: it names the file and the column.
    """
    with_rows = [file for file in files if file.has_rows]
    for file in with_rows:
        for column in required:
            if column not in file.wanted:
                file.refuse(column, next((other.file.name for other in with_rows if column in other.wanted), None))
    for column in optional:
        if with_rows and not any(column in file.wanted for file in with_rows):
            with_rows[0].refuse(column)
