"""Bring your own events: what is stored of CSV, JSON lines and Parquet, what is left out, and what is refused."""

from __future__ import annotations

import gzip
import re
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS, QUARANTINE, items_dataset, users_dataset
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.schemas import read_schema
from pipelines.errors import QuarantineLimitError, SourceError
from pipelines.io.lake import stored_dataset
from pipelines.jobs import check, describe, ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from tests.shop_log import CLOCK, MAPPING, derived_mapping, shop, write_csv, write_shop

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feature_repo.contracts.datasets import Dataset

HEADER = "customer,sku,at,action,pieces"
PLAIN = """\
name: Plain
feedback: implicit
event_types: {view: {}, purchase: {}}
positive: {event_types: purchase}
events:
  files: events.csv
  user: customer
  item: sku
  time: at
  type: action
  value: {column: pieces, minimum: 1, maximum: 10}
"""
GOOD = ("u1,a,2024-03-01T10:00:00,view,1", "u1,b,2024-03-01T10:00:01,purchase,2", "u2,a,2024-03-02T00:00:00Z,view,1")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "state", quarantine_limit=0.5)


@pytest.fixture
def place(settings: Settings) -> Namespace:
    return Namespace(settings.state, "test")


def run(  # noqa: PLR0917 - what, where, as what
    settings: Settings,
    place: Namespace,
    source: Path,
    mapping: str = PLAIN,
    mode: Mode = Mode.WHOLE,
    cutoff: datetime | None = None,
) -> Mapping[str, Any]:
    path = settings.state.parent / "mapping.yaml"
    path.write_text(mapping, encoding="utf-8")
    return ingest.run(settings, place, source, cutoff, CLOCK, path, mode)


def stored(place: Namespace, dataset: Dataset) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = stored_dataset(place, dataset).snapshot().read().to_pylist()
    return rows


def lake(place: Namespace) -> dict[str, str]:
    schema = read_schema(place)
    datasets = (EVENTS, items_dataset(schema), users_dataset(schema))
    return {dataset.name: stored_dataset(place, dataset).snapshot().checksum for dataset in datasets}


def log(folder: Path, *lines: str, header: str = HEADER, name: str = "events.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{line}\n" for line in (header, *lines)), encoding="utf-8")
    return folder


def refusals(place: Namespace) -> list[tuple[int, str, str, str]]:
    return [(row["line"], row["column"], row["reason"], row["received"]) for row in stored(place, QUARANTINE)]


@pytest.mark.parametrize("mapping", [MAPPING, derived_mapping()], ids=["own files", "derived"])
def test_every_format_gives_the_same_lake(settings: Settings, tmp_path: Path, mapping: str) -> None:
    events, items = shop()
    lakes, results = {}, {}
    for form in ("csv", "csv.gz", "jsonl", "parquet"):
        place = Namespace(settings.state, form.replace(".", "-"))
        results[form] = run(settings, place, write_shop(tmp_path / form, events, items, form), mapping)
        lakes[form] = lake(place)
    assert lakes == dict.fromkeys(lakes, lakes["csv"])
    assert results == dict.fromkeys(results, results["csv"])
    known = [row for row in events if row["customer"]]
    assert results["csv"]["events"] == len(known)
    assert results["csv"]["skipped"] == {"no customer": len(events) - len(known)}
    assert results["csv"]["quarantined"] == 0


def test_events_items_and_users_are_what_the_mapping_says(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    events, items = shop()
    run(settings, place, write_shop(tmp_path / "s", events, items), MAPPING)
    schema = read_schema(place)
    assert schema.is_implicit
    expected = sorted(
        (
            row["at"],
            row["customer"],
            row["sku"],
            {"look": "view", "buy": "purchase", "back": "return"}[row["action"]],
            float(row["pieces"]),
        )
        for row in events
        if row["customer"]
    )
    received = [
        (row["event_time"], row["user_id"], row["item_id"], row["event_type"], row["value"])
        for row in stored(place, EVENTS)
    ]
    assert received == expected
    by_id = {row["item_id"]: row for row in stored(place, items_dataset(schema))}
    for item in items:
        assert by_id[item["sku"]] == {
            "item_id": item["sku"],
            "title": item["label"],
            "price": pytest.approx(item["price"], rel=1e-6),
            **{name: item[name] for name in ("category", "tags", "about")},
        }
    countries = {row["customer"]: row["country"] for row in events if row["customer"]}
    assert {row["user_id"]: row["country"] for row in stored(place, users_dataset(schema))} == countries


def test_values_are_reduced_as_the_mapping_says(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    mapping = (
        PLAIN
        + """\
items:
  title: {column: label, reduce: most_common}
  attributes:
    - {name: price, kind: numeric, step: 0.01, reduce: median}
    - {name: colour, kind: categorical, reduce: latest}
"""
    )
    rows = (
        "u,a,2024-03-01T10:00:00,view,1,Cup,3,red",
        "u,a,2024-03-01T10:00:01,view,1,Mug,1,blue",
        "u,a,2024-03-01T10:00:02,view,1,Mug,2,",
        "u,a,2024-03-01T10:00:03,view,1,Cup,9,",
        "u,b,2024-03-01T10:00:04,view,1,,,",
    )
    run(settings, place, log(tmp_path / "s", *rows, header=f"{HEADER},label,price,colour"), mapping)
    assert stored(place, items_dataset(read_schema(place))) == [
        {"item_id": "a", "title": "Cup", "price": 2.0, "colour": "blue"},
        {"item_id": "b", "title": "b", "price": None, "colour": None},
    ], "ties by name; the lower of two middle values; a value that is missing says nothing"


@pytest.mark.parametrize(
    ("line", "column", "reason", "received"),
    [
        (",a,2024-03-01T10:00:02,view,1", "customer", "missing_user", ""),
        ("u1, ,2024-03-01T10:00:02,view,1", "sku", "missing_item", ""),
        (f"{'x' * 129},a,2024-03-01T10:00:02,view,1", "customer", "bad_id", "x" * 129),
        ("u\x01,a,2024-03-01T10:00:02,view,1", "customer", "bad_id", "u\x01"),
        ("u\x85v,a,2024-03-01T10:00:02,view,1", "customer", "bad_id", "u\x85v"),
        ("u1,/products/1,2024-03-01T10:00:02,view,1", "sku", "bad_id", "/products/1"),
        ("u1,a,yesterday,view,1", "at", "bad_time", "yesterday"),
        ("u1,a,2024-02-30,view,1", "at", "bad_time", "2024-02-30"),
        ("u1,a,2026-02-01,view,1", "at", "future_time", "2026-02-01"),
        ("u1,a,20241301T100002Z,view,1", "at", "bad_time", "20241301T100002Z"),
        ("u1,a,1709287200,view,1", "at", "bad_time", "1709287200"),
        ("u1,a,1969-12-31T23:59:59Z,view,1", "at", "bad_time", "1969-12-31T23:59:59Z"),
        ("u1,a,2024-03-01T10:00:02,steal,1", "action", "unknown_event_type", "steal"),
        ("u1,a,2024-03-01T10:00:02,view,many", "pieces", "bad_number", "many"),
        ("u1,a,2024-03-01T10:00:02,view,nan", "pieces", "not_a_number", "nan"),
        ("u1,a,2024-03-01T10:00:02,view,11", "pieces", "out_of_range", "11"),
        ("u1,a,2024-03-01T10:00:02,view,1.5", "pieces", "not_a_whole_step", "1.5"),
        ("u1,a,2024-03-01T10:00:02,view", "pieces", "missing_field", "u1,a,2024-03-01T10:00:02,view"),
        ("u1,a,2024-03-01T10:00:02,view,1,1", "", "too_many_fields", "u1,a,2024-03-01T10:00:02,view,1,1"),
        ("u1,a,2024-03-01T10:00:00,view,3", "", "duplicate_event", "u1 a view 2024-03-01T10:00:00Z"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_place_and_reason(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings, place: Namespace, tmp_path: Path, line: str, column: str, reason: str, received: str
) -> None:
    source = log(tmp_path / "s", GOOD[0], line, *GOOD[1:])
    result = run(settings, place, source)
    assert (result["events"], result["quarantined"]) == (3, 1)
    assert refusals(place) == [(3, column, reason, received)]
    (row,) = stored(place, QUARANTINE)
    assert row["file"] == "events.csv"
    assert row["expected"]
    assert ("of the years 1970 to 9999" in row["expected"]) == line.startswith("u1,a,1969")


def test_ids_are_taken_as_they_are_but_for_space_around_them(
    settings: Settings, place: Namespace, tmp_path: Path
) -> None:
    names = ("Ann Lee", "Жанна", "👩‍🚀 ☃", 'a\'b""c;--', "x" * 128)
    rows = (f'"  {name} ",a,2024-03-01T10:00:0{number},view,1' for number, name in enumerate(names))
    run(settings, place, log(tmp_path / "s", *rows))
    assert {row["user_id"] for row in stored(place, EVENTS)} == {name.replace('""', '"') for name in names}


@pytest.mark.parametrize(
    ("how", "values"),
    [("first", [2.0]), ("last", [3.0]), ("sum", [5.0])],
)
def test_rows_of_one_event_become_one(
    settings: Settings, place: Namespace, tmp_path: Path, how: str, values: list[float]
) -> None:
    rows = ("u,a,2024-03-01,view,2", "u,a,2024-03-01,view,3")
    result = run(settings, place, log(tmp_path / "s", *rows), f"{PLAIN}  duplicates: {how}\n")
    assert [row["value"] for row in stored(place, EVENTS)] == values
    assert result["skipped"] == {"repeated": 1}


def test_a_sum_beyond_the_range_is_refused(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    rows = (*GOOD, "u,a,2024-03-01,view,9", "u,a,2024-03-01,view,3")
    result = run(settings, place, log(tmp_path / "s", *rows), f"{PLAIN}  duplicates: sum\n")
    assert (result["events"], result["quarantined"]) == (3, 2)
    assert refusals(place)[0] == (5, "pieces", "out_of_range", "a sum of 12.0")


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("{column: at, unit: s}", "1709287200"),
        ("{column: at, unit: s}", "1709287200.0"),
        ("{column: at, unit: ms}", "1709287200000"),
        ("{column: at, unit: us}", "1709287200000000"),
        ("{column: at, unit: ns}", "1709287200000000000"),
        ("at", "2024-03-01T10:00:00+00:00"),
        ("at", "2024-03-01 11:00:00+01"),
        ("{column: at, zone: Europe/Paris}", "2024-03-01 11:00:00"),
        ("{column: at, zone: Europe/Paris}", "2024-03-01T10:00:00Z"),
        ('{column: at, format: "%d/%m/%Y %H:%M", zone: America/New_York}', "01/03/2024 05:00"),
        ('{column: at, format: "%Y%m%d %H%M %z"}', "20240301 1200 +0200"),
    ],
)
def test_times_are_read_as_the_mapping_says(
    settings: Settings, place: Namespace, tmp_path: Path, time: str, text: str
) -> None:
    run(settings, place, log(tmp_path / "s", f"u,a,{text},view,1"), PLAIN.replace("time: at", f"time: {time}"))
    assert stored(place, EVENTS)[0]["event_time"] == datetime(2024, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "number", "words"),
    [
        ("ms", 1_709_287_200, "1970-01-20 18:48:07 for column 'at' in ms; is it unit: s?"),
        ("us", 1_709_287_200_000, "in us; is it unit: ms?"),
        ("ns", 1_709_287_200, "in ns; is it unit: s?"),
        ("s", 20_240, "in s; are these times?"),
    ],
)
def test_a_unit_that_is_too_small_is_told(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings, place: Namespace, tmp_path: Path, unit: str, number: int, words: str
) -> None:
    rows = (f"u,a,{number - 5},view,1", f"u,a,{number},view,1")
    mapping = PLAIN.replace("time: at", f"time: {{column: at, unit: {unit}}}")
    with pytest.raises(SourceError, match=re.escape(words)):
        run(settings, place, log(tmp_path / "s", *rows), mapping)
    assert not place.dataset("events").exists()


def test_numbers_that_features_read_otherwise_are_told(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    mapping = PLAIN + "items:\n  attributes: [{name: price, kind: numeric}, {name: cents, kind: numeric, step: 0.01}]\n"
    rows = [f"u,i{n},2024-03-01T10:00:{n:02},view,1,{0.42 + n},{n * 1234.56 - 1}" for n in range(4)]
    result = run(settings, place, log(tmp_path / "s", *rows, header=f"{HEADER},price,cents"), mapping)
    steps, missing = result["warnings"]
    assert "item attribute price: expected whole steps of 1, received 4 of 4 values between, such as 0.42" in steps
    assert "item attribute cents: expected numbers other than -1" in missing
    assert "in 1 of 4 values" in missing


def test_fractions_of_a_second_are_kept(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, log(tmp_path / "s", "u,a,2024-03-01T10:00:00.125Z,view,1"))
    assert stored(place, EVENTS)[0]["event_time"] == datetime(2024, 3, 1, 10, 0, 0, 125_000, tzinfo=UTC)


def test_types_by_cases_constants_and_conditions(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    mapping = PLAIN.replace(
        "  type: action\n",
        "  type: {cases: [{type: view, when: {column: pieces, below: 0}}], otherwise: purchase}\n"
        "  skip:\n"
        "    - {reason: tests, when: {column: customer, matches: 'test-.*'}}\n"
        "    - {reason: staff, when: {column: customer, equals: [boss, root]}}\n",
    ).replace("column: pieces, minimum", "column: pieces, absolute: true, minimum")
    rows = ("u,a,2024-03-01,,2", "u,a,2024-03-02,,-3", "test-1,a,2024-03-01,,2", "boss,a,2024-03-01,,77")
    result = run(settings, place, log(tmp_path / "s", *rows), mapping)
    assert result["skipped"] == {"tests": 1, "staff": 1}, "what is left out is not judged"
    assert [(row["event_type"], row["value"]) for row in stored(place, EVENTS)] == [("purchase", 2.0), ("view", 3.0)]
    constant = mapping.replace("{column: pieces, absolute: true, minimum: 1, maximum: 10}", "{constant: 1}")
    run(settings, place, log(tmp_path / "s", *rows), constant)
    assert {row["value"] for row in stored(place, EVENTS)} == {1.0}


def test_a_text_where_a_condition_compares_numbers_is_refused(
    settings: Settings, place: Namespace, tmp_path: Path
) -> None:
    """It is neither below nor above: unseen, the return of the first row would be a purchase."""
    mapping = PLAIN.replace(
        "  type: action\n",
        "  type: {cases: [{type: view, when: {column: change, below: 0}}], otherwise: purchase}\n"
        "  skip: [{reason: staff, when: {column: customer, equals: boss}}]\n",
    )
    rows = ("u,a,2024-03-01,,2,minus 2", "v,a,2024-03-01,,2,nan", "w,a,2024-03-01,,2,", "x,a,2024-03-01,,2,-2")
    boss = "boss,a,2024-03-01,,2,none of your business"
    result = run(settings, place, log(tmp_path / "s", *rows, boss, header=f"{HEADER},change"), mapping)
    assert result["skipped"] == {"staff": 1}, "what is left out is not judged"
    assert [(row["user_id"], row["event_type"]) for row in stored(place, EVENTS)] == [("w", "purchase"), ("x", "view")]
    assert refusals(place) == [(2, "change", "bad_number", "minus 2"), (3, "change", "bad_number", "nan")]
    assert "events.type.cases.0.when" in stored(place, QUARANTINE)[0]["expected"]


def test_rules_of_one_reason_are_counted_together(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    rules = "".join(
        f"    - {{reason: staff, when: {{column: customer, equals: {name}}}}}\n" for name in ("boss", "root")
    )
    rows = ("boss,a,2024-03-01,view,1", "root,a,2024-03-01,view,1", "root,b,2024-03-01,view,1", *GOOD)
    assert run(settings, place, log(tmp_path / "s", *rows), f"{PLAIN}  skip:\n{rules}")["skipped"] == {"staff": 3}


def test_numbers_that_were_meant_as_ids(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    folder = log(tmp_path / "s", "17850.0,a,2024-03-01,view,1")
    run(settings, place, folder, PLAIN.replace("user: customer", "user: {column: customer, whole_number: true}"))
    assert stored(place, EVENTS)[0]["user_id"] == "17850"
    table = {"customer": [17850.0, float("nan")], "sku": ["a", "a"], "at": ["2024-03-01"] * 2}
    pq.write_table(pa.table({**table, "action": ["view"] * 2, "pieces": [1, 1]}), folder / "events.parquet")
    run(settings, place, folder, PLAIN.replace("events.csv", "events.parquet"))
    assert stored(place, EVENTS)[0]["user_id"] == "17850"
    assert refusals(place) == [(2, "customer", "missing_user", "nan")]


def test_csv_of_another_shape(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    mapping = PLAIN.replace(
        "  files: events.csv\n",
        "  files: '*.log'\n  format: csv\n  missing: [NA]\n"
        "  csv: {separator: tab, encoding: latin-1, quote: '', columns: [customer, sku, at, action, pieces]}\n",
    )
    folder = tmp_path / "s" / "2024"
    folder.mkdir(parents=True)
    lines = (
        'Ren\xe9\t"a\t2024-03-01\tview\t1\r\n',
        "NA\ta\t2024-03-01\tview\t1\r\n",
        "u\ta\r\n",
        "\r\n",
        "v\ta\t2024-03-02\tview\t1",
    )
    (folder / "day.log").write_bytes("".join(lines).encode("latin-1"))
    result = run(settings, place, tmp_path / "s", mapping)
    assert result["events"] == 2
    assert [(row["user_id"], row["item_id"]) for row in stored(place, EVENTS)] == [("René", '"a'), ("v", "a")]
    assert refusals(place) == [(2, "customer", "missing_user", ""), (3, "at", "missing_field", "u\ta")]


def test_nested_json_and_lists(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    mapping = PLAIN.replace("events.csv", "'*.jsonl'").replace("user: customer", "user: /user/id")
    mapping += "items:\n  attributes: [{name: tags, kind: multi_valued}]\n"
    lines = (
        '{"user": {"id": 7}, "sku": "a", "at": "2024-03-01", "action": "view", "pieces": 1, "tags": ["x", 0, "x"]}',
        '{"user": {"id": 7}, "sku": "b", "at": "2024-03-02", "action": "view", "pieces": 1, "tags": "solo"}',
        '{"user": {"id": 7}, "sku": "c", "at": "2024-03-03", "action": "view", "pieces": 1}',
        '{"user": {"id": 7}, "sku": ',
        "[1, 2]",
        "",
        '{"user": "7", "sku": "c", "at": "2024-03-04", "action": "view", "pieces": 1}',
    )
    log(tmp_path / "s", *lines[1:], header=lines[0], name="events.jsonl")
    assert run(settings, place, tmp_path / "s", mapping)["events"] == 3
    assert refusals(place) == [
        (4, "", "bad_json", '{"user": {"id": 7}, "sku": '),
        (5, "", "bad_json", "[1, 2]"),
        (7, "/user/id", "missing_user", ""),
    ]
    items = stored(place, items_dataset(read_schema(place)))
    assert [(row["item_id"], row["tags"]) for row in items] == [("a", ["x", "0"]), ("b", ["solo"]), ("c", [])]


def test_a_number_in_place_of_a_time_is_told_of_its_unit(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    run(settings, place, log(tmp_path / "s", *GOOD, "u1,a,1709287200,view,1"))
    (row,) = stored(place, QUARANTINE)
    assert row["expected"] == "a time as ISO 8601; of numbers since 1970, events.time.unit: s, ms, us or ns"


def test_a_list_or_an_object_of_json_is_no_id(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    rest = '"sku": "a", "at": "2024-03-01", "action": "view", "pieces": 1'
    lines = [f'{{"customer": {user}, {rest}}}' for user in ('{"id": 1}', "[1, 2]", '"u"', "7")]
    log(tmp_path / "s", *lines[1:], header=lines[0], name="events.jsonl")
    run(settings, place, tmp_path / "s", PLAIN.replace("events.csv", "events.jsonl"))
    assert refusals(place) == [
        (1, "customer", "missing_user", '{"id":1}'),
        (2, "customer", "missing_user", "[1,2]"),
    ]
    assert {row["user_id"] for row in stored(place, EVENTS)} == {"u", "7"}


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("customer", {"id": 1}, ["'customer' holds STRUCT", "expected ids"]),
        ("sku", ["a"], ["'sku' holds VARCHAR[]", "expected ids"]),
        ("pieces", True, ["'pieces' holds BOOLEAN", "expected numbers"]),
        ("pieces", datetime(2024, 3, 1), ["'pieces' holds TIMESTAMP", "expected numbers"]),  # noqa: DTZ001 - a file's
        ("at", 17, ["'at' holds BIGINT", "add unit"]),
        ("at", {"day": 1}, ["'at' holds STRUCT", "expected times"]),
        ("action", {"name": "view"}, []),
    ],
)
def test_a_parquet_column_of_another_type_is_told(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings, place: Namespace, tmp_path: Path, column: str, cell: object, words: list[str]
) -> None:
    row = {"customer": "u", "sku": "a", "at": "2024-03-01", "action": "view", "pieces": 1, column: cell}
    (tmp_path / "s").mkdir()
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "s" / "events.parquet")
    with pytest.raises(SourceError) as caught:
        run(settings, place, tmp_path / "s", PLAIN.replace("events.csv", "events.parquet"))
    for word in ("events.parquet", "expected", *words):
        assert word in str(caught.value)


def test_what_a_query_cannot_read_is_told_with_its_file(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    row = {"customer": "u", "sku": "a", "at": "2024-03-01", "action": "view", "pieces": b"\xff"}
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "s" / "events.parquet")
    with pytest.raises(SourceError, match=r"events\.parquet: "):
        run(settings, place, tmp_path / "s", PLAIN.replace("events.csv", "events.parquet"))


def test_a_key_of_json_that_comes_late_is_found(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    line = '{{"customer": "u{0}", "sku": "a", "at": "2024-03-01", "action": "view", "pieces": 1{1}}}'
    lines = [line.format(number, ', "colour": "red"' if number == 1200 else "") for number in range(1201)]
    log(tmp_path / "s", *lines[1:], header=lines[0], name="events.jsonl")
    mapping = (
        PLAIN.replace("events.csv", "events.jsonl") + "users:\n  attributes: [{name: colour, kind: categorical}]\n"
    )
    run(settings, place, tmp_path / "s", mapping)
    colours = {row["user_id"]: row["colour"] for row in stored(place, users_dataset(read_schema(place)))}
    assert (colours["u1200"], colours["u0"]) == ("red", None)
    with pytest.raises(
        SourceError, match=r"expected a key 'size'.*received the keys 'action', .*; correct the mapping"
    ):
        run(settings, place, tmp_path / "s", mapping.replace("name: colour", "name: size"))


def test_a_glob_passes_over_hidden_files_and_reads_gz_in_capitals(
    settings: Settings, place: Namespace, tmp_path: Path
) -> None:
    folder = log(tmp_path / "s", *GOOD, name="DAY.CSV")
    (folder / "DAY.CSV.GZ").write_bytes(gzip.compress((folder / "DAY.CSV").read_bytes()))
    (folder / "DAY.CSV").unlink()
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert run(settings, place, folder, PLAIN.replace("events.csv", "'*'"))["events"] == 3


def test_bad_items_are_quarantined(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    events, items = shop()
    folder = write_shop(tmp_path / "s", events, items)
    bad = [{**items[0]}, {**items[1], "sku": ""}, {**items[1], "sku": "n1", "price": "cheap"}]
    bad += [{**items[1], "sku": "n2", "price": "1e30"}, {**items[1], "sku": "n3", "tags": ["y" * 200]}]
    write_csv(folder / "items.csv", [{**item, "about": ""} for item in (*items, *bad)])
    result = run(settings, place, folder, MAPPING)
    assert (result["items"], result["quarantined"]) == (15, 5)
    assert [(row["line"], row["column"], row["reason"]) for row in stored(place, QUARANTINE)] == [
        (17, "sku", "duplicate_item"),
        (18, "sku", "missing_field"),
        (19, "price", "bad_number"),
        (20, "price", "out_of_range"),
        (21, "tags", "bad_term"),
    ]


def test_an_attribute_with_more_terms_than_rows_is_told(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    mapping = PLAIN + "items:\n  attributes: [{name: words, kind: multi_valued, separator: ' '}]\n"
    rows = (f"u,i{n},2024-03-01T10:00:{n:02},view,1,{' '.join(f'w{n}x{k}' for k in range(5))}" for n in range(30))
    result = run(settings, place, log(tmp_path / "s", *rows, header=f"{HEADER},words"), mapping)
    (warning,) = result["warnings"]
    assert "words" in warning
    assert "150 different ones in 30 rows" in warning


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["events.csv", "rows of events"]),
        (f"{HEADER}\n".encode(), ["events.csv", "rows of events"]),
        (f"{HEADER}\n\n\n".encode(), ["events.csv", "rows of events"]),
        ("\n".join((HEADER, *GOOD)).replace(",", ";").encode(), ["comma", "semicolon", "csv.separator"]),
        ("\n".join((HEADER, *GOOD)).replace("sku", "id").encode(), ["'sku'", "'customer', 'id', 'at'"]),
        (
            "\n".join((f"{HEADER},sku", *(f"{line},1" for line in GOOD))).encode(),
            ["one column 'sku'", "columns [2, 6]", "rename"],
        ),
        ("\n".join((HEADER, *GOOD)).encode("utf-16"), ["UTF-8", "UTF-16", "csv.encoding"]),
        ("\n".join((HEADER, *(line.replace("u", "\xfc") for line in GOOD))).encode("latin-1"), ["line 2", "UTF-8"]),
    ],
)
def test_a_file_that_is_wrong_throughout_stops_the_ingestion(
    settings: Settings, place: Namespace, tmp_path: Path, content: bytes, words: list[str]
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "events.csv").write_bytes(content)
    with pytest.raises(SourceError) as caught:
        run(settings, place, tmp_path / "s")
    for word in (*words, "expected", "received"):
        assert word in str(caught.value)
    assert not place.dataset("events").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("events.jsonl", b"", ["events.jsonl", "rows of events"]),
        ("events.jsonl", b"a,b\n1,2\n", ["events.jsonl", "JSON object", "'a,b'"]),
        ("events.json", b'[{"sku": 1},\n{"sku": 2}\n]\n', ["line 1", "'[{\"sku\": 1},'", "jq -c '.[]' events.json"]),
        ("events.jsonl", b'{"sku": 1}\n', ["'customer'", "the keys 'sku'"]),
        ("events.parquet", b"PAR1 and no more", ["events.parquet", "whole Parquet file"]),
        ("events.parquet", b"", ["events.parquet", "rows of events"]),
        ("events.csv.gz", b"\x1f\x8b damaged", ["events.csv.gz", "whole gz"]),
        ("events.xlsx", b"x", ["format:", ".csv"]),
    ],
)
def test_a_damaged_file_is_named(  # noqa: PLR0917 - fixtures and parameters
    settings: Settings, place: Namespace, tmp_path: Path, name: str, content: bytes, words: list[str]
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        run(settings, place, tmp_path / "s", PLAIN.replace("events.csv", "'events.*'"))
    for word in words:
        assert word in str(caught.value)


def test_parquet_and_csv_are_read_out_of_a_zip(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    events, items = shop()
    folder = write_shop(tmp_path / "s", events, items, "parquet")
    plain = run(settings, place, folder, MAPPING)
    with zipfile.ZipFile(tmp_path / "shop.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"export/{file.name}")
    assert run(settings, place, tmp_path / "shop.zip", MAPPING) == {**plain, "changed_partitions": 0}


def test_a_mapping_of_another_data_set_is_told(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError,
        match=r"events\.files: expected a file that fits 'events\.csv'.*received 'clicks\.csv'; "
        "rename it, or take the mapping of this data set",
    ):
        run(settings, place, log(tmp_path / "s", *GOOD, name="clicks.csv"))


def test_too_many_refusals_stop_the_ingestion(place: Namespace, tmp_path: Path) -> None:
    strict = Settings(state=place.state, quarantine_limit=0.2)
    with pytest.raises(QuarantineLimitError, match=r"events\.csv: 2 of 5 rows refused.*bad_time: 2, first in line 5"):
        run(strict, place, log(tmp_path / "s", *GOOD, "u,a,x,view,1", "u,a,y,view,1"))
    assert not place.dataset("events").exists()


def test_too_many_refusals_leave_a_report_and_the_lake_as_it_was(place: Namespace, tmp_path: Path) -> None:
    strict = Settings(state=place.state, quarantine_limit=0.2)
    run(strict, place, log(tmp_path / "s", *GOOD))
    before = {path: path.stat().st_mtime_ns for path in place.root.rglob("*.*") if path.suffix != ".lock"}
    bad = [f"u,<b>{n},never,view,1" for n in range(9)]
    results = []
    for _ in range(2):
        with pytest.raises(QuarantineLimitError, match=r"all refused rows: .*refused\.parquet") as caught:
            run(strict, place, log(tmp_path / "t", *GOOD, *bad))
        results.append(caught.value.result)
    assert results[0] == results[1], "the same refusals are the same report"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    folder = place.reports / str(results[0]["report"])
    assert f"{folder / 'report.html'}" in str(caught.value)
    rows = pq.read_table(folder / "refused.parquet").to_pylist()
    assert [(row["line"], row["column"], row["received"]) for row in rows] == [(n, "at", "never") for n in range(5, 14)]
    page = (folder / "report.html").read_text()
    for words in ("Nothing was ingested", "20.00 %", "bad_time", "events.csv", "<code>never</code>"):
        assert words in page


def test_too_many_refused_items_are_told_before_their_events(place: Namespace, tmp_path: Path) -> None:
    strict = Settings(state=place.state, quarantine_limit=0.2)
    events, items = shop()
    bad = [{**item, "price": "<script>"} for item in items]
    with pytest.raises(QuarantineLimitError, match=r"items\.csv: .*bad_number") as caught:
        run(strict, place, write_shop(tmp_path / "s", events, bad), MAPPING)
    assert caught.value.result
    page = (place.reports / str(caught.value.result["report"]) / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_a_limit_is_that_of_each_file(place: Namespace, tmp_path: Path) -> None:
    strict = Settings(state=place.state, quarantine_limit=0.4)
    log(tmp_path / "s", *GOOD, name="events-1.csv")
    log(tmp_path / "s", *(line.replace("2024", "2023") for line in GOOD[:1]), "u,a,x,view,1", name="events-2.csv")
    with pytest.raises(QuarantineLimitError, match=r"events-2\.csv: 1 of 2 rows"):
        run(strict, place, tmp_path / "s", PLAIN.replace("events.csv", "'events-*.csv'"))


INTERNAL = (
    *("line", "part", "fault", "fault_column", "reason", "verdict", "expected", "received", "skip", "number", "place"),
    *("rowid", "nth", "micros", "stamp", "chosen", "before", "versions", "observations", "checked", "term", "said"),
    *("c0", "c1", "key", "text", "price", "price_text", "day", "bin", "events", "items", "users", "windowed", "rows"),
)
"""What the queries call, or called, what is no attribute."""


@pytest.mark.parametrize(("kind", "is_derived"), [("numeric", True), ("categorical", False)])
def test_attributes_may_be_called_as_the_queries_call_their_own(
    settings: Settings, place: Namespace, tmp_path: Path, kind: str, *, is_derived: bool
) -> None:
    days = [f"u{n % 3},i{n % 2},2024-03-{1 + n % 28:02}T10:{n // 28:02}:00,view,1" for n in range(600)]
    cells = ",".join(str(number) for number in range(len(INTERNAL)))
    listed = "".join(f"    - {{name: {name}, kind: {kind}, column: x_{name}}}\n" for name in INTERNAL)
    names = ",".join(f"x_{name}" for name in INTERNAL)
    mapping = PLAIN
    for owner in ("item", "user"):
        log(tmp_path / "s", *(f"{owner[0]}{n},{cells}" for n in range(3)), header=f"id,{names}", name=f"{owner}s.csv")
        mapping += f"{owner}s:\n" + ("" if is_derived else f"  files: {owner}s.csv\n  id: id\n")
        mapping += f"  attributes:\n{listed}"
    run(settings, place, log(tmp_path / "s", *(f"{day},{cells}" for day in days), header=f"{HEADER},{names}"), mapping)
    schema = read_schema(place)
    expected = {name: float(n) if kind == "numeric" else str(n) for n, name in enumerate(INTERNAL)}
    for dataset in (items_dataset(schema), users_dataset(schema)):
        rows = stored(place, dataset)
        assert {row[dataset.key[0]][1:] for row in rows} >= {"0", "1"}
        assert all({name: row[name] for name in INTERNAL} == expected for row in rows)
    assert check.run(settings, place, datetime(2024, 3, 29, tzinfo=UTC), None)["errors"] == 0


def test_describe_agrees_with_the_ingestion(settings: Settings, place: Namespace, tmp_path: Path) -> None:
    source = log(tmp_path / "s", *GOOD).rename(tmp_path / "My Shop") / "events.csv"
    done = run(settings, place, source)
    said = describe.run(settings, source, settings.state.parent / "mapping.yaml")
    assert (said["events"], said["cutoff"], said["layout"]) == (done["events"], done["cutoff"], "Plain")
    assert said["namespace"] == "events"
    assert said["training_rows"] == done["events"] * (1 + settings.negatives), "what is drawn for each counts, too"
