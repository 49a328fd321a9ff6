"""What can be read, and is hardly meant: times of another unit, ids of spreadsheets, files of another kind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from pipelines.errors import QuarantineLimitError, SourceError
from pipelines.sources.first_bytes import what_text_is_not
from pipelines.sources.mode import Mode
from tests.mapped_world import FIRST, HEADER, RATINGS, MappedWorld, rating

if TYPE_CHECKING:
    from pathlib import Path

MILLISECONDS = RATINGS.replace("unit: s", "unit: ms")
ROWS = [rating(number, user=f"u{number % 20}", stars=number % 5 + 1) for number in range(200)]


@pytest.fixture
def world(tmp_path: Path) -> MappedWorld:
    return MappedWorld(tmp_path)


@pytest.mark.parametrize(
    ("unit", "scale", "stray", "shown"),
    [
        ("ms", 1000, FIRST, "1700000000.0 ms, 1970-01-20 16:13:20"),
        ("us", 1_000_000, FIRST, "1700000000.0 us, 1970-01-01 00:28:20"),
        ("us", 1_000_000, FIRST * 1000, "1700000000000.0 us, 1970-01-20 16:13:20"),
        ("s", 1, 0, "0.0 s, 1970-01-01 00:00:00"),
        ("ms", 1000, 0, "0.0 ms, 1970-01-01 00:00:00"),
    ],
)
def test_a_time_of_1970_among_others_of_our_days_is_refused(
    world: MappedWorld, unit: str, scale: int, stray: int, shown: str
) -> None:
    world.csv([rating(1, at=FIRST * scale), rating(2, at=stray), rating(3, at=(FIRST + 9) * scale)])
    world.ingest(RATINGS.replace("unit: s", f"unit: {unit}"))
    assert world.refused() == [(3, "implausible_time", shown)]


def test_a_text_that_stands_for_no_time_is_refused_alike(world: MappedWorld) -> None:
    world.csv([rating(1, at="2023-11-14 10:00:00"), rating(2, at="1970-01-01 00:00:00")])
    world.ingest(RATINGS.replace("{column: at, unit: s}", "at"))
    assert [(line, reason) for line, reason, _ in world.refused()] == [(3, "implausible_time")]


def test_numbers_that_are_too_large_are_refused_alike(world: MappedWorld) -> None:
    world.csv([rating(1), rating(2, at=FIRST * 1000)])
    world.ingest()
    assert [line for line, _, _ in world.refused()] == [3]


def test_half_the_rows_in_another_unit_stop_the_ingestion(tmp_path: Path) -> None:
    world = MappedWorld(tmp_path, limit=0.01)
    world.csv([row | {"at": row["at"] * (1000 if number % 2 else 1)} for number, row in enumerate(ROWS)])  # type: ignore[operator]
    with pytest.raises(QuarantineLimitError, match=r"100 of 200 rows.*implausible_time.*2023-11-14 to .*one unit"):
        world.ingest(MILLISECONDS)


@pytest.mark.parametrize("early", [[63_072_000], [63_072_000, 200_000_000], [100_000_000, 160_000_000, 300_000_000]])
def test_a_few_early_rows_make_no_others_plausible(world: MappedWorld, early: list[int]) -> None:
    half = [row | {"at": 0} if number % 2 else row for number, row in enumerate(ROWS)]
    world.csv([*half, *(rating(300 + number, at=at) for number, at in enumerate(early))])
    assert world.ingest()["quarantined"] == 100 + len(early)
    assert {reason for _, reason, _ in world.refused()} == {"implausible_time"}


def test_a_time_that_lost_a_digit_is_refused(world: MappedWorld) -> None:
    world.csv([*ROWS, rating(300, at=170_000_000)])
    world.ingest()
    assert world.refused() == [(202, "implausible_time", "170000000.0 s, 1975-05-22 14:13:20")]


@pytest.mark.parametrize("growth", [0.5, 1, 2])
def test_a_log_that_counts_from_its_beginning_may_be_long(world: MappedWorld, growth: float) -> None:
    """It grows or shrinks, by as much as twice a year."""
    most = max(growth**year for year in range(12))
    counts = [max(1, round(60 * growth**year / most)) for year in range(12)]
    times = [year * 31_536_000 + number * 1000 for year, count in enumerate(counts) for number in range(count)]
    world.csv([rating(number, at=at) for number, at in enumerate(times)])
    assert world.ingest()["quarantined"] == 0


TEXTS = RATINGS.replace("{column: at, unit: s}", "at")
NO_TIME = {"at": "1970-01-01 00:00:00"}


@pytest.mark.parametrize("rows", [5, 30])
def test_a_part_is_judged_beside_the_lake(world: MappedWorld, rows: int) -> None:
    world.csv([rating(number, at=f"2023-11-{14 + number % 10} 10:00:00") for number in range(60)])
    world.ingest(TEXTS)
    world.csv([rating(number) | NO_TIME for number in range(rows)])
    strict = MappedWorld(world.root, limit=0.01)
    with pytest.raises(QuarantineLimitError, match=rf"{rows} of {rows} rows.*implausible_time.*2023-11-14 to "):
        strict.ingest(TEXTS, Mode.PART)


def test_texts_of_nothing_but_1970_are_refused(world: MappedWorld) -> None:
    world.csv([rating(number) | NO_TIME for number in range(40)])
    with pytest.raises(SourceError, match=r"events\.time: expected times after 1970, received 1970-01-01 00:00:00 to"):
        world.ingest(TEXTS)


def test_times_of_relations_are_judged_alike(world: MappedWorld) -> None:
    mapping = RATINGS + "relations: {files: r.csv, user: a, other: b, since: {column: since, unit: s}}\n"
    world.csv(ROWS)
    world.csv([{"a": f"u{number}", "b": "v", "since": 0 if number % 4 else FIRST} for number in range(40)], "r.csv")
    assert world.ingest(mapping)["quarantined"] == 30
    assert {reason for _, reason, _ in world.refused()} == {"implausible_time"}
    world.csv([{"a": f"u{number}", "b": "v", "since": 0} for number in range(40)], "r.csv")
    with pytest.raises(SourceError, match=r"relations\.since: expected times after 1970.*'since' in s"):
        world.ingest(mapping)


def test_times_that_count_from_the_beginning_of_a_log_are_times(world: MappedWorld) -> None:
    world.csv([rating(number, at=number * 30 * 86_400) for number in range(1, 40)])
    assert world.ingest()["quarantined"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user": "12.0"}, ["user ids", "'12.0' and as '12'", "whole_number: true"]),
        ({"item": "1.23457E+12"}, ["item ids", "'1.23457E+12'", "spreadsheet"]),
        ({"user": "null"}, ["user 'null'", "missing: ['null']"]),
        ({"item": r"\N"}, [r"item '\\N'", "events.skip"]),
    ],
)
def test_ids_that_a_program_made_are_told(world: MappedWorld, change: dict[str, str], words: list[str]) -> None:
    world.csv([*(row | {"user": number % 20} for number, row in enumerate(ROWS)), rating(300, **change)])
    (warning,) = world.ingest()["warnings"]
    for word in words:
        assert word in warning


def test_ids_that_only_look_so_are_not_told(world: MappedWorld) -> None:
    world.csv([*ROWS, rating(300, user="1e5x", item="v1.0"), rating(301, user="5.0", item="nullify")])
    assert "warnings" not in world.ingest()


def test_one_user_with_much_of_everything_is_told(world: MappedWorld) -> None:
    world.csv([row | {"user": "guest" if number % 5 < 2 else row["user"]} for number, row in enumerate(ROWS)])
    (warning,) = world.ingest()["warnings"]
    assert "user 'guest'" in warning
    assert "80 of all 200 from this one" in warning


@pytest.mark.parametrize(("stars", "words"), [(5, "feedback: implicit"), (1, "lower positive.min_value")])
def test_feedback_that_is_all_of_one_kind_is_told(world: MappedWorld, stars: int, words: str) -> None:
    world.csv([row | {"stars": stars} for row in ROWS])
    (warning,) = world.ingest()["warnings"]
    assert words in warning


PLAIN = "".join(f"{line}\n" for line in (HEADER, "u,i,3,1700000000")).encode()


def packed_in_tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(__file__, "e.csv")
    return data.getvalue()


def packed_in_zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("e.csv", PLAIN)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.csv", gzip.compress(PLAIN), ["gzip data", ".gz"]),
        ("e.csv", bz2.compress(PLAIN), ["bzip2 data", "bunzip2"]),
        ("e.csv", lzma.compress(PLAIN), ["xz data", "unxz"]),
        ("e.csv", packed_in_zip(), ["a zip"]),
        ("e.csv", packed_in_tar(), ["a tar archive", "unpack it"]),
        ("e.csv", b"PAR1\0\0", ["Parquet", "format: parquet"]),
        ("e.csv", b"SQLite format 3\0\0", ["SQLite"]),
        ("e.csv", b"<!DOCTYPE html><html>", ["a web page"]),
        ("e.csv", PLAIN.decode().encode("utf-16"), ["UTF-16", "csv.encoding: utf-16"]),
        ("e.csv", bytes(range(256)), ["binary data"]),
        ("e.csv", PLAIN.replace(b"u,i", b"J\xe9r\xf4me,caf\xe9"), ["line 2", "csv.encoding", "latin-1"]),
        ("e.jsonl", gzip.compress(PLAIN), ["gzip data", ".gz"]),
        ("e.jsonl", b'{\n "user": 1,\n "item": 2\n}\n', ["over several lines", "jq -c . e.jsonl"]),
        ("e.jsonl", b'{"user": 1}{"user": 2}\n', ["several objects in a line", "jq -c . e.jsonl"]),
        ("e.jsonl", b'[{"user": 1}, {"user": 2}]\n', ["one list", "jq -c '.[]' e.jsonl"]),
        ("e.parquet", gzip.compress(PLAIN), ["expected Parquet", "gzip data"]),
        ("e.csv.gz", gzip.compress(PLAIN) + b"more", ["expected a whole gz", "other bytes follow the packed ones"]),
        ("e.csv.gz", PLAIN, ["expected a whole gz", "Leave .gz out of its name"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_of_another_kind_is_told_for_what_it_is(
    world: MappedWorld, name: str, content: bytes, words: list[str]
) -> None:
    (world.folder / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        world.ingest()
    for word in (name, *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("e.tar.gz", gzip.compress(packed_in_tar())), ("e.bz2", bz2.compress(PLAIN))],
    ids=["e.tar.gz", "e.bz2"],
)
def test_an_archive_that_no_name_of_the_mapping_fits_is_told(world: MappedWorld, name: str, content: bytes) -> None:
    (world.folder / name).write_bytes(content)
    with pytest.raises(SourceError, match="unpack it"):
        world.ingest(RATINGS.replace('"e*"', '"*.csv"'))


def test_text_is_taken_for_text() -> None:
    for text in (b"", PLAIN, b"\xef\xbb\xbf" + PLAIN, "é,ü".encode("latin-1"), b"PK,orc\n"):
        assert what_text_is_not(text) is None


def test_half_a_pair_of_escapes_is_told_by_its_name(world: MappedWorld) -> None:
    good, pair = json.dumps(rating(1)), json.dumps(rating(2) | {"title": "\U0001f600"})
    half = pair.replace("2", "3").replace(r"\ude00", "")
    (world.folder / "e.jsonl").write_text(f"{good}\n{pair}\n{half}\n{pair[:-1]}\n", encoding="utf-8")
    world.ingest()
    assert [(line, reason) for line, reason, _ in world.refused()] == [(3, "lone_surrogate"), (4, "bad_json")]


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
@pytest.mark.parametrize("stray", [b"caf\xe9", b"a\0b"])
@pytest.mark.parametrize("place", [0, 2999])
@pytest.mark.parametrize("column", ["note", "user"])
def test_a_stray_byte_costs_one_row_at_most(
    world: MappedWorld, name: str, stray: bytes, place: int, column: str
) -> None:
    rows = [rating(number, user=f"u{number}", note="x") for number in range(3000)]
    rows[place] |= {column: "STRAY"}
    if name == "e.csv":
        world.csv(rows)
    else:
        (world.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = world.folder / name
    path.write_bytes(path.read_bytes().replace(b"STRAY", stray))
    result = world.ingest()
    is_read = name == "e.csv" and column == "note"
    assert (result["events"], result["quarantined"]) == ((3000, 0) if is_read else (2999, 1))
