"""Write so that nobody ever reads half of it, read with a check, and checksum what was written.

A file appears under its name whole or not at all: it is written in a folder with a dot-name beside its place, flushed
to the disk, and renamed. A rename cannot replace a directory that has something in it: directories are written once,
under a name that says what they hold, and a small file points to the current one.

A writer that is killed leaves its folder. The next one that writes beside it removes it: a writer holds a lock in its
folder, which the kernel frees however the writer ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import JobError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

WRITE_ANEW = "remove it, and run the job that writes it"
"""What to do about a damaged record that a job makes from scratch."""
_ID_LENGTH = 16
_OWNER = "owner.lock"
_PART = re.compile(r"\..+\.[a-z0-9_]{8}\.part")
_ABANDONED_S = 24 * 3600
"""How old a part without a lock is removed at: of a writer that died before it held one, or of an earlier version."""


class CorruptRecordError(JobError, ValueError):
    """A file that other parts rely on is not what it should be. Terminal: somebody has to look."""


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give a place to write a file, which takes the name `path` when the block ends well, and else vanishes.

    Until then it is readable by its owner only; then `mode` counts.
    """
    with _part(path) as part:
        part.touch(0o600)
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.chmod(mode)
        part.replace(path)
        sync_directory(path.parent)


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all, readable by nobody else at any moment."""
    with replacing(path, mode=0o600) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def publishing_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory, which takes the name `path` when the block ends well and vanishes when it does not.

    If `path` exists when the block ends it is kept, and the new directory dropped: a directory's name says its content.
    """
    with _part(path) as part:
        part.mkdir(0o700)
        yield part
        for file in sorted(part.rglob("*")):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            else:
                sync_directory(file)
        part.chmod(0o755)
        sync_directory(part)
        if not path.exists():
            part.rename(path)
            sync_directory(path.parent)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """Give a free name in a folder beside `path` that only its owner may look into, and that goes with the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        with (folder / f".{_OWNER}").open("wb") as stream:
            with suppress(OSError):  # a file system without locks: such a folder is removed by its age
                fcntl.flock(stream, fcntl.LOCK_EX)
                # Nobody may find the lock before it is held, so that it gets its name afterwards.
                (folder / f".{_OWNER}").rename(folder / _OWNER)
            yield folder / "part"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed writers left in `folder`, and nothing that somebody writes; every writer does so by itself."""
    parts: list[Path] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        parts = [Path(entry) for entry in entries if _PART.fullmatch(entry.name)]
    for part in parts:
        with suppress(OSError):  # somebody writes it, it is not ours to remove, or another process has just removed it
            if (part / _OWNER).exists():
                with (part / _OWNER).open("rb+") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(part)
            elif time.time() - part.lstat().st_mtime > _ABANDONED_S:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write `record` to `path`, whole or not at all; the same record gives the same bytes.

    Raises:
        ValueError: A number is NaN or infinite: JSON has none of these, and other readers refuse the file.
    """
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str = WRITE_ANEW) -> dict[str, object]:
    """Read a JSON object; `remedy` says what to do about a file that is none. A missing file stays FileNotFoundError.

    Raises:
        CorruptRecordError: It is none; the message names the file and the remedy.
    """
    return parse_json(path.read_bytes(), str(path), remedy)


def parse_json(content: bytes, source: str, remedy: str = WRITE_ANEW) -> dict[str, object]:
    """Read a JSON object from what `source` holds: who has compared the bytes with a checksum reads these very bytes.

    Raises:
        CorruptRecordError: It is none; the message names the source and the remedy.
    """
    try:
        record = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        received = content[:80].decode(errors="backslashreplace")
        msg = f"{source}: expected a JSON object, received {received!r} ({error}); {remedy}"
        raise CorruptRecordError(msg) from error
    if not isinstance(record, dict):
        msg = f"{source}: expected a JSON object, received a {type(record).__name__}; {remedy}"
        raise CorruptRecordError(msg)
    return record


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damaged_file(directory: Path, checksums: Mapping[str, str]) -> str:
    """Return what is wrong with the first file that has other bytes than its record says; empty where none has.

    Raises:
        OSError: One cannot be read.
    """
    for name, expected in checksums.items():
        if file_sha256(directory / name) != expected:
            return f"{name} has other bytes than its manifest says"
    return ""


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def inputs_id(inputs: Mapping[str, object]) -> str:
    """Return the name of what a job makes of `inputs`: equal ones, in JSON's types, give an equal name."""
    return text_sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")))[:_ID_LENGTH]


def tree_sha256(directory: Path, without: Collection[str] = ()) -> str:
    """Return one SHA-256 over the names and bytes of every file below `directory`, in the order of their names.

    Files named in `without`, by their paths below `directory`, do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*"), key=lambda path: path.relative_to(directory).as_posix()):
        if path.is_file() and path.relative_to(directory).as_posix() not in without:
            digest.update(f"{path.relative_to(directory).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
