"""What Java has learned of Spark's classes: written by one session, mapped by the next, and never in anybody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipelines.io.class_archive import class_archive

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

SESSION = """
import sys, psutil
from pathlib import Path
from pipelines.io.spark import spark_session
from pipelines.settings import Settings
settings = Settings(state=Path(sys.argv[1]), spark_master="local[1]", spark_driver_memory="1g")
with spark_session(settings, "archive", rows=1) as spark:
    rows = spark.range(10).groupBy("id").count().count()
    java = [child for child in psutil.Process().children(recursive=True) if child.name() == "java"]
    mapped = [area.path for process in java for area in process.memory_maps() if area.path.endswith(".jsa")]
    if len(sys.argv) > 2:
        print("there", flush=True)
        sys.stdin.read()
print(rows, *(path for path in mapped if path.startswith(sys.argv[1])), sep="|")
"""


def session(state: Path, archives: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SESSION, str(state), *arguments],
        env={**os.environ, "KESTREL_JAVA_ARCHIVES": str(archives)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> list[str]:
    """Return what a session counted, and the archive that it had mapped, if any."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    return out.strip().split("|")


def test_a_session_leaves_an_archive_that_later_ones_map_and_that_harms_nobody(tmp_path: Path) -> None:
    archives = tmp_path / "java archives"
    killed = session(tmp_path, archives, "wait")
    assert killed.stdout
    assert killed.stdout.readline() == "there\n"
    killed.kill()
    killed.communicate()
    assert not list(archives.glob("*.jsa")), "a killed session leaves none"
    assert ended(session(tmp_path, archives)) == ["10"], "standard output is the job's alone"
    (archive,) = archives.glob("*.jsa")
    assert ended(session(tmp_path, archives)) == ["10", str(archive)]
    archive.chmod(0o600)
    archive.write_bytes(b"no archive")
    assert ended(session(tmp_path, archives)) == ["10"], "a damaged one is passed over"


def test_a_java_that_takes_too_long_over_its_archive_is_ended_and_waited_for(tmp_path: Path) -> None:
    impatient = "import pipelines.io.class_archive as archives\narchives._LONGEST_EXIT_S = 0.01\n"
    process = subprocess.run(
        [sys.executable, "-W", "always", "-c", impatient + SESSION, str(tmp_path)],
        env={**os.environ, "KESTREL_JAVA_ARCHIVES": str(tmp_path / "archives")},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert process.stdout == "10\n"
    assert "is still running" not in process.stderr
    assert not list((tmp_path / "archives").glob("*.jsa"))


def test_without_a_folder_there_are_no_options() -> None:
    with class_archive(None) as options:
        assert options == ""
