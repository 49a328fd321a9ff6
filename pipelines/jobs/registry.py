"""Job: the contracts' feature views and services → Feast's registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.embeddings import EMBEDDING_GROUPS
from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import read_schema
from feature_repo.locks import exclusive
from feature_repo.services import service_name, services
from pipelines.feast_store.registry import apply_declarations
from pipelines.feast_store.store import open_store

if TYPE_CHECKING:
    from feature_repo.contracts.places import Namespace
    from pipelines.settings import Settings


def run(settings: Settings, place: Namespace) -> dict[str, object]:
    """Register every declared view and service; doing it again changes nothing."""
    with exclusive(place.locks / "registry.lock", f"Feast registry of namespace {place.name}"):
        apply_declarations(open_store(settings, place), place)
    return {
        "views": {group.name: group.view_name for group in (*declared(read_schema(place)).groups, *EMBEDDING_GROUPS)},
        "feature_services": [service_name(service) for service in services(place)],
    }
