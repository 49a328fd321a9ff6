"""A whole of another data set is told by who did what when, whatever ids of two data sets are called alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pipelines.errors import SourceError
from tests.mapped_world import FIRST, RATINGS, MappedWorld

if TYPE_CHECKING:
    from pathlib import Path

ISO = "{column: when}"
UNIX = "{column: ts, unit: s}"


@pytest.fixture
def world(tmp_path: Path) -> MappedWorld:
    return MappedWorld(tmp_path)


def read(user: str = "user", item: str = "item", time: str = UNIX) -> str:
    mapping = RATINGS.replace("user: user", f"user: {user}").replace("item: item", f"item: {item}")
    return mapping.replace("{column: at, unit: s}", time).replace("stars", "value")


def films(seconds: int = 5000, first: int = FIRST, items: int = 17) -> list[dict[str, object]]:
    """Return ratings of a few users, whom numbers name, with all that a mapping may read them by."""
    return [
        {
            "user": 1 + number % 20,
            "item": 1 + number % items,
            "title": f"film {1 + number % items}",
            "value": 1 + number % 5,
            "ts": (at := first + number * seconds),
            "when": f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}",
        }
        for number in range(300)
    ]


@pytest.mark.parametrize(
    ("item", "time", "first", "is_told"),
    [
        ("title", ISO, FIRST - 200_000_000, True),
        ("title", ISO, FIRST + 7, True),
        ("title", UNIX, FIRST + 7, False),
        ("item", ISO, FIRST - 200_000_000, False),
        ("item", UNIX, FIRST + 7, False),
    ],
)
def test_another_data_set_with_the_same_users_is_refused(
    world: MappedWorld, item: str, time: str, first: int, *, is_told: bool
) -> None:
    """The same numbers name users, and mostly items."""
    world.csv(films())
    world.ingest(read())
    before = world.rows()
    world.csv(films(7000, first, 19))
    with pytest.raises(SourceError, match="--mode replace") as told:
        world.ingest(read(item=item, time=time))
    assert ("one at a time" in str(told.value)) == is_told
    assert world.rows() == before


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (UNIX, read(item="title")),
        (UNIX, read(item="title", time=ISO)),
        (ISO, read(time="{column: when, zone: Asia/Tokyo}")),
        (ISO, read(item="title", time="{column: when, zone: Asia/Tokyo}")),
    ],
)
def test_the_same_data_set_read_in_another_way_is_welcome(world: MappedWorld, was: str, becomes: str) -> None:
    world.csv(films())
    world.ingest(read(time=was))
    world.ingest(becomes)


def test_a_whole_of_later_days_shares_users_and_items(world: MappedWorld) -> None:
    world.csv(films())
    world.ingest(read())
    later = [row | {"item": f"another {row['item']}"} for row in films(first=FIRST + 9_000_000)]
    world.csv(later)
    with pytest.raises(SourceError, match="--mode replace"):
        world.ingest(read())
    world.csv(films(first=FIRST + 9_000_000))
    world.ingest(read())
