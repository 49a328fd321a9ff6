"""MovieLens 100K as GroupLens publishes it: u.data, u.item, u.user (ml-100k-README.txt)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.schemas import MOVIELENS
from pipelines.sources.layout import FileFormat, Row, RowError, movie, person, split_title, whole_number, year_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_NO_GENRE = "unknown"
_DETAILS = ("movie id", "movie title", "release date", "video release date", "IMDb URL")


class MovieLens100K:
    """One flag per genre; the genres come in the order of the flags."""

    name = "MovieLens 100K"
    schema = MOVIELENS
    events = FileFormat("u.data", ("user id", "item id", "rating", "timestamp"), "\t", "latin-1")
    items = FileFormat("u.item", (*_DETAILS, *_GENRES), "|", "latin-1")
    users = FileFormat("u.user", ("user id", "age", "gender", "occupation", "zip code"), "|", "latin-1")

    def item(self, fields: Sequence[str]) -> Row:
        """Read an item; the year is that of the title, else that of the release."""
        flags = fields[len(_DETAILS) :]
        for genre, flag in zip(_GENRES, flags, strict=True):
            if flag not in {"0", "1"}:
                raise RowError(genre, "bad_flag", "0 or 1", flag)
        title, year = split_title(fields[1])
        genres = (genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1" and genre != _NO_GENRE)
        return movie(fields[0], title, year or year_of(fields[2]), genres)

    def user(self, fields: Sequence[str]) -> Row:
        """Read a user."""
        return person(fields[0], whole_number(fields[1], "age"), fields[2], fields[3])
