"""What a killed job leaves beside its place: files and directories that were never renamed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def remove_leftovers(folder: Path) -> None:
    """Remove what `replacing` or `publishing_directory` did not finish in `folder`, whose lock the caller holds."""
    for path in folder.glob(".*.part"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
