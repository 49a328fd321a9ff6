"""Job: what came by the stream, into the partitions of the lake that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.locks import exclusive
from pipelines.io.online_client import online_client
from pipelines.stream.merge import merge_landed
from pipelines.stream.worker import land

if TYPE_CHECKING:
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings

_WAIT_S = 60.0
"""How long the stream job may take to land what it has at hand."""


def run(settings: Settings, place: Namespace) -> dict[str, object]:
    """Land everything that the stream holds now, and merge all landed files into the lake.

    Late and corrected events rewrite the partitions of their days; files that were merged before change nothing.

    Raises:
        OnlineStoreError: Redis does not answer.
        LockedError: An ingestion of the namespace is at work.
    """
    with online_client(settings.redis_url) as client:
        landed = land(settings, client, place, _WAIT_S)
    with exclusive(place.locks / "ingest.lock", f"ingestion of namespace {place.name}"):
        merged = merge_landed(place)
    return {
        "landed": landed,
        "merged": merged.events,
        "files": merged.files,
        "changed_partitions": len(merged.partitions),
        "new_users": merged.new_users,
        **({"left_out": merged.left_out} if merged.left_out else {}),
    }
