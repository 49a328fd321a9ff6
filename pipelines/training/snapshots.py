"""The item2vec snapshot of a cutoff."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import ITEM2VEC
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.places import cutoff_name
from feature_repo.contracts.publishing import file_sha256
from pipelines.errors import JobError

if TYPE_CHECKING:
    from datetime import datetime

    from feature_repo.contracts.places import Namespace


def item_embeddings(place: Namespace, cutoff: datetime) -> tuple[str, str]:
    """Return path (relative to the namespace's folder) and file checksum of the snapshot of `cutoff`.

    Where a cutoff was fitted anew on corrected data, the snapshot fitted last counts.
    """
    folder = place.embeddings / ITEM2VEC.name
    found = sorted(
        folder.glob(f"{cutoff_name(cutoff)}-*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name)
    )
    if not found:
        known = sorted(path.name for path in folder.glob("*.parquet"))
        msg = (
            f"item embeddings of cutoff {format_cutoff(cutoff)}: expected {folder / cutoff_name(cutoff)}-*.parquet, "
            f"found {known}; run 'python -m pipelines embeddings' for this cutoff first"
        )
        raise JobError(msg)
    return found[-1].relative_to(place.root).as_posix(), file_sha256(found[-1])
