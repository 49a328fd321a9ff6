"""The feature views: one for each feature group, its name carrying the hash of its definition."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from feast import FeatureView

from feature_repo.contracts.features import FeatureGroup, declared
from feature_repo.contracts.schemas import read_schema
from feature_repo.entities import ENTITIES
from feature_repo.fields import feast_field
from feature_repo.sources import feast_source

if TYPE_CHECKING:
    from feature_repo.contracts.places import Namespace


def feast_view(group: FeatureGroup, namespace: Namespace) -> FeatureView:
    """Return a feature group as a feature view over its table in `namespace`."""
    return FeatureView(
        name=group.view_name,
        entities=[ENTITIES[group.entity.name]],
        ttl=timedelta(days=group.ttl_days),
        schema=[feast_field(column) for column in (group.entity, *group.features)],
        source=feast_source(group, namespace),
        online=True,
        description=group.meaning,
        tags={"group": group.name, "freshness": group.freshness.value},
    )


def feast_views(namespace: Namespace) -> dict[str, FeatureView]:
    """Return group name → feature view for every group of the namespace's schema."""
    return {group.name: feast_view(group, namespace) for group in declared(read_schema(namespace)).groups}
