"""MovieLens 1M as GroupLens publishes it: ratings.dat, movies.dat, users.dat, fields parted by '::'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.schemas import MOVIELENS
from pipelines.sources.layout import FileFormat, Row, movie, person, split_title, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence


class MovieLens1M:
    """Age and occupation are codes: the age is the least of its bracket (1 is 'under 18'), the occupation 0 to 20."""

    name = "MovieLens 1M"
    schema = MOVIELENS
    events = FileFormat("ratings.dat", ("UserID", "MovieID", "Rating", "Timestamp"), "::", "latin-1")
    items = FileFormat("movies.dat", ("MovieID", "Title", "Genres"), "::", "latin-1")
    users = FileFormat("users.dat", ("UserID", "Gender", "Age", "Occupation", "Zip-code"), "::", "latin-1")

    def item(self, fields: Sequence[str]) -> Row:
        """Read an item; the year is that of the title."""
        title, year = split_title(fields[1])
        return movie(fields[0], title, year, tuple(genre for genre in fields[2].split("|") if genre))

    def user(self, fields: Sequence[str]) -> Row:
        """Read a user."""
        return person(fields[0], whole_number(fields[2], "Age"), fields[1], fields[3])
