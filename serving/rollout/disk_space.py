"""Says that a disk is full as what it is, whoever came upon it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo.contracts.jobs import FULL_DISK
from serving.rollout.errors import FullDiskError

if TYPE_CHECKING:
    from collections.abc import Iterator


def full_disk(what: str, error: BaseException) -> FullDiskError:
    """Return the error that names what there was no room for."""
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e6
    reason = str(error).strip().splitlines()[-1]
    return FullDiskError(
        f"{what}: there is no room for it ({reason}); nothing was published, what served serves on: free some of the "
        f"disk, KESTREL_ROLLOUT_KEEP_VERSIONS says how many versions stay (temporary files: {free:.0f} MB free)"
    )


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """Turn a write that found no room into an error that says so.

    Raises:
        FullDiskError: The disk is full, or the quota used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise full_disk(what, error) from error
        raise
