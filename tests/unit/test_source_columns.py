"""Headers as people write them, and forms that need a key of the mapping: only used columns have to be right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipelines.errors import SourceError
from tests.mapped_world import FIRST, RATINGS, MappedWorld, rating

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [rating(number) for number in range(1, 4)]
USERS = ["u1", "u2", "u3"]


@pytest.fixture
def world(tmp_path: Path) -> MappedWorld:
    return MappedWorld(tmp_path)


def write(world: MappedWorld, header: str, more: str = "", above: str = "") -> None:
    body = "".join(f"{','.join(map(str, row.values()))}{more}\n" for row in ROWS)
    (world.folder / "e.csv").write_text(f"{above}{header}\n{body}", encoding="utf-8")


@pytest.mark.parametrize("extra", [",x,x", ",,", ",Unnamed: 0,"])
def test_columns_that_nobody_uses_may_be_called_anything(world: MappedWorld, extra: str) -> None:
    write(world, f"user,item,stars,at{extra}", ",1,2")
    world.ingest()
    assert [row["user_id"] for row in world.rows()] == USERS


def test_a_used_column_that_is_there_twice_is_told(world: MappedWorld) -> None:
    write(world, "user,item,stars,at,user", ",other")
    with pytest.raises(SourceError, match=r"expected one column 'user', received it as columns \[1, 5\]; rename"):
        world.ingest()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("User,item,stars,at", "'User' differs from it by upper and lower case"),
        (" user,item,stars,at", "' user' differs from it by space around it"),
        ("USER ,item,stars,at", "'USER ' differs from it by space and case"),
        ("customer,item,stars,at", "correct the mapping"),
        ("# export\nuser,item,stars,at", "is the first line a comment?"),
        ("u0,i0,3,1700000000", "csv.columns where there is no header"),
    ],
)
def test_a_name_that_is_nearly_the_same_is_told(world: MappedWorld, header: str, words: str) -> None:
    write(world, header)
    with pytest.raises(SourceError, match="expected a column 'user'") as caught:
        world.ingest()
    assert words in str(caught.value)


def test_a_header_in_other_quotes_is_told(world: MappedWorld) -> None:
    write(world, '"user","item","stars","at"')
    with pytest.raises(SourceError, match=r"the header stands in other quotes: give csv\.quote"):
        world.ingest(RATINGS.replace("  user: user", """  csv: {quote: "'"}\n  user: user"""))


def test_a_key_of_json_that_is_nearly_the_same_is_told(world: MappedWorld) -> None:
    lines = (json.dumps({**row, "User": row["user"]} | {"user": None}).replace('"user": null, ', "") for row in ROWS)
    (world.folder / "e.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SourceError, match=r"expected a key 'user'.*'User' differs from it by upper and lower case"):
        world.ingest()


def test_parquet_may_have_columns_that_differ_by_case(world: MappedWorld) -> None:
    world.parquet([row | {"USER": "x", "User": "y"} for row in ROWS])
    world.ingest()
    assert [row["user_id"] for row in world.rows()] == USERS


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_no_column_is_read_out_of_a_path(world: MappedWorld, form: str) -> None:
    mapping = RATINGS.replace('"e*"', '"*"')
    getattr(world, form)(ROWS, f"e.{form}")
    world.ingest(mapping)
    expected = world.rows()
    name = f"stars=1/at=2023-11-14/user=x [1]*{{a,b}}?/e.{form}"
    (world.folder / name).parent.mkdir(parents=True)
    (world.folder / f"e.{form}").rename(world.folder / name)
    world.ingest(mapping)
    assert world.rows() == expected


def test_a_column_that_stands_in_the_path_alone_is_told(world: MappedWorld) -> None:
    rows = [{name: cell for name, cell in row.items() if name != "stars"} for row in ROWS]
    world.parquet(rows, "stars=1/e.parquet")
    with pytest.raises(
        SourceError, match="the folder 'stars=1' is a path and no column: write the column into the file"
    ):
        world.ingest(RATINGS.replace('"e*"', '"*"'))


def test_the_line_by_which_excel_tells_the_separator_is_no_header(world: MappedWorld) -> None:
    write(world, "user,item,stars,at", above="sep=,\n\n")
    world.ingest()
    assert [row["user_id"] for row in world.rows()] == USERS
    write(world, "user,item,stars,at", above="sep=;\n")
    with pytest.raises(SourceError, match=r"give csv\.separator: ';'"):
        world.ingest()


def test_decimal_commas(world: MappedWorld) -> None:
    attribute = "items:\n  attributes: [{name: price, kind: numeric, step: 0.01}]\n"
    world.csv([row | {"price": f"{row['stars']},25"} for row in ROWS], separator=";")
    declared = RATINGS.replace("  user:", "  csv: {separator: ';', decimal: ','}\n  user:") + attribute
    world.ingest(declared)
    assert [row["price"] for row in world.items().values()] == [2.25, 3.25, 4.25]
    world.csv([row | {"price": price} for row, price in zip(ROWS, ("2", "1.234,5", "1.5"), strict=True)], separator=";")
    world.ingest(declared)
    assert world.refused() == [(3, "bad_number", "1.234,5"), (4, "bad_number", "1.5")]


SESSIONS = RATINGS.replace("user: user", "each: events\n  user: session").replace("item: item", "item: /events/aid")
SESSIONS = SESSIONS.replace("column: at", "column: /events/ts").replace("{column: stars,", "{column: /events/stars,")


def session(number: int, *items: str) -> dict[str, object]:
    events = [{"aid": item, "ts": 1_700_000_000 + place, "stars": 3} for place, item in enumerate(items)]
    return {"session": f"s{number}", "events": events}


def lines(world: MappedWorld, *values: object) -> None:
    (world.folder / "e.jsonl").write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")


def test_a_line_may_hold_a_list_of_events(world: MappedWorld) -> None:
    lines(world, session(1, "a", "b"), session(2), session(3, "c"))
    assert world.ingest(SESSIONS)["quarantined"] == 0
    found = [(row["user_id"], row["item_id"], row["event_time"].second) for row in world.rows()]
    assert sorted(found) == [("s1", "a", 20), ("s1", "b", 21), ("s3", "c", 20)]


def test_the_elements_of_a_list_may_be_ids(world: MappedWorld) -> None:
    lines(world, {"user": "u1", "items": ["a", 7], "at": FIRST, "stars": 3})
    world.ingest(RATINGS.replace("user: user", "each: items\n  user: user").replace("item: item", "item: items"))
    assert sorted(row["item_id"] for row in world.rows()) == ["7", "a"]


def test_a_line_without_a_list_is_refused(world: MappedWorld) -> None:
    lines(world, session(1, "a"), {"session": "s2"}, {"session": "s3", "events": 5}, [1])
    world.ingest(SESSIONS)
    assert [(line, reason) for line, reason, _ in world.refused()] == [
        (2, "bad_json"),
        (3, "bad_json"),
        (4, "bad_json"),
    ]


def test_a_column_that_no_element_has_is_told(world: MappedWorld) -> None:
    lines(world, session(1, "a"))
    with pytest.raises(SourceError, match="expected a key '/events/sku'"):
        world.ingest(SESSIONS.replace("/events/aid", "/events/sku"))


def test_each_is_for_json_lines(world: MappedWorld) -> None:
    world.csv(ROWS)
    with pytest.raises(SourceError, match=r"events\.each: expected JSON lines.*e\.csv"):
        world.ingest(RATINGS.replace("  user: user", "  each: events\n  user: user"))
