"""Where the offline store finds each feature group's Parquet files."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

from feast import FileSource
from feast.data_format import ParquetFormat

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.contracts.places import PARTITION_FILE

if TYPE_CHECKING:
    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.places import Namespace


def files_of(group: FeatureGroup, namespace: Namespace) -> str:
    """Return the pattern of a group's Parquet files: over the date partitions, or an undivided table's one file."""
    folder = glob.escape(str(namespace.feature_table(group.view_name)))
    return f"{folder}/event_date=*/{PARTITION_FILE}" if group.by_date else f"{folder}/{PARTITION_FILE}"


def feast_source(group: FeatureGroup, namespace: Namespace) -> FileSource:
    """Return the Parquet files of a group, as Feast's registry keeps them."""
    return FileSource(
        name=group.view_name,
        path=files_of(group, namespace),
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIME.name,
        description=group.meaning,
    )
