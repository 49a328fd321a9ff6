"""The feature services: what one kind of model reads.

A service's name carries the hash of its views, as a view's name carries that of its features: the service that an older
training set was made from stays in the registry beside the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feast import FeatureService

from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import read_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feast import FeatureView

    from feature_repo.contracts.features import FeatureService as Declaration
    from feature_repo.contracts.places import Namespace


def services(namespace: Namespace) -> tuple[Declaration, ...]:
    """Return the declared services of a namespace."""
    return declared(read_schema(namespace)).services


def service_name(service: Declaration) -> str:
    """Return the name that a service is registered by: `ranking_1a2b3c4d`."""
    return f"{service.name}_{service.hash}"


def feast_service(service: Declaration, views: Mapping[str, FeatureView]) -> FeatureService:
    """Return a declared service over `views`, group name → feature view."""
    return FeatureService(
        name=service_name(service),
        features=[views[group.name] for group in service.groups],
        tags={"service": service.name},
    )
