"""Feature group → the transform that computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import MOVIELENS, Kind
from pipelines.features.activity import item_activity, user_activity
from pipelines.features.profiles import profile, user_history
from pipelines.features.state import user_state
from pipelines.features.tables import feature_dataset
from pipelines.features.terms import MOST_TERMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pyspark.sql import DataFrame

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.schemas import Schema


@dataclass(frozen=True, slots=True)
class Inputs:
    """What features are computed from: the schema, the lake's tables, and the cutoff that they lie before."""

    schema: Schema
    events: DataFrame
    items: DataFrame
    users: DataFrame
    cutoff: datetime

    @property
    def known(self) -> DataFrame:
        """Every event before the cutoff."""
        return self.events.where(F.col("event_time") < F.lit(self.cutoff))

    @property
    def counted(self) -> DataFrame:
        """The events before the cutoff that features count."""
        return self.known.where(F.col("event_type").isin(*self.schema.counted_types))

    @property
    def items_with_terms(self) -> DataFrame:
        """The items dataset; an attribute that has terms is a list, of one where it is categorical."""
        lists = {
            attribute.name: F.array(F.col(attribute.name))
            for attribute in self.schema.item_attributes
            if attribute.kind is Kind.CATEGORICAL
        }
        return self.items.withColumns(lists)

    @property
    def terms(self) -> dict[str, list[str]]:
        """For each attribute of items that has terms: those that are counted, sorted by name."""
        return {
            attribute.name: self._most_common(attribute.name)
            for attribute in self.schema.item_attributes
            if attribute.is_term
        }

    def _most_common(self, attribute: str) -> list[str]:
        """Return what most items have: no more of it than users' counts are kept for."""
        counts = (
            self.items_with_terms.select(F.explode(attribute).alias("term"))
            .where(F.coalesce(F.col("term"), F.lit("")) != "")
            .groupBy("term")
            .count()
            .orderBy(F.desc("count"), "term")
            .limit(MOST_TERMS)
            .collect()
        )
        return sorted(row["term"] for row in counts)


TRANSFORMS: dict[str, Callable[[FeatureGroup, Inputs], DataFrame]] = {
    "user_activity": lambda _, inputs: user_activity(
        inputs.counted, inputs.items_with_terms, inputs.schema, inputs.terms
    ),
    "user_profile": lambda group, inputs: profile(inputs.users, group),
    "item_activity": lambda _, inputs: item_activity(inputs.counted, inputs.schema),
    "item_profile": lambda group, inputs: profile(inputs.items, group),
    "user_history": lambda _, inputs: user_history(inputs.known, inputs.cutoff),
    "user_state": lambda _, inputs: user_state(
        inputs.known, inputs.items_with_terms, inputs.schema, inputs.terms, inputs.cutoff
    ),
}


def compute(group: FeatureGroup, inputs: Inputs) -> DataFrame:
    """Return a group's rows with the columns of its dataset, in their order."""
    return TRANSFORMS[group.name](group, inputs).select(*feature_dataset(group).column_names)


if undefined := {group.name for group in declared(MOVIELENS).groups} ^ TRANSFORMS.keys():
    message = f"feature groups and transforms differ: {sorted(undefined)}; declare both or neither"
    raise LookupError(message)
