"""Where the offline store finds each feature group's Parquet files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feast import FileSource
from feast.data_format import ParquetFormat

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.contracts.places import PARTITION_FILE

if TYPE_CHECKING:
    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace


def partitions_of(group: FeatureGroup) -> str:
    """Return the group's files as a pattern below its table's folder."""
    return f"event_date=*/{PARTITION_FILE}" if group.by_date else PARTITION_FILE


def feast_source(group: FeatureGroup, namespace: Namespace) -> FileSource:
    """Return the Parquet files of a group: a pattern over the date partitions, or an undivided table's one file."""
    view = group.view_name
    return FileSource(
        name=view,
        path=str(namespace.feature_table(view) / partitions_of(group)),
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIME.name,
        description=group.meaning,
    )
