"""What event rows say of items and users, once more by brute force, day by day."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.columns import Column
from feature_repo.contracts.datasets import (
    TITLE,
    attribute_column,
    item_versions_dataset,
    items_dataset,
    observations_dataset,
    user_versions_dataset,
    users_dataset,
)
from feature_repo.contracts.schemas import (
    MOVIELENS,
    Attribute,
    EventType,
    Kind,
    Positive,
    Reduction,
    Schema,
    SchemaError,
    ValueRange,
)
from pipelines.io.arrow import arrow_schema
from pipelines.sources.adapter import Derived
from pipelines.sources.observations import read_off

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST = datetime(2024, 2, 27, tzinfo=UTC)
PRICE = Attribute("price", Kind.NUMERIC, step=0.25, reduction=Reduction.MEDIAN)
COLOUR = Attribute("colour", Kind.CATEGORICAL, reduction=Reduction.MOST_COMMON)
TAGS = Attribute("tags", Kind.MULTI_VALUED, reduction=Reduction.LATEST)
SETS = Attribute("sets", Kind.MULTI_VALUED, reduction=Reduction.MOST_COMMON)
AGE = Attribute("age", Kind.NUMERIC, reduction=Reduction.LATEST)
SHOP = Schema(
    event_types=(EventType("buy"),),
    value=ValueRange(1, 9),
    positive=Positive(("buy",), 1),
    item_attributes=(PRICE, COLOUR, TAGS, SETS),
    user_attributes=(AGE,),
)
Rows = list[dict[str, Any]]


def derived(owner: str, attribute: Attribute) -> Derived:
    stored = attribute_column(attribute)
    column = Column(f"{owner}_{stored.name}", stored.dtype, stored.meaning, stored.length, stored.nullable)
    assert attribute.reduction is not None
    return Derived(owner, column, attribute, attribute.reduction, attribute.name)


DERIVED = (
    Derived("item", Column("item_title", TITLE.dtype, "", nullable=True), None, Reduction.MOST_COMMON, "title"),
    *(derived("item", attribute) for attribute in SHOP.item_attributes),
    derived("user", AGE),
)
OBSERVATIONS = observations_dataset(tuple(each.column for each in DERIVED))


def random_observations(seed: int, count: int = 300) -> Rows:
    """Return rows with many ties of numbers, values and moments; some days lack, the last microsecond has some."""
    dice = random.Random(seed)
    rows = {}
    for _ in range(count):
        second = dice.choice([0, 1, 40_000, 86_399])
        time = FIRST + timedelta(days=dice.choice([0, 1, 2, 5, 6, 40]), seconds=second)
        if second == 86_399:
            time += timedelta(microseconds=999_999)
        row = {
            "user_id": f"u{dice.randrange(9)}",
            "item_id": f"i{dice.randrange(6)}",
            "event_type": "buy",
            "event_time": time,
            "item_title": dice.choice([None, "B", "a", "é"]),
            "item_price": dice.choice([None, 0.25, 1.5, 2.0, 999.0]),
            "item_colour": dice.choice([None, "red", "blue", "Äpfel"]),
            "item_tags": dice.sample("abc", dice.randrange(3)),
            "item_sets": dice.choice([[], ["x"], ["x", "y"], ["y"]]),
            "user_age": dice.choice([None, None, 20, 30]),
        }
        rows[row["user_id"], row["item_id"], time] = row
    shuffled = list(rows.values())
    dice.shuffle(shuffled)
    return shuffled


def write_days(folder: Path, rows: Rows) -> list[Path]:
    """Write one file for each day, as the lake has them."""
    files = []
    for day in sorted({row["event_time"].date() for row in rows}):
        files.append(folder / f"{day}.parquet")
        of_day = [row for row in rows if row["event_time"].date() == day]
        pq.write_table(pa.Table.from_pylist(of_day, schema=arrow_schema(OBSERVATIONS)), files[-1])
    return files


def reduced(rows: Rows, each: Derived) -> Any:
    """Return the reduction of some rows by its definition; None where none of them says anything."""
    values = [(row["event_time"], row[each.column.name]) for row in rows if row[each.column.name] not in (None, [])]
    if not values:
        return [] if each.column.length else None
    listed = sorted(value for _, value in values)
    match each.reduction:
        case Reduction.LATEST:
            last = max(time for time, _ in values)
            return min(value for time, value in values if time == last)
        case Reduction.MEDIAN:
            return listed[(len(listed) - 1) // 2]
    numbers = Counter(tuple(value) if isinstance(value, list) else value for value in listed)
    best = min(numbers, key=lambda value: (-numbers[value], value))
    return list(best) if isinstance(best, tuple) else best


def end_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) - timedelta(microseconds=1)


def described(rows: Rows, owner: str, name: str) -> dict[str, Any]:
    """Return what rows say of one item or user."""
    own = [row for row in rows if row[f"{owner}_id"] == name]
    found = {each.target: reduced(own, each) for each in DERIVED if each.owner == owner}
    if owner == "item":
        found["title"] = found["title"] or name
    return {f"{owner}_id": name, **found}


def versions_by_hand(rows: Rows, owner: str) -> Rows:
    found: Rows = []
    for name in sorted({row[f"{owner}_id"] for row in rows}):
        before = None
        for day in sorted({row["event_time"].date() for row in rows if row[f"{owner}_id"] == name}):
            now = described([row for row in rows if row["event_time"].date() <= day], owner, name)
            if now != before:
                found.append({**now, "event_time": end_of(day)})
            before = now
    return found


def in_order(rows: Rows, owner: str) -> Rows:
    return sorted(rows, key=lambda row: (row[f"{owner}_id"], row.get("event_time", FIRST)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("owner", ["item", "user"])
def test_versions_are_the_reductions_as_of_each_day(seed: int, owner: str, tmp_path: Path) -> None:
    rows = random_observations(seed)
    datasets: dict[str, tuple[Callable[[Schema], Any], Callable[[Schema], Any]]] = {
        "item": (item_versions_dataset, items_dataset),
        "user": (user_versions_dataset, users_dataset),
    }
    dated, undated = (make(SHOP) for make in datasets[owner])
    with read_off(write_days(tmp_path, rows), dated, DERIVED, tmp_path) as versions:
        received = [row for batch in versions.in_order_of_time() for row in batch.to_pylist()]
        newest = versions.newest(undated).to_pylist()
    assert [row["event_time"] for row in received] == sorted(row["event_time"] for row in received)
    assert in_order(received, owner) == versions_by_hand(rows, owner)
    names = sorted({row[f"{owner}_id"] for row in rows})
    assert in_order(newest, owner) == [described(rows, owner, name) for name in names]


def test_a_schema_says_which_attributes_are_derived_and_reads_what_it_wrote() -> None:
    assert Schema.from_json(SHOP.to_json()) == SHOP
    assert SHOP.items_are_derived
    assert SHOP.users_are_derived
    assert not MOVIELENS.items_are_derived
    with pytest.raises(SchemaError, match=r"item attributes that are all derived, or none, received \['price'\] alone"):
        replace(SHOP, item_attributes=(PRICE, Attribute("weight", Kind.NUMERIC)))
    assert all("reduction" not in each for each in MOVIELENS.to_json()["item_attributes"]), "hashed as before"
