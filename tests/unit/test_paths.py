"""Paths are paths: whatever a source, its files and the state folder are called, only what is in them is read."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.contracts.datasets import EVENTS, QUARANTINE, items_dataset, user_versions_dataset, users_dataset
from feature_repo.contracts.features import declared
from feature_repo.contracts.jobs import JobError
from feature_repo.contracts.places import REPOSITORY, Namespace, state_folder
from feature_repo.contracts.schemas import read_schema
from pipelines.errors import SourceError
from pipelines.feast_store.tables import FeatureTable
from pipelines.io.lake import stored_dataset
from pipelines.io.sql_text import parquet
from pipelines.jobs import check, ingest
from pipelines.settings import Settings
from pipelines.sources.mode import Mode
from tests.awkward_paths import AWKWARD
from tests.shop_log import CLOCK, FIRST, MAPPING, shop, write_shop

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDERS = ("pieces=7/x", "at=2024-05-01", "customer=c1/sku=007", "[2024] shop*", "{a,b}?", "%41 é#'\"", "a\\b [c]", "_")


def run(settings: Settings, source: Path, mapping: str = MAPPING, mode: Mode = Mode.WHOLE) -> Namespace:
    place = Namespace(settings.state, "n")
    path = settings.state.parent / "mapping.yaml" if not settings.state.exists() else settings.state / "mapping.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(mapping, encoding="utf-8")
    ingest.run(settings, place, source, None, CLOCK, path, mode)
    return place


def lake(place: Namespace) -> Mapping[str, str]:
    schema = read_schema(place)
    datasets = (EVENTS, QUARANTINE, items_dataset(schema), users_dataset(schema), user_versions_dataset(schema))
    return {dataset.name: stored_dataset(place, dataset).snapshot().checksum for dataset in datasets}


@pytest.fixture
def expected(tmp_path: Path) -> Mapping[str, str]:
    settings = Settings(state=tmp_path / "plain" / "state", quarantine_limit=0.1)
    return lake(run(settings, write_shop(tmp_path / "plain" / "source", *shop(), form="parquet")))


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_no_folder_above_a_file_changes_what_it_says(
    tmp_path: Path, expected: Mapping[str, str], folder: str, form: str
) -> None:
    settings = Settings(state=tmp_path / "state", quarantine_limit=0.1)
    write_shop(tmp_path / "source" / folder, *shop(), form=form)
    assert lake(run(settings, tmp_path / "source")) == expected


@pytest.mark.parametrize("name", ["events[1]", "events[!2]", "events\\[1]"])
def test_a_file_is_read_by_its_own_name(tmp_path: Path, expected: Mapping[str, str], name: str) -> None:
    """Beside another one, which its name would find, were it a pattern."""
    source = write_shop(tmp_path / "source", shop(seed=9)[0], form="parquet")
    (source / "events.parquet").rename(source / "events1.parquet")
    write_shop(source, *shop(), form="parquet")
    (source / "events.parquet").rename(source / f"{name}.parquet")
    mapping = MAPPING.replace('files: "events*"', f"files: '{name}.parquet'")
    assert lake(run(Settings(state=tmp_path / "state", quarantine_limit=0.1), source, mapping)) == expected


def test_names_in_a_zip_may_begin_with_a_time(tmp_path: Path, expected: Mapping[str, str]) -> None:
    source = write_shop(tmp_path / "source", *shop())
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        archive.write(source / "events.csv", "10:30 [1]/events.csv")
        archive.write(source / "items.csv", "10:30 [1]/items.csv")
    assert lake(run(Settings(state=tmp_path / "state", quarantine_limit=0.1), tmp_path / "shop.zip")) == expected


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_column_that_only_a_folder_names_is_not_read_and_the_error_says_so(tmp_path: Path, form: str) -> None:
    events = [{name: value for name, value in row.items() if name != "at"} for row in shop()[0]]
    write_shop(tmp_path / "source" / "at=2024-03-01", events, shop()[1], form=form)
    with pytest.raises(SourceError, match=r"'at'.*folder 'at=2024-03-01' is a path and no column: write .* the file"):
        run(Settings(state=tmp_path / "state"), tmp_path / "source")


def test_a_state_folder_may_be_called_anything(tmp_path: Path, expected: Mapping[str, str]) -> None:
    settings = Settings(state=tmp_path / AWKWARD, quarantine_limit=0.1)
    source = write_shop(settings.state / "source", *shop(), form="parquet")
    place = run(settings, source)
    assert lake(place) == expected
    day = write_shop(settings.state / "day", shop()[0][:30], form="parquet")
    assert lake(run(settings, day, mode=Mode.PART)) == expected
    result = check.run(settings, place, FIRST.replace(day=8), None)
    assert (result["errors"], check.run(settings, place, FIRST.replace(day=8), None)["changed_partitions"]) == (0, 0)


def test_files_are_found_by_name_and_columns_are_the_files_own(tmp_path: Path) -> None:
    folder = tmp_path / AWKWARD
    files = [folder / f"event_date=2024-03-0{day}" / "part[1]*.parquet" for day in (1, 2)]
    for number, file in enumerate([*files, folder / "event_date=2024-03-01" / "part1x.parquet"]):
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"a": [number]}), file)
    found = duckdb.sql(f"SELECT * FROM {parquet(files)} ORDER BY a").to_arrow_table()  # noqa: S608 - quoted
    assert found.to_pydict() == {"a": [0, 1]}


def test_a_feature_table_s_files_are_its_own(tmp_path: Path) -> None:
    place = run(Settings(state=tmp_path / AWKWARD, quarantine_limit=0.1), write_shop(tmp_path / "s", *shop()))
    group = next(group for group in declared(read_schema(place)).groups if group.by_date)
    table = FeatureTable.of_group(place, group)
    file = place.feature_table(group.view_name) / "event_date=2024-03-01" / "part-0.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"b": [5]}), file)
    assert table.files == [file]
    assert duckdb.sql(f"SELECT * FROM {table.sql}").to_arrow_table().to_pydict() == {"b": [5]}  # noqa: S608 - quoted


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\x7fb", "a\udcffb"])
def test_a_state_folder_that_no_engine_can_be_told_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match=r"KESTREL_STATE: expected a folder .* received .*; rename it"):
        state_folder({"KESTREL_STATE": str(tmp_path / name)})


READERS = {
    r"read_parquet\(": {"pipelines/io/sql_text.py", "infra/local/report.py"},
    r"\.parquet\((?!\[)": {"pipelines/io/spark.py"},
    r"pq\.read_table\((?!.*partitioning=None)": set(),
}
"""What reads meaning out of a path → the modules that tell it not to."""


@pytest.mark.parametrize("call", READERS)
def test_nobody_reads_parquet_past_those_who_know_paths(call: str) -> None:
    planes = ("feature_repo", "pipelines", "models", "serving", "infra")
    modules = [path for plane in planes for path in (REPOSITORY / plane).rglob("*.py")]
    texts = {str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8") for path in modules}
    found = {name for name, text in texts.items() if re.search(call, text.replace(".write.parquet(", ""))}
    assert found <= READERS[call]
