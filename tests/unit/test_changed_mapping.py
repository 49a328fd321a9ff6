"""A whole, ingested anew by another mapping, gives what it gives an empty namespace; another data set is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo.contracts.datasets import (
    EVENTS,
    QUARANTINE,
    items_dataset,
    known_items_dataset,
    known_users_dataset,
    relation_datasets,
    users_dataset,
)
from feature_repo.contracts.events import Event, Position
from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.jobs import exit_code_of
from feature_repo.contracts.places import Namespace
from feature_repo.contracts.publishing import tree_sha256
from feature_repo.contracts.schemas import read_schema, write_schema
from pipelines.errors import CorruptDatasetError, SourceError
from pipelines.io.lake import stored_dataset
from pipelines.jobs import check, ingest
from pipelines.settings import Settings
from pipelines.sources.mapping_file import read_mapping
from pipelines.sources.mode import Mode
from pipelines.stream.landing import write_landing
from pipelines.stream.merge import merge_landed, streamed_table
from pipelines.stream.source import Received
from tests.shop_log import CLOCK, FIRST, MAPPING, derived_mapping, shop, write_csv, write_shop
from tests.synthetic import write_movielens_100k

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

NAME = "n"
USERS_FILE = """\
users:
  files: people.csv
  id: customer
  attributes:
    - {name: age, kind: numeric}
"""
FOLLOWS = "relations: {files: follows.csv, user: who, other: whom}\n"
FILED = MAPPING.partition("users:\n")[0]
"""Items with a file, users without anything."""
CHANGED = {
    "as it was": MAPPING,
    "an attribute less": MAPPING.replace("    - {name: category, kind: categorical}\n", ""),
    "an attribute more": MAPPING.replace(
        "    - {name: about", "    - {name: sticker, column: label, kind: categorical}\n    - {name: about"
    ),
    "another name of it": MAPPING.replace("{name: category, kind", "{name: shelf, column: category, kind"),
    "another order": MAPPING.replace("    - {name: about, kind: text}\n", "").replace(
        "    - {name: price", "    - {name: about, kind: text}\n    - {name: price"
    ),
    "another kind": MAPPING.replace(
        '{name: tags, kind: multi_valued, separator: "|"}', "{name: tags, kind: categorical}"
    ),
    "a text of a number": MAPPING.replace("{name: price, kind: numeric, step: 0.01}", "{name: price, kind: text}"),
    "another step": MAPPING.replace("step: 0.01", "step: 1"),
    "items read off": derived_mapping(),
    "no item attributes": MAPPING.partition("  attributes:\n")[0] + "users:" + MAPPING.partition("users:")[2],
    "users with a file": FILED + USERS_FILE,
    "users without anything": FILED,
    "relations": MAPPING + FOLLOWS,
    "other types": MAPPING.replace("purchase", "sale")
    .replace("look: view", "look: seen")
    .replace("  view:", "  seen:"),
    "another range": MAPPING.replace("maximum: 100", "maximum: 5"),
    "explicit": MAPPING.replace("implicit", "explicit"),
    "another zone": MAPPING.replace("time: at", "time: {column: at, zone: Asia/Tokyo}"),
    "other items": MAPPING.replace("item: sku", "item: label").replace("id: sku", "id: label"),
    "other users": MAPPING.replace("user: customer", "user: country"),
    "another reading of everything": MAPPING.replace("item: sku", "item: label")
    .replace("id: sku", "id: label")
    .replace("time: at", "time: {column: at, zone: Asia/Tokyo}"),
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path / "state", quarantine_limit=0.9)


def run(  # noqa: PLR0917 - what, where, as what
    settings: Settings,
    source: Path,
    mapping: str,
    mode: Mode = Mode.WHOLE,
    name: str = NAME,
    cutoff: datetime | None = None,
) -> Mapping[str, Any]:
    settings.state.mkdir(exist_ok=True)
    path = settings.state / "mapping.yaml"
    path.write_text(mapping, encoding="utf-8")
    return ingest.run(settings, Namespace(settings.state, name), source, cutoff, CLOCK, path, mode)


def write(folder: Path, **changes: Any) -> Path:
    """Write a shop with people, and who follows whom."""
    write_shop(folder, *shop(**changes))
    write_csv(folder / "people.csv", [{"customer": f"c{number}", "age": 20 + number} for number in range(25)])
    write_csv(folder / "follows.csv", [{"who": "c1", "whom": "c2"}, {"who": "c3", "whom": "c30"}])
    return folder


def lake(settings: Settings, name: str = NAME) -> dict[str, str]:
    place = Namespace(settings.state, name)
    schema = read_schema(place)
    datasets = {
        dataset.name: dataset
        for dataset in (
            EVENTS,
            QUARANTINE,
            items_dataset(schema),
            users_dataset(schema),
            known_items_dataset(schema),
            known_users_dataset(schema),
            *relation_datasets(schema),
        )
    }
    return {key: stored_dataset(place, dataset).snapshot().checksum for key, dataset in datasets.items()}


@pytest.mark.parametrize("becomes", CHANGED)
def test_a_whole_anew_by_another_mapping_is_what_an_empty_namespace_gets(
    settings: Settings, tmp_path: Path, becomes: str
) -> None:
    source = write(tmp_path / "source")
    run(settings, source, CHANGED[becomes], name="fresh")
    for was in ("as it was", "items read off"):
        run(settings, source, CHANGED[was])
        run(settings, source, CHANGED[becomes])
        assert lake(settings) == lake(settings, "fresh"), was
    assert check.run(settings, Namespace(settings.state, NAME), FIRST + timedelta(days=8), None)["errors"] == 0


def received(number: int, user: str, item: str, minutes: int) -> tuple[Received, Event]:
    micros = int((FIRST + timedelta(minutes=minutes)).timestamp()) * 1_000_000
    event = Event(f"e{number}", user, item, "view", 1.0, micros)
    return Received(Position(number, 0), f"{number}-0", event.fields()), event


def write_what_landed(place: Namespace) -> None:
    write_landing(place, [received(1, "somebody new", "sku 1é", 7), received(2, "c1", "sku 2é", 8)])


@pytest.mark.parametrize("becomes", ["an attribute less", "users with a file", "items read off"])
def test_what_a_cut_off_ingestion_left_is_told_and_mended(settings: Settings, tmp_path: Path, becomes: str) -> None:
    """The schema is the new mapping's already, the tables are the old one's, and events have landed meanwhile."""
    source = write(tmp_path / "source")
    place = Namespace(settings.state, NAME)
    run(settings, source, CHANGED["as it was"])
    (tmp_path / "m.yaml").write_text(CHANGED[becomes], encoding="utf-8")
    write_schema(place, read_mapping(tmp_path / "m.yaml")[1])
    with pytest.raises(CorruptDatasetError, match=r"the schema has changed.*ingest` of the whole source"):
        check.run(settings, place, FIRST + timedelta(days=8), None)
    write_what_landed(place)
    run(settings, source, CHANGED[becomes])
    assert check.run(settings, place, FIRST + timedelta(days=8), None)["errors"] == 0
    rows = stored_dataset(place, users_dataset(read_schema(place))).snapshot().read()
    assert "somebody new" in rows.column("user_id").to_pylist()


def another(folder: Path) -> Path:
    """Write another shop of the same days: nobody and nothing of it is known."""
    events, items = shop(seed=11)
    named = [{**row, "customer": row["customer"] and f"b{row['customer']}", "sku": f"b{row['sku']}"} for row in events]
    return write_shop(folder, named, [{**row, "sku": f"b{row['sku']}"} for row in items])


def test_a_whole_of_another_data_set_is_refused_unless_said_so(settings: Settings, tmp_path: Path) -> None:
    place = Namespace(settings.state, NAME)
    run(settings, write(tmp_path / "source"), MAPPING)
    write_what_landed(place)
    merge_landed(place)
    before, tree = lake(settings), tree_sha256(place.root)
    with pytest.raises(
        SourceError, match=r"holds \([\d,]+ events of 2024-03-01 .*user 'c\d+' and item 'sku .*--mode rep"
    ) as told:
        run(settings, another(tmp_path / "other"), MAPPING)
    assert exit_code_of(told.value) is ExitCode.TERMINAL
    assert "Made-up shop" in str(told.value)
    assert "'bc" in str(told.value)
    assert lake(settings) == before
    assert tree_sha256(place.root) == tree
    run(settings, tmp_path / "other", MAPPING, name="fresh")
    run(settings, tmp_path / "other", MAPPING, Mode.REPLACE)
    assert lake(settings) == lake(settings, "fresh")
    assert not streamed_table(place).snapshot().rows
    run(settings, tmp_path / "other", MAPPING)
    assert lake(settings) == lake(settings, "fresh")


def test_ids_that_two_data_sets_share_by_chance_make_them_no_one(settings: Settings, tmp_path: Path) -> None:
    """Numbers name users and items of almost every log."""
    place = Namespace(settings.state, NAME)
    first = write_movielens_100k(tmp_path / "a", users=60, items=80, events=900)
    ingest.run(settings, place, first, None, CLOCK)
    lines = (first / "u.data").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    users = [row[0] for row in rows]
    other = write_movielens_100k(tmp_path / "b", users=60, items=80, events=900)
    mixed = (("\t".join((user, *row[1:]))) for user, row in zip(users[7:] + users[:7], rows, strict=True))
    (other / "u.data").write_text("".join(f"{line}\n" for line in dict.fromkeys(mixed)))
    with pytest.raises(SourceError, match="next to nothing in common"):
        ingest.run(settings, place, other, None, CLOCK)


def test_replacing_leaves_nothing_of_later_days_either(settings: Settings, tmp_path: Path) -> None:
    cutoff = FIRST + timedelta(days=3)
    run(settings, write(tmp_path / "source"), MAPPING)
    run(settings, another(tmp_path / "other"), MAPPING, Mode.REPLACE, cutoff=cutoff)
    run(settings, tmp_path / "other", MAPPING, name="fresh", cutoff=cutoff)
    assert lake(settings) == lake(settings, "fresh")


def test_a_later_export_with_the_same_users_is_of_the_same_data_set(settings: Settings, tmp_path: Path) -> None:
    """No day is in both; what came by the stream meanwhile, and is in no export, does not count."""
    events, items = shop(days=12)
    middle = FIRST + timedelta(days=6)
    for name, rows in (
        ("early", [r for r in events if r["at"] < middle]),
        ("late", [r for r in events if r["at"] >= middle]),
    ):
        write_shop(tmp_path / name, rows, items)
    run(settings, tmp_path / "early", MAPPING)
    place = Namespace(settings.state, NAME)
    write_landing(place, [received(1, "c1", "sku 1é", 60 * 24 * 7)])
    merge_landed(place)
    run(settings, tmp_path / "late", MAPPING)
    run(settings, tmp_path / "early", MAPPING, cutoff=middle)


def test_a_growing_and_a_corrected_export_are_of_the_same_data_set(settings: Settings, tmp_path: Path) -> None:
    events, items = shop()
    run(settings, write_shop(tmp_path / "a", events[:200], items), MAPPING)
    run(settings, write_shop(tmp_path / "b", events, items), MAPPING)
    corrected = [
        {**row, "at": row["at"] + timedelta(seconds=1)} if number % 2 else row for number, row in enumerate(events)
    ]
    run(settings, write_shop(tmp_path / "c", corrected, items), MAPPING)
    run(settings, write_shop(tmp_path / "d", events[:40], items), MAPPING)


def test_a_damaged_lake_is_mended_by_the_whole(settings: Settings, tmp_path: Path) -> None:
    source = write(tmp_path / "source")
    run(settings, source, MAPPING)
    before = lake(settings)
    for file in stored_dataset(Namespace(settings.state, NAME), EVENTS).snapshot().files:
        file.write_bytes(b"damaged")
    run(settings, source, MAPPING)
    assert lake(settings) == before
