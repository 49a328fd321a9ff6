"""What a killed job leaves beside its place: directories that were never renamed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def remove_leftovers(folder: Path) -> None:
    """Remove what `publishing_directory` did not finish in `folder`, whose lock the caller holds."""
    for path in folder.glob(".*.part"):
        shutil.rmtree(path, ignore_errors=True)
