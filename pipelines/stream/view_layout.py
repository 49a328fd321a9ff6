"""One feature view in a user's hash: its fields worked out once, because every change of every user needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.feast_redis import decode_value, encode_timestamp, encode_value, feature_field, timestamp_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.feast_redis import Stored


class ViewLayout:
    """Where a feature group lies in the hash of an entity."""

    def __init__(self, group: FeatureGroup) -> None:
        view = group.view_name
        self.stamp = timestamp_field(view)
        self._fields = {column.name: (feature_field(view, column.name), column) for column in group.features}

    def encode(self, row: Mapping[str, Stored], time: int) -> dict[bytes, bytes]:
        """Return the fields of a row whose event time is `time`, in microseconds since 1970."""
        fields = {field: encode_value(column, row[name]) for name, (field, column) in self._fields.items()}
        return {self.stamp: encode_timestamp(time), **fields}

    def decode(self, stored: Mapping[bytes, bytes]) -> dict[str, Stored | None] | None:
        """Return the row that a hash holds; None if it has none of this view."""
        if self.stamp not in stored:
            return None
        return {name: decode_value(stored.get(field)) for name, (field, _) in self._fields.items()}
