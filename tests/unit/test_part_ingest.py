"""Ingestion by parts: late, corrected and repeated ones; the parts of a source give what its whole gives."""

from __future__ import annotations

import shutil
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from feature_repo.contracts.columns import Encoding
from feature_repo.contracts.datasets import (
    EVENTS,
    QUARANTINE,
    items_dataset,
    known_items_dataset,
    known_users_dataset,
    users_dataset,
)
from feature_repo.contracts.places import DATASET_MANIFEST, Namespace
from feature_repo.contracts.publishing import read_json, write_json
from feature_repo.contracts.schemas import read_schema
from pipelines.errors import CorruptDatasetError, SourceError
from pipelines.io.arrow import arrow_schema, conform
from pipelines.io.lake import partition_file, stored_dataset
from pipelines.io.merging import upserted
from pipelines.jobs import ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from tests.shop_log import CLOCK, FIRST, MAPPING, derived_mapping, shop, write_shop
from tests.synthetic import write_movielens_100k

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.shop_log import Rows


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "state", quarantine_limit=0.1)


def days(events: Rows) -> list[Rows]:
    return [list(rows) for _, rows in groupby(events, key=lambda row: row["at"].date())]


def run(
    settings: Settings, name: str, source: Path, mode: Mode, mapping: str = MAPPING, **options: Any
) -> Mapping[str, Any]:
    path = settings.state.parent / "mapping.yaml"
    path.write_text(mapping, encoding="utf-8")
    return ingest.run(settings, Namespace(settings.state, name), source, None, CLOCK, path, mode, **options)


def lake(settings: Settings, name: str) -> dict[str, str]:
    place = Namespace(settings.state, name)
    schema = read_schema(place)
    known = (known_items_dataset(schema), known_users_dataset(schema))
    datasets = (EVENTS, items_dataset(schema), users_dataset(schema), *known)
    return {dataset.name: stored_dataset(place, dataset).snapshot().checksum for dataset in datasets}


def files(settings: Settings, name: str) -> dict[str, tuple[int, int]]:
    root = Namespace(settings.state, name).root / "lake"
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.rglob("*.*")}


@pytest.mark.parametrize("mapping", [MAPPING, derived_mapping()], ids=["own files", "derived"])
def test_parts_in_any_order_give_what_the_whole_gives(settings: Settings, tmp_path: Path, mapping: str) -> None:
    events, items = shop()
    parts = days(events)
    whole = run(settings, "whole", write_shop(tmp_path / "whole", events, items), Mode.WHOLE, mapping)
    for number in (2, 0, 5, 1, 4, 3, 4, 0):
        source = write_shop(tmp_path / f"{number}", parts[number], items, "jsonl")
        result = run(settings, "parts", source, Mode.PART, mapping)
    assert lake(settings, "parts") == lake(settings, "whole")
    assert (result["events"], result["checksum"]) == (whole["events"], whole["checksum"])
    assert result["cutoff"] == whole["cutoff"], "a late part ends nothing earlier"


def test_a_part_may_change_how_models_read_a_number_and_nothing_that_is_stored(
    settings: Settings, tmp_path: Path
) -> None:
    events, items = shop()
    source = write_shop(tmp_path / "whole", events, items)
    run(settings, "n", source, Mode.WHOLE)
    before = lake(settings, "n")
    robust = MAPPING.replace("step: 0.01", "step: 0.01, encoding: robust")
    assert run(settings, "n", source, Mode.PART, robust)["changed_partitions"] == 0
    assert lake(settings, "n") == before
    price, *_ = read_schema(Namespace(settings.state, "n")).item_attributes
    assert price.encoding is Encoding.ROBUST
    assert run(settings, "n", source, Mode.PART, f"{robust}liked_items: 50\n")["changed_partitions"] == 0
    assert read_schema(Namespace(settings.state, "n")).liked_items == 50
    with pytest.raises(SourceError, match=r"item_attributes: .*0\.5"):
        run(settings, "n", source, Mode.PART, MAPPING.replace("step: 0.01", "step: 0.5"))


def test_the_same_part_twice_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    run(settings, "n", write_shop(tmp_path / "whole", events, items), Mode.WHOLE)
    late = write_shop(tmp_path / "late", [{**row, "pieces": 9} for row in days(events)[1]])
    first = run(settings, "n", late, Mode.PART)
    assert first["changed_partitions"] == 1
    before = files(settings, "n")
    assert run(settings, "n", late, Mode.PART) == {**first, "changed_partitions": 0}
    assert files(settings, "n") == before


def test_a_late_and_a_corrected_event_rewrite_their_days_only(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    events = [row for row in events if row["customer"]]
    run(settings, "n", write_shop(tmp_path / "whole", events, items), Mode.WHOLE)
    before = files(settings, "n")
    corrected = {**events[0], "pieces": 77}
    late = {**events[1], "at": FIRST + timedelta(days=3, seconds=86_399)}
    result = run(settings, "n", write_shop(tmp_path / "late", [corrected, late]), Mode.PART)
    assert result["events"] == len(events) + 1
    place = Namespace(settings.state, "n")
    changed = {path for path, seen in files(settings, "n").items() if before.get(path) != seen}
    assert {path.partition("/lake/")[2] for path in changed} == {
        "events/event_date=2024-03-01/part-0.parquet",
        "events/event_date=2024-03-04/part-0.parquet",
        "events/_manifest.json",
        *observation_files(place, "event_date=2024-03-04/part-0.parquet"),
    }, "the corrected row says nothing else of its user"
    values = stored_dataset(place, EVENTS).snapshot().read()
    assert 77.0 in values.column("value").to_pylist()


def observation_files(place: Namespace, *names: str) -> list[str]:
    (folder,) = (place.root / "lake").glob("observations_*")
    return [f"{folder.name}/{name}" for name in (*names, "_manifest.json")]


def test_a_part_needs_no_items_and_brings_new_ones(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    parts = days(events)
    run(settings, "n", write_shop(tmp_path / "0", parts[0], items[:-1]), Mode.PART)
    known = {item["sku"] for item in items[:-1]}
    run(settings, "n", write_shop(tmp_path / "1", [row for row in parts[1] if row["sku"] in known]), Mode.PART)
    corrected = [{**items[0], "label": "Renamed"}, items[-1]]
    result = run(settings, "n", write_shop(tmp_path / "2", parts[2], corrected), Mode.PART)
    assert result["items"] == len(items)
    place = Namespace(settings.state, "n")
    rows = stored_dataset(place, items_dataset(read_schema(place))).snapshot().read().to_pylist()
    assert "Renamed" in {row["title"] for row in rows}
    unknown = write_shop(tmp_path / "3", [*parts[3], {**parts[3][0], "sku": "nobody knows"}])
    assert run(settings, "n", unknown, Mode.PART)["quarantined"] == 1
    refused = stored_dataset(place, QUARANTINE).snapshot().read().to_pylist()
    assert [(row["reason"], row["received"]) for row in refused] == [
        ("unknown_item", "sku 14é"),
        ("unknown_item", "nobody knows"),
    ]


def test_a_part_forgets_no_row_that_was_refused_before(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events, items = shop()
    parts = days(events)
    unknown = [*parts[0], {**parts[0][0], "sku": "nobody knows"}]
    assert run(settings, "n", write_shop(tmp_path / "0", unknown, items), Mode.WHOLE)["quarantined"] == 1
    assert "events.csv: rows refused: 1, kept in the lake's quarantine. unknown_item: 1, first in line" in caplog.text
    place = Namespace(settings.state, "n")
    refused = stored_dataset(place, QUARANTINE).snapshot()
    assert run(settings, "n", write_shop(tmp_path / "1", parts[1]), Mode.PART)["quarantined"] == 0
    assert stored_dataset(place, QUARANTINE).snapshot().checksum == refused.checksum
    run(settings, "n", write_shop(tmp_path / "2", parts[0], items), Mode.WHOLE)
    assert stored_dataset(place, QUARANTINE).snapshot().rows == 0, "a whole ingestion begins anew"


def test_parts_of_one_name_keep_the_refusals_of_each(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    parts = days(events)
    run(settings, "n", write_shop(tmp_path / "whole", parts[0], items), Mode.WHOLE)
    for day, unknown in ((1, "nobody knows"), (2, "nobody knows either"), (2, "nobody knows either")):
        run(settings, "n", write_shop(tmp_path / str(day), [{**parts[day][0], "sku": unknown}, *parts[day]]), Mode.PART)
    rows = stored_dataset(Namespace(settings.state, "n"), QUARANTINE).snapshot().read().to_pylist()
    assert [(row["file"], row["line"], row["received"]) for row in rows] == [
        ("events.csv", 2, "nobody knows"),
        ("events.csv", 2, "nobody knows either"),
    ]


def test_a_damaged_day_of_a_lake_of_parts_is_mended_as_the_message_says(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    parts = days(events)
    for day in (0, 1):
        run(settings, "n", write_shop(tmp_path / str(day), parts[day], items), Mode.PART)
    expected, table = lake(settings, "n"), stored_dataset(Namespace(settings.state, "n"), EVENTS)
    name = list(table.snapshot().partitions)[-1]
    file = partition_file(table.folder, name)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CorruptDatasetError, match="remove it and its entry in the manifest, and ingest the parts"):
        run(settings, "n", tmp_path / "1", Mode.PART)
    with pytest.raises(CorruptDatasetError, match="remove it and its entry in the manifest, and ingest the parts"):
        table.snapshot()
    shutil.rmtree(file.parent)
    record = read_json(table.folder / DATASET_MANIFEST)
    del record["partitions"][name]  # type: ignore[attr-defined] # a JSON object
    write_json(table.folder / DATASET_MANIFEST, record)
    run(settings, "n", tmp_path / "1", Mode.PART)
    assert lake(settings, "n") == expected


def test_a_part_of_one_file_may_be_called_anything(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events, items = shop()
    parts = days(events)
    for name in ("n", "m"):
        run(settings, name, write_shop(tmp_path / f"0{name}", parts[0], items), Mode.WHOLE)
    folder = write_shop(tmp_path / "1", parts[1])
    run(settings, "m", folder, Mode.PART)
    (folder / "events.csv").rename(folder / "2024-02-03.csv")
    run(settings, "n", folder / "2024-02-03.csv", Mode.PART)
    assert lake(settings, "n") == lake(settings, "m")
    (folder / "more.csv").write_text("")
    with pytest.raises(
        SourceError, match=r"expected a file that fits 'events.*received '2024-02-03.csv', 'more.csv'; rename"
    ):
        run(settings, "n", folder, Mode.PART)
    assert "is the name right?" not in caplog.text


def test_a_part_before_any_whole_asks_whether_the_name_is_right(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events, items = shop()
    run(settings, "mistyped", write_shop(tmp_path / "0", days(events)[0], items), Mode.PART)
    assert "namespace mistyped: there was nothing before this part; is the name right?" in caplog.text


def test_a_part_of_another_data_set_is_refused(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    folder = write_shop(tmp_path / "s", events, items)
    run(settings, "n", folder, Mode.WHOLE)
    before = files(settings, "n")
    other = MAPPING.replace("maximum: 100", "maximum: 50")
    with pytest.raises(SourceError, match=r"expected a part of the data set.*value: .*100.* there, .*50.* here"):
        run(settings, "n", folder, Mode.PART, other)
    assert files(settings, "n") == before


@pytest.mark.parametrize(("how", "whole"), [("first", 2.0), ("last", 3.0), ("sum", 5.0)])
def test_an_event_that_is_split_over_parts_is_as_the_last_part_has_it(
    settings: Settings, tmp_path: Path, how: str, whole: float
) -> None:
    events, items = shop()
    mapping = derived_mapping().replace("  skip:\n", f"  duplicates: {how}\n  skip:\n")
    rows = [{**events[0], "customer": "c", "pieces": pieces} for pieces in (2, 3)]
    run(settings, "whole", write_shop(tmp_path / "whole", rows, items), Mode.WHOLE, mapping)
    for number, row in enumerate(rows):
        run(settings, "parts", write_shop(tmp_path / f"{number}", [row], items), Mode.PART, mapping)
    values = {
        name: stored_dataset(Namespace(settings.state, name), EVENTS).snapshot().read().column("value").to_pylist()
        for name in ("whole", "parts")
    }
    assert values == {"whole": [whole], "parts": [3.0]}


DESCRIBED = derived_mapping()


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("time: at", "time: {column: at, zone: Europe/Paris}", "events.time.zone: UTC there, Europe/Paris here"),
        ("user: customer", "user: country", "events.user.column: customer there, country here"),
        ("  title: {column: label, reduce: most_common}\n", "", "items.title.column: label there, None here"),
        (
            "reduce: most_common}\n  attributes",
            "reduce: latest}\n  attributes",
            "title.reduce: most_common there",
        ),
        ("  skip:\n", "  duplicates: last\n  skip:\n", "events.duplicates: refuse there, last here"),
        ("reason: no customer", "reason: nobody", "events.skip.0.reason: no customer there, nobody here"),
    ],
)
def test_a_part_that_is_read_in_another_way_is_refused(
    settings: Settings, tmp_path: Path, was: str, becomes: str, told: str
) -> None:
    folder = write_shop(tmp_path / "s", *shop())
    run(settings, "n", folder, Mode.WHOLE, DESCRIBED)
    before = files(settings, "n")
    with pytest.raises(SourceError, match=rf"read in another way.*{told}.*another namespace.*--mode whole"):
        run(settings, "n", folder, Mode.PART, DESCRIBED.replace(was, becomes))
    assert files(settings, "n") == before
    run(settings, "n", folder, Mode.WHOLE, DESCRIBED.replace(was, becomes))
    run(settings, "n", folder, Mode.PART, DESCRIBED.replace(was, becomes))


def test_another_name_and_names_of_files_are_the_same_data_set(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    run(settings, "n", write_shop(tmp_path / "s", events, items), Mode.WHOLE, DESCRIBED)
    same = DESCRIBED.replace('files: "events*"', "files: day.csv").replace("Made-up shop", "Another name")
    same = same.replace("time: at", "time: {column: at, zone: UTC}")
    (write_shop(tmp_path / "t", events, items) / "events.csv").rename(tmp_path / "t" / "day.csv")
    assert run(settings, "n", tmp_path / "t", Mode.PART, same)["changed_partitions"] == 0


def test_a_lake_of_which_it_is_unknown_how_it_was_read_takes_no_part(settings: Settings, tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "s", *shop())
    run(settings, "n", folder, Mode.WHOLE)
    Namespace(settings.state, "n").reading.unlink()
    with pytest.raises(SourceError, match=r"reading: unknown, of an earlier version there"):
        run(settings, "n", folder, Mode.PART)


def test_a_day_of_movielens_is_a_part(settings: Settings, tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "ml", users=20, items=30, events=200)
    place = Namespace(settings.state, "ml")
    whole = ingest.run(settings, place, source, None, CLOCK)
    lines = (source / "u.data").read_text().splitlines()
    user, item, stars, _ = lines[0].split("\t")
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "u.data").write_text(f"{lines[0]}\n{user}\t{item}\t{stars}\t900000000\n")
    part = ingest.run(settings, place, tmp_path / "day", None, CLOCK, None, Mode.PART)
    assert (part["events"], part["changed_partitions"]) == (whole["events"] + 1, 1)
    assert part["cutoff"] == "1998-07-10T00:00:00Z"


def test_a_quiet_day_of_movielens_is_a_part_and_so_are_items_alone(settings: Settings, tmp_path: Path) -> None:
    source = write_movielens_100k(tmp_path / "ml", users=20, items=30, events=200)
    place = Namespace(settings.state, "ml")
    whole = ingest.run(settings, place, source, None, CLOCK)
    for name, content in (("u.data", b""), ("u.item", (source / "u.item").read_bytes())):
        part = tmp_path / f"only-{name}"
        part.mkdir()
        (part / name).write_bytes(content)
        assert ingest.run(settings, place, part, None, CLOCK, None, Mode.PART) == {**whole, "changed_partitions": 0}
    with pytest.raises(SourceError, match=r"MovieLens 100K lacks u\.item, u\.user"):
        ingest.run(settings, place, tmp_path / "only-u.data", None, CLOCK)


_EVENT = st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(["v", "p"]), st.integers(0, 3))
_ROWS = st.dictionaries(_EVENT, st.integers(0, 5), max_size=12)


@settings_of_hypothesis(deadline=None)
@given(_ROWS, _ROWS)
def test_merging_is_what_a_dictionary_does(old: dict[Any, int], new: dict[Any, int]) -> None:
    merged = upserted(_table(new), _table(old), EVENTS)
    assert conform(merged, EVENTS).equals(conform(_table({**old, **new}), EVENTS))


def _table(rows: dict[Any, int]) -> pa.Table:
    listed = [
        dict(zip(EVENTS.column_names, (user, item, kind, float(value), FIRST + timedelta(hours=hour)), strict=True))
        for (user, item, kind, hour), value in rows.items()
    ]
    return pa.Table.from_pylist(listed, schema=arrow_schema(EVENTS))
