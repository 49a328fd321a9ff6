"""What Java has learned of Spark's classes, kept for later sessions: to load and check them is half of what these do.

A session that finds no archive has Java write one when it ends (class data sharing, JEP 350); later ones map the file.
An archive of another Java or Spark is never taken: the file's name says of which it is.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark
from filelock import FileLock, Timeout
from pyspark import SparkContext

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUIET = "-Xlog:disable -Xlog:all=error:stderr"
"""Java writes its warnings to standard output, which is the job's result."""
_LONGEST_EXIT_S = 120
_log = logging.getLogger(__name__)


@contextmanager
def class_archive(folder: Path | None) -> Iterator[str]:
    """Give Java's options for a session that begins and ends within the block; none where it shall not, or cannot.

    Args:
        folder: Where archives are kept; None for no archives.
    """
    release = _release()
    if folder is None or release is None or SparkContext._gateway is not None:  # noqa: SLF001 - PySpark does not say it otherwise
        yield ""
        return
    key = hashlib.sha256(f"{release}\n{pyspark.__file__} {pyspark.__version__}".encode()).hexdigest()[:16]
    archive = folder / f"spark-{key}.jsa"
    if archive.is_file():
        yield f'"-XX:SharedArchiveFile={archive}" {_QUIET}'
        return
    lock = FileLock(folder / "archive.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # another session is writing it, or there is no place to
        yield ""
        return
    try:
        for part in folder.glob("*.part"):
            part.unlink()
        # Whose job was killed may still write, when this one does.
        part = archive.with_suffix(f".{os.getpid()}.part")
        yield f'"-XX:ArchiveClassesAtExit={part}" {_QUIET}'
        if _end_java() and part.is_file():
            part.replace(archive)
            _log.info("%s: what Java knows of Spark's classes, for sessions to come", archive)
    finally:
        lock.release()


def _release() -> str | None:
    """Return what the Java that PySpark will start says of itself; None where it cannot be found."""
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else Path(shutil.which("java") or "")
    file = java.resolve().parent.parent / "release"
    return f"{file}\n{file.read_text(encoding='utf-8')}" if file.is_file() else None


def _end_java() -> bool:
    """Have Java write its archive, which it does when it ends, and tell whether it ended well."""
    gateway = SparkContext._gateway  # noqa: SLF001 - as above
    if gateway is None:
        return False
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001 - so that the next session starts another
    gateway.shutdown()
    java: subprocess.Popen[bytes] = gateway.proc
    if java.stdin:
        java.stdin.close()
    try:
        return java.wait(_LONGEST_EXIT_S) == 0
    except subprocess.TimeoutExpired:
        java.kill()
        java.wait()
        return False
