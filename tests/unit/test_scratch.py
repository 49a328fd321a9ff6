"""Scratch folders go with their owner, however it ends, and never while it works."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

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


def test_a_folder_whose_owner_was_killed_while_it_removed_it_goes(tmp_path: Path) -> None:
    half = tmp_path / "kestrel-scratch-half"
    half.mkdir()
    (half / "spilt").write_text("much")
    with scratch_folder(tmp_path):
        assert not half.exists()
