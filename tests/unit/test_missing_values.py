"""A value that is missing is missing, however a program wrote it: null, empty, or NaN in a column of numbers."""

from __future__ import annotations

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
