"""RecBole's atomic files, in which a wheel on the package registry carries MovieLens 100K (`fetch`).

https://recbole.io/docs/user_guide/data/atomic_files.html: tab-separated, UTF-8, a header of `name:type`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.schemas import MOVIELENS
from pipelines.sources.layout import FileFormat, Row, movie, person, whole_number, year_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_GENRE = "unknown"


class RecBole:
    """Genres stand in one field, parted by spaces; the title has no year."""

    name = "RecBole atomic files"
    schema = MOVIELENS
    events = FileFormat(
        ".inter", ("user_id:token", "item_id:token", "rating:float", "timestamp:float"), "\t", has_header=True
    )
    items = FileFormat(
        ".item",
        ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"),
        "\t",
        has_header=True,
    )
    users = FileFormat(
        ".user",
        ("user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token"),
        "\t",
        has_header=True,
    )

    def item(self, fields: Sequence[str]) -> Row:
        """Read an item."""
        genres = (genre for genre in fields[3].split() if genre != _NO_GENRE)
        return movie(fields[0], fields[1].strip(), year_of(fields[2]), genres)

    def user(self, fields: Sequence[str]) -> Row:
        """Read a user."""
        return person(fields[0], whole_number(fields[1], "age:token"), fields[2], fields[3])
