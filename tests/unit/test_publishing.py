"""Nothing half-written is ever read, whatever ends the writer."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.contracts.exit_codes import ExitCode
from feature_repo.contracts.jobs import run_job
from feature_repo.contracts.manifests import Decision, OnlineSnapshot, Verdict
from feature_repo.contracts.publishing import (
    CorruptRecordError,
    publishing_directory,
    read_json,
    replacing,
    tree_sha256,
    write_json,
)

REPOSITORY = Path(__file__).parents[2]
VERDICT = Verdict(
    "ml-100k", "ranking", "3", "run", Decision.TIE, "no difference", "2", [{"name": "auc", "figure": 0.7}]
)


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("moment", ["before", "inside"])
def test_a_killed_writer_leaves_the_old_file(tmp_path, moment):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom feature_repo.contracts.publishing import replacing\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half' if sys.argv[2] == 'inside' else '')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(path), moment], cwd=REPOSITORY, check=False)
    assert process.returncode == -signal.SIGKILL
    assert read_json(path) == {"a": 1}


KILLED = (
    "import os, sys\nfrom pathlib import Path\nfrom feature_repo.contracts import publishing\n"
    "with getattr(publishing, sys.argv[2])(Path(sys.argv[1])):\n"
    "    os.kill(os.getpid(), 9)\n"
)


@pytest.mark.parametrize("kind", ["replacing", "publishing_directory"])
def test_what_a_killed_writer_left_goes_with_the_next_write_beside_it(tmp_path, kind):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "v1"), kind], cwd=REPOSITORY, check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    write_json(tmp_path / "record.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_somebody_writes_stays_and_so_does_what_is_none_of_a_writers(tmp_path):
    foreign = [tmp_path / ".film.mkv.part", tmp_path / ".owner.lock"]
    for path in foreign:
        path.touch()
        os.utime(path, (0, 0))
    with publishing_directory(tmp_path / "v1") as directory, replacing(tmp_path / "v2") as file:
        (directory / "a").write_text("a")
        file.write_text("b")
        write_json(tmp_path / "record.json", {})
    assert (tmp_path / "v1" / "a").read_text() + (tmp_path / "v2").read_text() == "ab"
    assert {path.name for path in tmp_path.iterdir()} == {"v1", "v2", "record.json", *(path.name for path in foreign)}


def test_parts_without_a_lock_go_when_they_are_old(tmp_path):
    """As an earlier version left them, or a writer that was killed before it held its lock."""
    for name in ("old", "new"):
        (tmp_path / f".{name}.json.a1b2c3d4.part").write_text("{")
        (tmp_path / f".{name}.e5f6g7h8.part" / "saved_model").mkdir(parents=True)
    for path in tmp_path.glob(".old.*"):
        os.utime(path, (0, 0))
    write_json(tmp_path / "record.json", {})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"record.json", ".new.json.a1b2c3d4.part", ".new.e5f6g7h8.part"}


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), publishing_directory(tmp_path / "v1") as part:
        (part / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with publishing_directory(tmp_path / "v1") as part:
        (part / "sub").mkdir()
        (part / "sub" / "a").write_text("whole")
    assert (tmp_path / "v1" / "sub" / "a").read_text() == "whole"


def test_a_directory_that_exists_is_kept(tmp_path):
    for text in ("first", "second"):
        with publishing_directory(tmp_path / "v1") as part:
            (part / "a").write_text(text)
    assert (tmp_path / "v1" / "a").read_text() == "first"


def test_tree_checksum_sees_names_and_bytes_but_no_times_and_no_order(tmp_path):
    def tree(name, files):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return tree_sha256(tmp_path / name)

    reference = tree("a", {"x": "1", "y/z": "2"})
    assert tree("b", {"y/z": "2", "x": "1"}) == reference
    os.utime(tmp_path / "b" / "x", (0, 0))
    assert tree_sha256(tmp_path / "b") == reference
    assert tree("c", {"x": "1", "y/w": "2"}) != reference
    assert tree("d", {"x": "1", "y/z": "3"}) != reference


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"a"', b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_is_none_is_named_with_the_remedy(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(CorruptRecordError, match=r"record\.json: expected a JSON object, received .*; remove it"):
        read_json(path)
    with pytest.raises(CorruptRecordError, match=r"; ask somebody$"):
        read_json(path, "ask somebody")


def test_a_damaged_record_ends_a_job_in_one_sentence(tmp_path, capsys):
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        run_job(lambda: read_json(tmp_path / "record.json"))
    assert ended.value.code == ExitCode.TERMINAL
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("terminal: ")


def test_manifests_read_what_they_wrote_and_equal_records_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        VERDICT.write(tmp_path / name)
    assert Verdict.read(tmp_path / "a") == VERDICT
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reason": None}, "field reason: expected str, received None"),
        ({"format": 99}, "field format: expected 0 to 1, received 99; use the code that wrote it, or remove it"),
        ({"format": "1"}, "field format: expected 0 to 1, received '1'"),
        ({"gates": {}}, "field gates: expected list"),
        ({"decision": "maybe"}, "field decision: expected one of .*, received 'maybe'; remove it"),
    ],
)
def test_a_manifest_that_does_not_fit_says_which_field(tmp_path, change, message):
    VERDICT.write(tmp_path / "v.json")
    record = json.loads((tmp_path / "v.json").read_text())
    write_json(tmp_path / "v.json", record | change)
    with pytest.raises(CorruptRecordError, match=message):
        Verdict.read(tmp_path / "v.json")


def test_another_records_file_is_refused(tmp_path):
    VERDICT.write(tmp_path / "v.json")
    with pytest.raises(CorruptRecordError, match="not a OnlineSnapshot: missing fields"):
        OnlineSnapshot.read(tmp_path / "v.json")
