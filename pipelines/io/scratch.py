"""Folders for what does not fit into memory, and for passing copies."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "kestrel-scratch-"
_LOCK = ".owner.lock"


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Give a folder within `parent` (default: the system's for such) that goes with the block.

    Its owner holds a lock in it, which the kernel frees however the owner ends: folders of killed jobs go here, too.
    A folder without a lock stays: Java makes one anew where it lives longer than its session, and works there.
    """
    parent = parent or Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    # Nobody may find it before it is locked, so that it gets its name afterwards.
    unnamed = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    with FileLock(unnamed / _LOCK):
        folder = unnamed.rename(parent / unnamed.name.removeprefix("."))
        try:
            yield folder
        finally:
            _remove(folder)


def _remove_abandoned(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with FileLock(lock, timeout=0):
                _remove(lock.parent)
        except (Timeout, OSError):
            continue  # somebody works there, it is somebody else's, or another process has just removed it


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: what a kill leaves of it can still be told from what somebody works in."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
