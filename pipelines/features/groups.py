"""Feature group → the transform that computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.features import (
    FEATURE_GROUPS,
    ITEM_ACTIVITY,
    ITEM_PROFILE,
    USER_ACTIVITY,
    USER_HISTORY,
    USER_PROFILE,
    FeatureGroup,
)
from pipelines.features.activity import item_activity, user_activity
from pipelines.features.profiles import item_profile, user_history, user_profile
from pipelines.features.tables import feature_dataset

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pyspark.sql import DataFrame

_RATING = "rating"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What features are computed from: the lake's tables, and the cutoff that they lie before."""

    events: DataFrame
    items: DataFrame
    users: DataFrame
    cutoff: datetime

    @property
    def ratings(self) -> DataFrame:
        """The ratings before the cutoff, whatever else the table holds."""
        return self.events.where((F.col("event_type") == _RATING) & (F.col("event_time") < F.lit(self.cutoff)))

    @property
    def genres(self) -> list[str]:
        """Every genre that an item names, sorted."""
        names = self.items.select(F.explode("genres").alias("genre")).distinct().collect()
        return sorted(row["genre"] for row in names)


TRANSFORMS: dict[str, Callable[[Inputs], DataFrame]] = {
    USER_ACTIVITY.name: lambda inputs: user_activity(inputs.ratings, inputs.items, inputs.genres),
    USER_PROFILE.name: lambda inputs: user_profile(inputs.users),
    ITEM_ACTIVITY.name: lambda inputs: item_activity(inputs.ratings),
    ITEM_PROFILE.name: lambda inputs: item_profile(inputs.items),
    USER_HISTORY.name: lambda inputs: user_history(inputs.ratings, inputs.cutoff),
}


def compute(group: FeatureGroup, inputs: Inputs) -> DataFrame:
    """Return a group's rows with the columns of its dataset, in their order."""
    return TRANSFORMS[group.name](inputs).select(*feature_dataset(group).column_names)


if undefined := {group.name for group in FEATURE_GROUPS} ^ TRANSFORMS.keys():
    message = f"feature groups and transforms differ: {sorted(undefined)}; declare both or neither"
    raise LookupError(message)
