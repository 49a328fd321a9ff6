"""A value that is missing is missing, however a program wrote it: null, empty, or NaN in a column of numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import SourceError
from tests.mapped_world import RATINGS, MappedWorld, rating

if TYPE_CHECKING:
    from pathlib import Path

NAN = float("nan")
PRICED = f"{RATINGS}items:\n  attributes: [{{name: price, kind: numeric, step: 0.5}}]\n"


@pytest.fixture
def world(tmp_path: Path) -> MappedWorld:
    return MappedWorld(tmp_path)


@pytest.mark.parametrize("nothing", [None, NAN])
def test_a_user_that_is_no_number_is_nobody(world: MappedWorld, nothing: float | None) -> None:
    world.parquet([rating(1, user=7.0), rating(2, user=nothing), rating(3, user=8.0)])
    world.ingest()
    assert [row["user_id"] for row in world.rows()] == ["7", "8"]
    assert [(line, reason) for line, reason, _ in world.refused()] == [(2, "missing_user")]


@pytest.mark.parametrize("nothing", [None, NAN])
@pytest.mark.parametrize(("missing", "left"), [("true", ["u1", "u3"]), ("false", ["u2"])])
def test_a_rule_for_missing_values_finds_them(
    world: MappedWorld, nothing: float | None, missing: str, left: list[str]
) -> None:
    world.parquet([rating(1, till=1.0), rating(2, till=nothing), rating(3, till=2.0)])
    skip = f"  skip: [{{reason: no till, when: {{column: till, missing: {missing}}}}}]\n"
    assert world.ingest(RATINGS + skip)["skipped"] == {"no till": 3 - len(left)}
    assert [row["user_id"] for row in world.rows()] == left


@pytest.mark.parametrize("nothing", [None, NAN])
def test_an_attribute_may_be_missing(world: MappedWorld, nothing: float | None) -> None:
    world.parquet([rating(1, price=1.5), rating(2, price=nothing)])
    assert world.ingest(PRICED)["quarantined"] == 0
    assert {name: row["price"] for name, row in world.items().items()} == {"i1": 1.5, "i2": None}


def test_an_attribute_of_an_items_file_may_be_missing(world: MappedWorld) -> None:
    world.parquet([rating(1), rating(2)])
    world.parquet([{"id": "i1", "price": NAN}, {"id": "i2", "price": 2.0}], "items.parquet")
    world.ingest(PRICED.replace("items:\n", "items:\n  files: items.parquet\n  id: id\n"))
    assert {name: row["price"] for name, row in world.items().items()} == {"i1": None, "i2": 2.0}


@pytest.mark.parametrize(("column", "reason"), [("stars", "bad_number"), ("at", "bad_time")])
@pytest.mark.parametrize("nothing", [None, NAN])
def test_a_value_or_a_time_that_is_missing_is_refused(
    world: MappedWorld, column: str, reason: str, nothing: float | None
) -> None:
    rows = [{**rating(number), column: float(rating(number)[column])} for number in (1, 2, 3)]  # type: ignore[arg-type]
    rows[1][column] = nothing
    world.parquet(rows)
    world.ingest()
    assert [(line, found) for line, found, _ in world.refused()] == [(2, reason)]


def test_a_number_that_is_none_is_neither_below_nor_above(world: MappedWorld) -> None:
    cases = "{cases: [{type: rating, when: {column: pieces, above: 0}}], otherwise: rating}"
    world.parquet([rating(1, pieces=1.0), rating(2, pieces=NAN), rating(3, pieces=None)])
    world.ingest(RATINGS.replace("{constant: rating}", cases))
    assert [row["user_id"] for row in world.rows()] == ["u1", "u3"]
    assert world.refused() == [(2, "bad_number", "nan")]


def test_a_number_that_is_declared_to_be_missing_is_neither_below_nor_above(world: MappedWorld) -> None:
    cases = "{cases: [{type: rating, when: {column: pieces, below: 0}}], otherwise: rating}"
    skip = (
        "  skip: [{reason: few, when: {column: pieces, below: 0}}, {reason: much, when: {column: pieces, above: 5}}]\n"
    )
    world.parquet([rating(1, pieces=1.0), rating(2, pieces=NAN), rating(3, pieces=None), rating(4, pieces=-1.0)])
    result = world.ingest(RATINGS.replace("{constant: rating}", cases) + skip + "  missing: [nan]\n")
    assert (result["skipped"], result["quarantined"]) == ({"few": 1, "much": 0}, 0)
    assert [row["user_id"] for row in world.rows()] == ["u1", "u2", "u3"]


@pytest.mark.parametrize(
    ("kind", "nothing", "texts"),
    [
        (pa.int64(), -1, ["-1"]),
        (pa.uint8(), 0, ["NA", "0"]),
        (pa.int32(), -1, ["-1.0"]),
        (pa.float64(), -1, ["-1"]),
        (pa.float32(), 0.1, ["0.1"]),
        (pa.float64(), float("inf"), ["inf"]),
        (pa.decimal128(21, 2), 0, ["0"]),
        (pa.bool_(), False, ["false"]),
        (pa.string(), " NA ", ["NA"]),
    ],
    ids=str,
)
def test_what_stands_for_no_value_does_so_in_every_type(
    world: MappedWorld, kind: pa.DataType, nothing: object, texts: list[str]
) -> None:
    rows = [rating(1), rating(2), rating(3)]
    some = {pa.string(): "7", pa.bool_(): True}.get(kind, 7)
    table = pa.Table.from_pylist(rows).append_column("who", pa.array([some, nothing, some]).cast(kind))
    pq.write_table(table, world.folder / "e.parquet")
    skip = f"  missing: {texts}\n  skip: [{{reason: nobody, when: {{column: who, missing: true}}}}]\n"
    assert world.ingest(RATINGS + skip)["skipped"] == {"nobody": 1}
    assert [row["user_id"] for row in world.rows()] == ["u1", "u3"]


def test_a_price_that_stands_for_none_is_missing(world: MappedWorld) -> None:
    world.parquet([rating(1, price=1.5), rating(2, price=0.0)])
    world.ingest(PRICED.replace("items:\n", "  missing: ['0']\nitems:\n"))
    assert {name: row["price"] for name, row in world.items().items()} == {"i1": 1.5, "i2": None}


TAGGED = f"{RATINGS}  missing: [NA, '-1']\nitems:\n  attributes: [{{name: tags, kind: multi_valued}}]\n"


@pytest.mark.parametrize(
    ("kind", "tags", "terms"),
    [
        (pa.list_(pa.string()), ["x", "NA", "y"], ["x", "y"]),
        (pa.list_(pa.string(), 2), ["x", "y"], ["x", "y"]),
        (pa.list_(pa.float32(), 2), [1, 2.5], ["1", "2.5"]),
        (pa.large_list(pa.float64()), [1.0, -1.0, NAN, 2.0], ["1", "2"]),
        (pa.list_(pa.float16()), [1.0, NAN], ["1"]),
        (pa.list_(pa.int8()), [-1, 3], ["3"]),
        (pa.list_(pa.binary()), [b"x"], ["x"]),
        (pa.list_(pa.bool_()), [True], ["true"]),
    ],
    ids=str,
)
def test_a_list_of_every_type_is_a_list_of_terms(
    world: MappedWorld, kind: pa.DataType, tags: list[object], terms: list[str]
) -> None:
    table = pa.Table.from_pylist([rating(1)]).append_column("tags", pa.array([tags], kind))
    pq.write_table(table, world.folder / "e.parquet")
    world.ingest(TAGGED)
    assert world.items()["i1"]["tags"] == terms


def test_a_list_of_one_length_that_is_null_is_told(world: MappedWorld) -> None:
    """Arrow writes it, and cannot read it."""
    tags = pa.array([["x", "y"], None], pa.list_(pa.string(), 2))
    pq.write_table(pa.Table.from_pylist([rating(1), rating(2)]).append_column("tags", tags), world.folder / "e.parquet")
    with pytest.raises(SourceError, match="lists of any length"):
        world.ingest(TAGGED)


def test_a_term_that_stands_for_none_is_missing_in_texts(world: MappedWorld) -> None:
    world.csv([rating(1, tags="x| NA |y")])
    world.ingest(TAGGED.replace("multi_valued", "multi_valued, separator: '|'"))
    assert world.items()["i1"]["tags"] == ["x", "y"]
    (world.folder / "e.csv").unlink()
    (world.folder / "e.jsonl").write_text(json.dumps(rating(1, tags=["x", "NA", None])), encoding="utf-8")
    world.ingest(TAGGED)
    assert world.items()["i1"]["tags"] == ["x"]


def test_an_infinite_user_is_told(world: MappedWorld) -> None:
    world.parquet([rating(1, user=1.0), rating(2, user=float("inf"))])
    (warning,) = world.ingest()["warnings"]
    assert "user 'inf'" in warning


def test_a_list_of_numbers_loses_what_is_none(world: MappedWorld) -> None:
    world.parquet([rating(1, tags=[1.5, NAN]), rating(2, tags=[NAN])])
    world.ingest(f"{RATINGS}items:\n  attributes: [{{name: tags, kind: multi_valued}}]\n")
    assert {name: row["tags"] for name, row in world.items().items()} == {"i1": ["1.5"], "i2": []}


def test_every_kind_of_column_that_arrow_writes_is_read(world: MappedWorld) -> None:
    rows = [rating(1), rating(2)]
    table = pa.Table.from_pylist(rows)
    world.parquet(rows)
    world.ingest()
    expected = world.rows()
    text = table.column("user")
    for kind in (pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())):
        cast = text.cast(pa.string()).dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)
        pq.write_table(table.set_column(0, "user", cast), world.folder / "e.parquet")
        world.ingest()
        assert world.rows() == expected
    pq.write_table(table.set_column(2, "stars", table.column("stars").cast(pa.float16())), world.folder / "e.parquet")
    world.ingest()
    assert world.rows() == expected


def test_bytes_that_are_no_text_are_told(world: MappedWorld) -> None:
    table = pa.Table.from_pylist([rating(1), rating(2)])
    raw = pa.array([b"\xc8" * 16, b"\xc9" * 16], pa.binary(16))
    pq.write_table(table.set_column(0, "user", raw), world.folder / "e.parquet")
    with pytest.raises(SourceError, match=r"column 'user' holds bytes that are no text.*UUID"):
        world.ingest()
    mixed = pa.array([b"u1", b"\xc9\xff"], pa.binary())
    pq.write_table(table.set_column(0, "user", mixed), world.folder / "e.parquet")
    world.ingest()
    assert [(line, reason) for line, reason, _ in world.refused()] == [(2, "undecodable_bytes")]
