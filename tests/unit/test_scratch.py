"""Scratch folders go with their owner, however it ends, and never while it works."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from pipelines.io.scratch import scratch_folder

if TYPE_CHECKING:
    from pathlib import Path

_OWNER = """
import sys, time
from pathlib import Path
from pipelines.io.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "spilt").write_text("much")
    print(folder, flush=True)
    time.sleep(600)
"""


def owner(parent: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _OWNER, str(parent)], stdout=subprocess.PIPE, text=True)


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new") as folder, scratch_folder(tmp_path / "new") as other:
        assert folder != other
        (folder / "spilt").write_text("much")
    assert not list((tmp_path / "new").iterdir())


def test_the_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    with owner(tmp_path) as killed, owner(tmp_path) as living:
        try:
            folders = [process.stdout.readline().strip() for process in (killed, living) if process.stdout]
            killed.kill()
            killed.wait()
            assert all((tmp_path / folder / "spilt").exists() for folder in folders)
            with scratch_folder(tmp_path) as mine:
                assert {str(path) for path in tmp_path.iterdir()} == {folders[1], str(mine)}
            assert (tmp_path / folders[1] / "spilt").exists()
        finally:
            killed.kill()
            living.kill()


def test_a_folder_without_a_lock_is_somebody_s_who_works_there(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        pass
    (folder / "blockmgr").mkdir(parents=True)
    with scratch_folder(tmp_path):
        assert (folder / "blockmgr").exists(), "Java lives on, and has made its folder anew"


def test_a_kill_while_a_folder_is_removed_leaves_one_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path) as folder:
        (folder / "spilt").mkdir()
        patch.setattr("pipelines.io.scratch.shutil.rmtree", Mock(side_effect=KeyboardInterrupt))
    assert (folder / "spilt").exists()
    with scratch_folder(tmp_path):
        assert not folder.exists()
