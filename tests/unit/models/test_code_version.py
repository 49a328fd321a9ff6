"""Which code made a model: the repository's commit, or what an image was told."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from models import code_version
from models.code_version import code_version as found

REPOSITORY = Path(code_version.__file__).parent.parent


def test_the_lock_is_the_repositorys():
    assert found()["lock_sha256"] == hashlib.sha256((REPOSITORY / "uv.lock").read_bytes()).hexdigest()


def test_an_image_says_what_it_was_told(monkeypatch):
    monkeypatch.setenv("KESTREL_COMMIT", "abc")
    assert found()["commit"] == "abc"


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_repository_says_its_commit_and_whether_files_differ(tmp_path, monkeypatch):
    monkeypatch.delenv("KESTREL_COMMIT", raising=False)
    monkeypatch.setattr(code_version, "_ROOT", tmp_path)
    assert found() == {"commit": "", "lock_sha256": ""}, "no repository, no lock"

    def git(*words):
        command = [shutil.which("git"), "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    git("init")
    (tmp_path / "file").write_text("1", encoding="utf-8")
    git("add", "file")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    assert found()["commit"] == commit
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert found()["commit"] == f"{commit}-dirty"
