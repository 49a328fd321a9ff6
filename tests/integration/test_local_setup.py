"""What a fresh machine meets: finding Python, Java and redis-server, and saying what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.contracts.places import REPOSITORY
from infra.local import installation
from infra.local.places import Places
from infra.local.settings import state_folder
from infra.local.toolchain import Toolchain, find_redis_server, find_toolchain, java_home_of

SHELL_PROGRAMS = ("dirname", "head")


def folder_of_programs(folder: Path, **programs: str) -> Path:
    folder.mkdir()
    for name in SHELL_PROGRAMS:
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, script in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return folder


def set_up(tmp_path: Path, programs: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script in a repository of its own, so that this one's environment is out of its sight."""
    copy = tmp_path / "repository" / "infra" / "local"
    copy.mkdir(parents=True)
    for name in ("setup", "installation.py"):
        shutil.copy(REPOSITORY / "infra" / "local" / name, copy / name)
    (tmp_path / "repository" / "uv.lock").write_text("")
    return subprocess.run(
        ["/bin/sh", str(copy / "setup")],
        env={"PATH": str(programs), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_machine_without_a_fitting_python_gets_one_clear_sentence(tmp_path: Path) -> None:
    old = 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi'
    done = set_up(tmp_path, folder_of_programs(tmp_path / "bin", python3=old))
    assert done.returncode == 1
    assert "No Python 3.11, 3.12 or 3.13 on the PATH (python3 is: Python 3.9.2)" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_chosen_python_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    done = set_up(tmp_path, folder_of_programs(tmp_path / "bin"), PYTHON="/bin/false")
    assert done.returncode == 1
    assert "PYTHON=/bin/false: expected a Python 3.11, 3.12 or 3.13" in done.stderr


def test_too_full_a_disk_is_said_before_anything_is_downloaded(tmp_path: Path) -> None:
    programs = folder_of_programs(tmp_path / "bin")
    done = set_up(tmp_path, programs, PYTHON=sys.executable, KESTREL_SETUP_DISK_GB="1000000")
    assert done.returncode == 1
    assert "the environment needs 1000000.0 GB of free disk" in done.stderr
    assert "KESTREL_SETUP_DISK_GB" in done.stderr
    assert not (tmp_path / "repository" / ".kestrel" / "tools").exists()


def test_stamp_of_another_lock_asks_for_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = tmp_path / "stamp.json"
    monkeypatch.setattr(installation, "STAMP", stamp)
    assert not installation.is_installed()
    stamp.write_text(json.dumps(installation.fingerprint()))
    assert installation.is_installed()
    stamp.write_text(json.dumps({**installation.fingerprint(), "uv.lock": "another"}))
    assert not installation.is_installed()


@pytest.mark.parametrize("environ", [{}, {"KESTREL_STATE": "relative/state"}, {"KESTREL_STATE": "/srv/kestrel"}])
def test_set_up_and_stack_agree_on_the_state_folder(environ: dict[str, str]) -> None:
    assert installation.state_folder(environ) == state_folder(environ)


def test_uv_gets_a_cache_of_its_own_where_home_is_not_writable(tmp_path: Path) -> None:
    given = {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", "VIRTUAL_ENV": "/other"}
    environment = installation.uv_environment(given, tmp_path)
    assert environment["UV_CACHE_DIR"] == str(tmp_path / "tools" / "cache")
    assert environment["UV_PYTHON_DOWNLOADS"] == "never"
    assert not {"PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"} & set(environment)


def hidden(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither Java nor redis-server is to be found."""
    (tmp_path / "empty").mkdir()
    return {"PATH": str(tmp_path / "empty")}


def test_machine_without_java_and_redis_gets_those_of_the_wheels(tmp_path: Path) -> None:
    toolchain = find_toolchain(Places(tmp_path / "a state"), hidden(tmp_path))
    assert toolchain.java_home == tmp_path / "a state" / "java"
    # What Spark puts on Java's command line; the wheel's own java refuses to start with it.
    options = ["--add-modules=jdk.incubator.vector", "-Dname=two words", "-version"]
    java = toolchain.java_home / "bin" / "java"
    done = subprocess.run([str(java), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "openjdk version" in done.stderr
    probe = subprocess.run([str(toolchain.redis_server), "--version"], capture_output=True, text=True, check=True)
    assert "Redis server" in probe.stdout


def test_java_home_that_is_given_is_kept_even_in_a_nested_call(tmp_path: Path) -> None:
    places = Places(tmp_path / "state")
    toolchain = find_toolchain(places, hidden(tmp_path))
    again = find_toolchain(places, toolchain.environment({"PATH": os.defpath}))
    assert again.java_home == toolchain.java_home
    other = find_toolchain(Places(tmp_path / "other state"), toolchain.environment({"PATH": os.defpath}))
    assert other.java_archives == toolchain.java_archives


def test_java_that_is_too_old_or_broken_does_not_fit(tmp_path: Path) -> None:
    old = "echo '    java.home = /opt/java8\n    java.specification.version = 1.8' >&2"
    programs = folder_of_programs(tmp_path / "bin", old=old, broken="exit 1")
    assert java_home_of(str(programs / "old")) is None
    assert java_home_of(str(programs / "broken")) is None
    assert java_home_of(str(programs / "absent")) is None


def test_machines_own_redis_server_comes_first(tmp_path: Path) -> None:
    programs = folder_of_programs(tmp_path / "bin", **{"redis-server": "exit 0"})
    assert find_redis_server(Places(tmp_path), {"PATH": str(programs)}) == programs / "redis-server"


def test_environments_python_comes_before_any_other_on_the_path() -> None:
    variables = Toolchain(Path("/java"), Path("/redis/redis-server"), Path("/archives")).environment(
        {"PATH": "/usr/bin"}
    )
    assert variables["PATH"].split(":") == [str(Path(sys.executable).parent), "/java/bin", "/usr/bin", "/redis"]
