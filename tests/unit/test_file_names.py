"""Names and globs of a mapping: each file that is meant is read once, and none is left out in silence."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import pytest

from pipelines.errors import SourceError
from pipelines.sources.archive import SourceFile
from pipelines.sources.detection import open_source
from pipelines.sources.file_names import FileNames
from pipelines.sources.mode import Mode
from tests.mapped_world import RATINGS, MappedWorld, rating

HIDDEN = (".ipynb_checkpoints", "_temporary/0/task_1", "__MACOSX", ".git/x")


def found(pattern: str, *names: str) -> list[str]:
    files = [SourceFile(name, 1, Path(name), zipped=False) for name in names]
    return [file.name for file in FileNames(files).fitting(pattern)]


@pytest.mark.parametrize("pattern", ["events/**/*.parquet", "**/*.parquet", "events/**", "**", "**/events/**/a*"])
def test_two_stars_are_any_number_of_folders(pattern: str) -> None:
    names = ["events/a.parquet", "events/y=2024/a.parquet", "events/y=2023/m=1/a.parquet", "events/_m=2/a.parquet"]
    assert found(pattern, *names, "x/_delta_log/a.parquet", "events/_temporary/a.parquet")[: len(names)] == names
    assert found(pattern, *names, "events/_temporary/a.parquet", "events/.b/a.parquet") == names


@pytest.mark.parametrize("folder", ["old", *HIDDEN])
@pytest.mark.parametrize("pattern", ["e.csv", "*.csv", "e*", "./e.csv"])
def test_a_name_is_relative_to_the_source(pattern: str, folder: str) -> None:
    assert found(pattern, "e.csv", f"{folder}/e.csv") == ["e.csv"]
    assert found(pattern, "e.csv.gz", f"{folder}/e.csv.gz") == ["e.csv.gz"]


@pytest.mark.parametrize("pattern", ["*.csv", "e.csv", "day=1/*.csv"])
def test_folders_that_engines_write_are_looked_into_where_nothing_lies_above(pattern: str) -> None:
    names = ["x/day=1/e.csv", "y/day=1/e.csv"]
    assert found(pattern, *names, "z/_temporary/day=1/e.csv", "z/.old/e.csv") == names


@pytest.mark.parametrize("folder", HIDDEN)
def test_what_lies_in_a_hidden_folder_has_to_be_named(folder: str) -> None:
    assert not found("**/e.csv", "x.csv", f"{folder}/e.csv")
    assert not found("*/*/*/e.csv", "x.csv", f"{folder}/e.csv")
    assert found(f"{folder}/e.csv", "x.csv", f"{folder}/e.csv") == [f"{folder}/e.csv"]


@pytest.mark.parametrize("name", ["e.csv", "*.csv", "top/e.csv", "top/*", "**/e.csv"])
def test_one_folder_above_all_files_may_be_left_out(name: str) -> None:
    assert found(name, "__MACOSX/top/._e.csv", "top/e.csv", "top/more/note.txt") == ["top/e.csv"]
    assert found(name, "top/e.csv") == ["top/e.csv"]


def test_a_zip_with_one_top_folder_is_read(tmp_path: Path) -> None:
    world = MappedWorld(tmp_path)
    world.csv([rating(number) for number in range(1, 4)])
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.write(world.folder / "e.csv", "top/e.csv")
        archive.writestr("__MACOSX/top/._e.csv", "binary")
    assert world.ingest(RATINGS.replace("e*", "e.csv"), source=tmp_path / "d.zip")["events"] == 3


@pytest.mark.parametrize("mode", [Mode.WHOLE, Mode.PART])
def test_files_of_folders_below_are_told(tmp_path: Path, mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    world = MappedWorld(tmp_path)
    (world.folder / "old").mkdir()
    rows = [rating(number) for number in range(1, 4)]
    world.csv(rows)
    world.csv(rows, "old/e.csv")
    with caplog.at_level(logging.WARNING):
        assert world.ingest()["events"] == 3
    assert "'e*' means files of its own folder: left out are 1 in folders below it, such as 'old/e.csv'" in caplog.text
    caplog.clear()
    assert world.ingest(RATINGS.replace('"e*"', '["e*", "old/e.csv"]'))["quarantined"] == 3
    assert "left out" not in caplog.text
    (world.folder / "e.csv").unlink()
    (world.folder / "new" / "old").mkdir(parents=True)
    (world.folder / "old" / "e.csv").rename(world.folder / "new" / "old" / "e.csv")
    with pytest.raises(SourceError, match=r"events\.files: .*received 'new/old/e\.csv'; .*write 'new/\*\*/e\*'"):
        world.ingest(RATINGS.replace("e*", "new/e*"), mode=mode)


def test_two_stars_within_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"events\.files.*expected \*\* for whole folders.*write '\*\*/\*\.csv'"):
        MappedWorld(tmp_path).ingest(RATINGS.replace("e*", "**.csv"))


@pytest.mark.parametrize("folder", HIDDEN)
def test_a_published_layout_is_not_looked_for_in_hidden_folders(tmp_path: Path, folder: str) -> None:
    for place in (tmp_path, tmp_path / folder):
        place.mkdir(parents=True, exist_ok=True)
        for name in ("ratings.csv", "movies.csv"):
            (place / name).write_text("x", encoding="utf-8")
    assert open_source(tmp_path).name.startswith("MovieLens CSV")
