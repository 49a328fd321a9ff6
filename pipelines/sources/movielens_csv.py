"""MovieLens latest-small, 25M and 32M as GroupLens publishes them: ratings.csv and movies.csv, UTF-8, no users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.schemas import MOVIELENS
from pipelines.sources.layout import FileFormat, Row, movie, person, split_title

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_GENRE = "(no genres listed)"


class MovieLensCsv:
    """Comma-separated with a header; titles that hold a comma stand in quotes."""

    name = "MovieLens CSV (latest-small, 25M, 32M)"
    schema = MOVIELENS
    events = FileFormat("ratings.csv", ("userId", "movieId", "rating", "timestamp"), ",", has_header=True, quoted=True)
    items = FileFormat("movies.csv", ("movieId", "title", "genres"), ",", has_header=True, quoted=True)
    users = None

    def item(self, fields: Sequence[str]) -> Row:
        """Read an item; the year is that of the title."""
        title, year = split_title(fields[1])
        genres = (genre for genre in fields[2].split("|") if genre and genre != _NO_GENRE)
        return movie(fields[0], title, year, genres)

    def user(self, fields: Sequence[str]) -> Row:
        """Take the id; the layout says nothing else of users."""
        return person(fields[0])
