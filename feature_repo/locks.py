"""One job at a time at one place, by a lock file that the kernel frees however the job ends."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from feature_repo.contracts.jobs import TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class LockedError(TransientError):
    """Another job is at work there."""


@contextmanager
def exclusive(lock: Path, subject: str, wait_s: float = 0) -> Iterator[None]:
    """Hold a lock file.

    Raises:
        LockedError: Another process holds it for longer than `wait_s` seconds.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=wait_s):
            yield
    except Timeout as error:
        msg = f"{subject}: another job is writing it (lock {lock}); try again when it is done"
        raise LockedError(msg) from error
