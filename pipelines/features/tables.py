"""The stored form of a feature group: the entity's key, the event time, the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.datasets import EVENT_TIME, Dataset
from pipelines.io.lake import StoredTable

if TYPE_CHECKING:
    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace


def feature_dataset(group: FeatureGroup) -> Dataset:
    """Return the dataset that holds a group's rows; its name is the feature view's."""
    return Dataset(
        name=group.view_name,
        columns=(group.entity, EVENT_TIME, *group.features),
        key=(group.entity.name, EVENT_TIME.name),
        sort=(EVENT_TIME.name, group.entity.name),
        partitioned_by_event_date=group.by_date,
        meaning=group.meaning,
    )


def feature_table(place: Namespace, group: FeatureGroup, writer: str = "python -m pipelines features") -> StoredTable:
    """Return the table of a feature group in a namespace; `writer` is the command that writes it."""
    return StoredTable(
        feature_dataset(group),
        place.feature_table(group.view_name),
        place.locks / f"features-{group.view_name}.lock",
        writer,
    )
