"""Make the environment on a machine that has only Python: uv from PyPI, then everything that `uv.lock` names.

Run by `infra/local/setup` before the environment exists, so: standard library only, and no import from this project.
It does nothing, in a fraction of a second, when `uv.lock` and the interpreter are those of the last installation.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UV_VERSION = "0.13.9"
REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".venv"
STAMP = ENVIRONMENT / ".kestrel-installed.json"
GIGABYTE = 1024**3
DISK_SETTING = "KESTREL_SETUP_DISK_GB"
DISK_NEEDED_GB = 8.0
"""The environment takes 3.7 GB, and uv's cache as much again where it lies on another file system."""


class InstallationError(Exception):
    """The environment cannot be made. The message says what to do."""


def say(text: str) -> None:
    """Report progress on standard error, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the state folder, absolute: KESTREL_STATE, else `.kestrel` in the repository."""
    return (REPOSITORY / Path(environ.get("KESTREL_STATE") or ".kestrel").expanduser()).resolve()


def base_python() -> str:
    """Return the interpreter that an environment is made from, also when this runs inside one."""
    base: str = getattr(sys, "_base_executable", sys.executable)
    return base


def fingerprint() -> dict[str, str]:
    """Say what the environment depends on: equal fingerprints need no installation."""
    return {
        "uv.lock": hashlib.sha256((REPOSITORY / "uv.lock").read_bytes()).hexdigest(),
        "python": f"{base_python()} {sys.version.split()[0]} {sysconfig.get_platform()}",
    }


def is_installed() -> bool:
    """Tell whether the last installation ended well and nothing that it depends on has changed."""
    try:
        return bool(json.loads(STAMP.read_text(encoding="utf-8")) == fingerprint())
    except (OSError, ValueError):
        return False


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Hold `lock` for the block; the kernel lets go of it whatever happens to this process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another make is setting up the environment: waiting for it ...")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def check_machine(environ: Mapping[str, str]) -> None:
    """Raise InstallationError, before anything is downloaded, when Python is not whole or the disk is too full."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        msg = f"{sys.executable} makes no virtual environments: apt-get install python{version}-venv (or python3-venv)."
        raise InstallationError(msg)
    text = environ.get(DISK_SETTING) or str(DISK_NEEDED_GB)
    try:
        needed = float(text)
    except ValueError:
        msg = f"{DISK_SETTING}={text!r}: expected a number of gigabytes such as 8."
        raise InstallationError(msg) from None
    free = shutil.disk_usage(REPOSITORY).free / GIGABYTE
    if free < needed:
        msg = (
            f"{REPOSITORY}: the environment needs {needed:.1f} GB of free disk, {free:.1f} GB are left. "
            f"Make room, or set {DISK_SETTING} to try with less."
        )
        raise InstallationError(msg)


def uv_environment(environ: Mapping[str, str], state: Path) -> dict[str, str]:
    """Return the environment for uv: this interpreter, compiled files allowed, a cache that can be written."""
    kept = {name: value for name, value in environ.items() if name not in {"PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}}
    kept |= {"UV_PYTHON": base_python(), "UV_PYTHON_DOWNLOADS": "never"}
    home = Path(environ.get("HOME") or "/nonexistent")
    if "UV_CACHE_DIR" not in kept and not os.access(home, os.W_OK):
        kept["UV_CACHE_DIR"] = str(state / "tools" / "cache")
    return kept


def run(command: list[str], environment: Mapping[str, str], *, result_shown: bool = True) -> None:
    """Run one step with its messages shown; InstallationError names it if it fails."""
    result = None if result_shown else subprocess.DEVNULL
    status = subprocess.run(command, cwd=REPOSITORY, env=dict(environment), stdout=result, check=False).returncode
    if status:
        msg = f"`{' '.join(command)}` ended with status {status}; its message stands above. Run make again to go on."
        raise InstallationError(msg)


def provide_uv(state: Path, environment: Mapping[str, str]) -> Path:
    """Return the pinned uv, fetched from PyPI into `<state>/tools` unless it is there."""
    tools = state / "tools" / "uv"
    uv = tools / "bin" / "uv"
    if uv.exists():
        version = subprocess.run([str(uv), "--version"], capture_output=True, text=True, check=False).stdout.split()
        if version[1:2] == [UV_VERSION]:
            return uv
    say(f"Fetching uv {UV_VERSION} from PyPI ...")
    run([base_python(), "-m", "venv", "--clear", str(tools)], environment)
    pip = [str(tools / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    run([*pip, f"uv=={UV_VERSION}"], environment)
    return uv


def install(environ: Mapping[str, str]) -> None:
    """Make `.venv` hold what `uv.lock` says, compiled, and generate what cannot be committed."""
    state = state_folder(environ)
    with one_at_a_time(state / "run" / "setup.lock"):
        if is_installed():
            return
        check_machine(environ)
        environment = uv_environment(environ, state)
        uv = provide_uv(state, environment)
        say("Installing the environment from uv.lock (3.7 GB: a minute or two from a warm cache, else more)")
        STAMP.unlink(missing_ok=True)
        run([str(uv), "sync", "--frozen", "--all-extras", "--compile-bytecode"], environment)
        say("Generating the model server's protocol ...")
        python = str(ENVIRONMENT / "bin" / "python")
        run([python, "-m", "serving.protocol", "generate"], environment, result_shown=False)
        part = STAMP.with_suffix(".part")
        part.write_text(json.dumps(fingerprint()), encoding="utf-8")
        part.replace(STAMP)
        say("The environment is ready.")


if __name__ == "__main__":
    try:
        if not is_installed():
            install(os.environ)
    except InstallationError as error:
        say(f"Set-up failed: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("Set-up was interrupted; run make again to go on.")
        sys.exit(130)
