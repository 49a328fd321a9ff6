"""Every line of a CSV file belongs to a row that is read, refused or left out, or is a header or blank."""

from __future__ import annotations

import csv
import io
import logging
import re
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from feature_repo.contracts.ids import cut
from pipelines.errors import QuarantineLimitError, SourceError
from pipelines.sources import csv_rows
from pipelines.sources.archive import source_files
from pipelines.sources.mapping import CsvForm
from tests.mapped_world import MappedWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAPPING = """\
name: Quotes
feedback: implicit
event_types: {view: {}}
positive: {event_types: view}
events:
  files: "events.*"
  user: user
  item: item
  time: {column: at, unit: s}
  type: {constant: view}
  value: {constant: 1}
items:
  title: title
"""
HEADER = "user,item,at,title,note"


def line(number: int, title: str = "plain", note: str = "x") -> str:
    return f"u{number},i{number},{1_700_000_000 + number},{title},{note}"


@pytest.fixture
def world(tmp_path: Path) -> MappedWorld:
    return MappedWorld(tmp_path)


def read(world: MappedWorld, text: str, mapping: str = MAPPING, name: str = "events.csv") -> Any:
    """Ingest a file; return the users that were read, and line, reason and text of what was refused."""
    (world.folder / name).write_bytes(text.encode())
    world.ingest(mapping)
    return [row["user_id"] for row in world.rows()], world.refused()


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        ({"title": '"12 inch'}, {}),
        ({"note": '"12 inch'}, {}),
        ({"title": '"12 inch'}, {"title": '"13 inch'}),
        ({"title": '"12 inch'}, {"note": '13 inch"'}),
        ({"note": '"12 inch'}, {"title": '13 inch"'}),
        ({"note": '"12 inch'}, {"note": '13 inch"'}),
    ],
    ids=["open", "open in an unused column", "same column", "later column", "earlier column", "unused column"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_rows_that_a_quote_swallows_are_refused_line_by_line(
    world: MappedWorld, opens: dict[str, str], closes: dict[str, str], end: str
) -> None:
    lines = [HEADER, line(2), line(3, **opens), line(4), line(5, **closes), line(6)]
    text = (end or "\n").join(lines) + end
    users, refused = read(world, text)
    last = 5 if closes else 6
    assert users == [f"u{number}" for number in range(2, 7) if not 3 <= number <= last]
    assert refused == [(number, "open_quote", lines[number - 1]) for number in range(3, last + 1)]


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("cells", ['plain,"12 inch', '"12 inch,x'])
def test_a_quote_that_is_open_in_the_last_line_is_refused(world: MappedWorld, cells: str, end: str) -> None:
    lines = [HEADER, line(2), f"u3,i3,1700000003,{cells}"]
    users, refused = read(world, "\n".join(lines) + end)
    assert users == ["u2"]
    assert refused == [(3, "open_quote", lines[2])]


def test_texts_of_several_lines_are_read_and_counted(world: MappedWorld) -> None:
    text = "\n".join([HEADER, line(2, '"one\ntwo, ""three"""'), "", line(5, '"\r\nlast"'), "  ", "u8,i8", line(8), ""])
    users, refused = read(world, text)
    assert users == ["u2", "u5", "u8"]
    assert refused == [(8, "missing_field", "u8,i8")]


def test_a_text_with_a_rows_worth_of_separators_in_its_lines_has_to_be_declared(world: MappedWorld) -> None:
    text = "\n".join([HEADER, line(2, '"a, b, c,\nd, e"'), line(4), ""])
    assert [reason for _, reason, _ in read(world, text)[1]] == ["open_quote", "open_quote"]
    declared = MAPPING.replace("  user: user", "  csv: {long_texts: true}\n  user: user")
    assert read(world, text, declared) == (["u2", "u4"], [])
    still_open = f"{text}{line(5, 'x', chr(34))}\n{line(6)}\n"
    users, refused = read(world, still_open, declared)
    assert users == ["u2", "u4"]
    assert [number for number, _, _ in refused] == [5, 6]


def test_where_quotes_mean_nothing_they_are_read(world: MappedWorld) -> None:
    mapping = MAPPING.replace("  user: user", "  csv: {quote: ''}\n  user: user")
    text = "\n".join([HEADER, line(2, '"12 inch'), line(3), ""]).replace(",", "\t")
    assert read(world, text, mapping, "events.tsv") == (["u2", "u3"], [])


def test_a_quote_that_is_open_in_the_header_stops_the_ingestion(world: MappedWorld) -> None:
    with pytest.raises(SourceError, match=r"events\.csv, line 1: expected a header whose quotes close.*csv\.quote"):
        read(world, "\n".join([HEADER.replace("note", '"note'), line(2), line(3), ""]))


def test_a_quote_that_is_open_for_longer_than_can_be_read_is_told_with_its_line(
    world: MappedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "_BLOCK", 1 << 16)
    monkeypatch.setattr("pipelines.sources.csv_lines._LONGEST", 1 << 16)
    lines = [HEADER, *(line(number) for number in range(2, 9)), line(9, note='"12 inch')]
    lines += [line(number) for number in range(10, 5000)]
    with pytest.raises(
        SourceError, match=r"events\.csv, line 9: expected rows of at most 65,536 bytes.*a quote not closed.*csv\.quote"
    ):
        read(world, "\n".join(lines))


def test_an_open_quote_counts_against_the_limit_with_every_line(tmp_path: Path) -> None:
    strict = MappedWorld(tmp_path, limit=0.01)
    lines = [HEADER, *(line(number) for number in range(2, 900)), line(900, note='"12 inch')]
    lines += [line(number) for number in range(901, 1001)]
    with pytest.raises(QuarantineLimitError, match=r"101 of 999 rows.*open_quote.*line 900.*csv\.quote: ''"):
        read(strict, "\n".join(lines))
    assert not strict.place.dataset("events").exists()


def test_items_are_counted_alike(world: MappedWorld) -> None:
    (world.folder / "items.csv").write_text('id,title\ni2,a\ni3,"b\ni4,c\n', encoding="utf-8")
    mapping = MAPPING.replace("items:\n  title", "items:\n  files: items.csv\n  id: id\n  title")
    users, refused = read(world, "\n".join([HEADER, line(2), ""]), mapping)
    assert users == ["u2"]
    assert refused == [(3, "open_quote", 'i3,"b'), (4, "open_quote", "i4,c")]
    assert list(world.items()) == ["i2"]


@pytest.mark.parametrize("more", [0, 1, 2, 3])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_line_end_may_lie_anywhere_in_a_block(
    world: MappedWorld, monkeypatch: pytest.MonkeyPatch, more: int, end: str
) -> None:
    monkeypatch.setattr(csv_rows, "_BLOCK", 1 << 12)
    lines = [HEADER, *(line(number) for number in range(2, 100)), ""]
    text = end.join(lines)
    lines[-2] += "x" * ((more - len(text)) % (1 << 12))
    assert read(world, end.join(lines)) == ([f"u{number}" for number in range(2, 100)], [])


BLANK = [",,,,", " ,,,,", ',"", ,"",', ",,", ",,,,,,"]


@pytest.mark.parametrize("separator", [",", "\t"])
def test_lines_with_nothing_in_any_cell_are_passed_over_and_counted(
    world: MappedWorld, separator: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = "\n".join([HEADER, line(2), "", *BLANK, line(9), *BLANK, "", " ", ""]).replace(",", separator)
    with caplog.at_level(logging.WARNING):
        assert read(world, text, name="events.csv" if separator == "," else "events.tsv") == (["u2", "u9"], [])
    assert "passed over 13 blank lines, which have nothing in any cell; the first is line 3" in caplog.text


def test_quotes_that_begin_after_a_blank_are_quotes(world: MappedWorld) -> None:
    text = 'user, "item",at, title,note\nu2, "i2" , "1700000002", "say ""a""",x\nu3,\t"i3",1700000003, "a" b "c",x\n'
    assert read(world, text.replace(" title", "title")) == (["u2", "u3"], [])
    titles = {item: row["title"] for item, row in world.items().items()}
    assert titles == {"i2": 'say "a"', "i3": '"a" b "c"'}


def test_a_header_may_be_long(world: MappedWorld) -> None:
    more = [f"column_{number:06}" for number in range(10_000)]
    text = f"{','.join((*more, HEADER))}\n{',' * len(more)}{line(2)}\n"
    assert read(world, text) == (["u2"], [])


def test_a_header_without_end_is_told(world: MappedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"expected a header whose quotes close.*csv\.quote: ''"):
        read(world, f'"{HEADER}\n' + "\n".join(map(line, range(2, 5000))))
    monkeypatch.setattr(csv_rows, "_BLOCK", 1 << 12)
    with pytest.raises(SourceError, match="expected a header of less than 4,096 bytes"):
        read(world, HEADER * 200)


NOTHING = str.maketrans("", "", ',"')
CELLS = st.text(st.sampled_from('ab,"\n\r ;'), max_size=6)


@hypothesis(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=8), st.booleans())
def test_lines_are_claimed_as_pythons_reader_parts_them(tmp_path: Path, rows: list[list[str]], quotes: bool) -> None:  # noqa: FBT001 - an example
    body = io.StringIO(newline="")
    if quotes:
        csv.writer(body, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    else:
        body.write("\n".join(",".join(row) for row in rows))
    text = f"a,b,c\n{body.getvalue()}"
    (tmp_path / "e.csv").write_bytes(text.encode())
    (file,) = source_files(tmp_path / "e.csv")
    with duckdb.connect() as database, csv_rows.CsvRows(file, CsvForm(), ("a", "b", "c"), ()).cells(database) as cells:
        query = f"SELECT _line, _fault, _c0, _c1, _c2 FROM ({cells.query}) ORDER BY _line"  # noqa: S608 - made here
        found = database.execute(query).fetchall()
    assert [tuple(row[:2]) if row[1] else (row[0], None, *row[2:]) for row in found] == list(parted(text))


def parted(text: str) -> Iterator[tuple[Any, ...]]:
    """Yield what becomes of each row of three columns, by Python's own reader."""
    end = ["END"] * 3
    is_cut = not text.endswith(("\n", "\r"))
    reader = csv.reader(io.StringIO(text + "\n" * is_cut + ",".join(end), newline=""))
    lines = list(io.StringIO(text, newline=""))
    first = next(reader) and reader.line_num + 1
    for cells in reader:
        numbers, first = range(first, min(reader.line_num, len(lines)) + 1), reader.line_num + 1
        is_open = any({"\n", "\r"} & set(cell) and cell.count(",") > 1 for cell in cells)
        is_open = is_open or (len(cells) != 3 and len(numbers) > 1)
        if cells in (end, []):
            continue
        if is_open or "END" in cells[-1]:
            yield from ((number, "open_quote") for number in numbers if lines[number - 1].strip())
        elif not ("".join(cells) if len(cells) == 3 else lines[numbers[0] - 1].translate(NOTHING)).strip():
            continue
        elif len(cells) != 3:
            yield numbers[0], "missing_field" if len(cells) < 3 else "too_many_fields"
        else:
            yield numbers[0], None, *(cut(unquoted(cell)) or None for cell in cells)


def unquoted(cell: str) -> str:
    """Return a cell without quotes that begin after a blank."""
    found = re.fullmatch(r'\s+"((?:[^"]|"")*)"\s*', cell)
    return found[1].replace('""', '"') if found else cell
