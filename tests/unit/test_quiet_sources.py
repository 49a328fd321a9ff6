"""Days without events, files without rows, columns that only some files have: the source as a whole has to fit."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import SourceError
from pipelines.sources.mode import Mode
from tests.mapped_world import HEADER, RATINGS, MappedWorld, rating

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [rating(number) for number in range(1, 5)]
OF_FILE = "items:\n  files: items.csv\n  id: id\n  attributes: [{name: price, kind: numeric}]\n"
READ_OFF = "items:\n  attributes: [{name: price, kind: numeric}]\n"
SKIP = "  skip: [{reason: nobody, when: {column: user, missing: true}}]\n"


@pytest.fixture
def world(tmp_path: Path) -> MappedWorld:
    return MappedWorld(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n", f"{HEADER}\n".encode(), f"{HEADER}\n\n".encode(), b"anything\n"])
def test_a_file_without_rows_beside_others_is_nothing(world: MappedWorld, content: bytes) -> None:
    world.csv(ROWS)
    alone = world.ingest()
    for name in ("e-0.csv", "e-2.csv"):
        (world.folder / name).write_bytes(content)
    assert world.ingest() == {**alone, "changed_partitions": 0}


def test_an_empty_file_of_another_format_is_nothing(world: MappedWorld) -> None:
    world.csv(ROWS)
    alone = world.ingest()
    (world.folder / "e.jsonl").write_bytes(b"\n")
    (world.folder / "e.parquet").write_bytes(b"")
    empty = pa.Table.from_pylist([], pa.schema([("user", pa.string())]))
    pq.write_table(empty, world.folder / "e2.parquet")
    assert world.ingest() == {**alone, "changed_partitions": 0}


def test_a_whole_without_any_row_is_told(world: MappedWorld) -> None:
    (world.folder / "e.csv").write_text(f"{HEADER}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"e\.csv: expected rows of events, received none"):
        world.ingest()


@pytest.mark.parametrize("content", ["", f"{HEADER}\n", f"{HEADER}\n,i1,3,1701200000\n"])
def test_a_part_of_a_quiet_day_changes_nothing(world: MappedWorld, content: str) -> None:
    world.csv(ROWS)
    whole = world.ingest(RATINGS + SKIP)
    day = world.root / "2023-11-28.csv"
    day.write_text(content, encoding="utf-8")
    part = world.ingest(RATINGS + SKIP, Mode.PART, day)
    left_out = {"skipped": {"nobody": content.count("i1")}}
    assert part == {**whole, "changed_partitions": 0, **left_out}


def test_a_quiet_part_before_any_whole_is_told(world: MappedWorld) -> None:
    (world.folder / "e.csv").write_text(f"{HEADER}\n", encoding="utf-8")
    with pytest.raises(SourceError, match="expected at least one event"):
        world.ingest(mode=Mode.PART)


def test_a_part_may_be_of_items_alone(world: MappedWorld) -> None:
    world.csv(ROWS)
    world.csv([{"id": f"i{number}", "price": number} for number in range(1, 5)], "items.csv")
    whole = world.ingest(RATINGS + OF_FILE)
    part = world.root / "part"
    part.mkdir()
    (part / "items.csv").write_text("id,price\ni9,9\ni1,7\n", encoding="utf-8")
    for source in (part, part / "items.csv"):
        result = world.ingest(RATINGS + OF_FILE, Mode.PART, source)
        assert (result["events"], result["items"], result["cutoff"]) == (4, 5, whole["cutoff"])
        prices = {name: row["price"] for name, row in world.items().items()}
        assert prices == {"i1": 7.0, "i2": 2.0, "i3": 3.0, "i4": 4.0, "i9": 9.0}
    assert result["changed_partitions"] == 0


def test_older_files_may_lack_an_attribute(world: MappedWorld) -> None:
    world.csv(ROWS[:2], "e1.csv")
    world.csv([row | {"price": 2} for row in ROWS[2:]], "e2.csv")
    assert world.ingest(RATINGS + READ_OFF)["quarantined"] == 0
    prices = {name: row["price"] for name, row in world.items().items()}
    assert prices == {"i1": None, "i2": None, "i3": 2.0, "i4": 2.0}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_attribute_that_no_file_has_is_told(world: MappedWorld, form: str) -> None:
    getattr(world, form)(ROWS)
    with pytest.raises(SourceError, match="expected a column 'price'"):
        world.ingest(RATINGS + READ_OFF)


def test_a_part_may_lack_what_is_read_off_and_no_column_of_items(world: MappedWorld) -> None:
    world.csv([row | {"price": 2} for row in ROWS])
    world.ingest(RATINGS + READ_OFF)
    day = world.root / "day.csv"
    day.write_text(f"{HEADER}\nu9,i1,3,1701200000\n", encoding="utf-8")
    assert world.ingest(RATINGS + READ_OFF, Mode.PART, day)["events"] == 5
    assert world.items()["i1"]["price"] == 2.0


def test_items_of_a_part_lose_no_attribute_unseen(world: MappedWorld) -> None:
    world.csv(ROWS)
    world.csv([{"id": f"i{number}", "price": number} for number in range(1, 5)], "items.csv")
    world.ingest(RATINGS + OF_FILE)
    part = world.root / "items.csv"
    part.write_text("id\ni1\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"items\.csv: expected a column 'price'"):
        world.ingest(RATINGS + OF_FILE, Mode.PART, part)


@pytest.mark.parametrize("column", ["user", "item", "stars", "at"])
def test_a_file_with_rows_has_what_every_event_needs(world: MappedWorld, column: str) -> None:
    world.csv(ROWS, "e1.csv")
    world.csv([{name: cell for name, cell in row.items() if name != column} for row in ROWS], "e2.csv")
    with pytest.raises(SourceError, match=rf"e2\.csv: expected a column '{column}'.*e1\.csv has it"):
        world.ingest()


@pytest.mark.parametrize(
    "name", ["day.csv", "day.jsonl", "day.parquet", "day.csv.gz", "day.jsonl.gz", "day.parquet.gz"]
)
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_a_part_without_a_byte_of_data_changes_nothing(world: MappedWorld, name: str, content: bytes) -> None:
    world.csv(ROWS)
    whole = world.ingest()
    day = world.root / name
    content = b"" if "parquet" in name else content
    day.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert world.ingest(RATINGS, Mode.PART, day) == {**whole, "changed_partitions": 0}


def test_a_rule_that_leaves_out_all_rows_is_told(world: MappedWorld) -> None:
    world.csv(ROWS)
    with pytest.raises(SourceError, match=r"expected at least one event.*left out were \{'nobody': 4\}.*events\.skip"):
        world.ingest(RATINGS + SKIP.replace("missing: true", "missing: false"))


EACH = RATINGS.replace("user: user\n", "each: events\n  user: session\n").replace("item: item", "item: /events/aid")


def sessions(*rows: tuple[object, ...]) -> str:
    return "".join(
        json.dumps(
            {"session": user, "at": 1_700_000_000 + place, "stars": 3, "events": [{"aid": item} for item in items]}
        )
        + "\n"
        for place, (user, *items) in enumerate(rows)
    )


def test_lists_may_be_empty_for_a_day(world: MappedWorld) -> None:
    (world.folder / "e1.jsonl").write_text(sessions(("u1", "i1"), ("u2", "i2", "i3")), encoding="utf-8")
    (world.folder / "e2.jsonl").write_text(sessions(("u9",)), encoding="utf-8")
    whole = world.ingest(EACH)
    assert (whole["events"], whole["quarantined"]) == (3, 0)
    assert world.ingest(EACH, Mode.PART, world.folder / "e2.jsonl") == {**whole, "changed_partitions": 0}
    (world.folder / "e1.jsonl").unlink()
    with pytest.raises(SourceError, match=r"e2\.jsonl: expected rows of events, received none"):
        world.ingest(EACH)
    with pytest.raises(SourceError, match="expected a key '/event/aid'"):
        world.ingest(EACH.replace("/events/aid", "/event/aid").replace("each: events", "each: event"))


def test_a_key_that_nobody_had_on_a_day_is_a_null(world: MappedWorld) -> None:
    coupon = RATINGS + "  skip: [{reason: gift, when: {column: coupon, missing: false}}]\n"
    coupon += OF_FILE.replace(".csv", ".jsonl")

    def write(folder: Path, events: list[dict[str, object]], items: list[dict[str, object]]) -> None:
        for name, rows in (("e.jsonl", events), ("items.jsonl", items)):
            folder.mkdir(exist_ok=True)
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    items: list[dict[str, object]] = [{"id": f"i{number}"} for number in range(1, 5)]
    write(world.folder, ROWS, items)
    with pytest.raises(SourceError, match="expected a key 'coupon'"):
        world.ingest(coupon)
    write(world.folder, [*ROWS[:3], ROWS[3] | {"coupon": "x"}], items)
    with pytest.raises(SourceError, match="expected a key 'price'"):
        world.ingest(coupon)
    write(world.folder, [*ROWS[:3], ROWS[3] | {"coupon": "x"}], [*items, {"id": "i5", "price": 5}])
    assert world.ingest(coupon)["events"] == 3
    write(world.root / "day", [rating(5, item="i1")], items)
    part = world.ingest(coupon, Mode.PART, world.root / "day")
    assert (part["events"], part["skipped"]) == (4, {"gift": 0})
