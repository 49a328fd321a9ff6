"""Feature group → the transform that computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - the name that every Spark reader knows

from feature_repo.contracts.datasets import EVENT_TIME
from feature_repo.contracts.features import declared
from feature_repo.contracts.schemas import MOVIELENS, Kind
from pipelines.features.activity import item_activity, user_activity
from pipelines.features.likes import liked_last, user_liked_items
from pipelines.features.profiles import dated_profile, profile, user_history
from pipelines.features.relations import user_circle, user_relations
from pipelines.features.sequences import user_sequence
from pipelines.features.sessions import user_session
from pipelines.features.state import user_state
from pipelines.features.tables import feature_dataset
from pipelines.features.terms import MOST_TERMS
from pipelines.features.versions import first_terms, with_items
from pipelines.features.windows import item_windows, user_windows

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pyspark.sql import DataFrame

    from feature_repo.contracts.features import FeatureGroup
    from feature_repo.contracts.schemas import Schema


@dataclass(frozen=True, slots=True)
class Inputs:
    """What features are computed from: the schema, the lake's tables, and the cutoff that they lie before.

    `items` and `users` are their versions where their attributes are derived.
    """

    schema: Schema
    events: DataFrame
    items: DataFrame
    users: DataFrame
    cutoff: datetime
    start: datetime | None = None
    """The first moment whose rows are wanted; None wants all."""
    relations: DataFrame | None = None
    """Who follows whom; None where the schema has no relations."""

    @property
    def known(self) -> DataFrame:
        """Every event before the cutoff."""
        return self.events.where(F.col("event_time") < F.lit(self.cutoff))

    def recent(self, group: FeatureGroup) -> DataFrame:
        """Return the counted events that the wanted rows of a group follow from."""
        if self.start is None or not group.lookback_days:
            return self.counted
        since = self.start - timedelta(days=group.lookback_days)
        return self.counted.where(F.col("event_time") >= F.lit(since))

    @property
    def following(self) -> DataFrame:
        """Who follows whom since before the cutoff."""
        if self.relations is None:
            msg = "relations: expected them beside a schema that has relations, received none"
            raise LookupError(msg)
        return self.relations.where(F.col("since") < F.lit(self.cutoff))

    @property
    def counted(self) -> DataFrame:
        """The events before the cutoff that features count."""
        return self.known.where(F.col("event_type").isin(*self.schema.counted_types))

    @property
    def liked(self) -> DataFrame:
        """The items that each user liked last before the cutoff, as `likes.newest` has them."""
        return liked_last(self.known, self.schema.positive, self.schema.liked_items)

    def profile(self, group: FeatureGroup, rows: DataFrame) -> DataFrame:
        """Return a profile group's rows from those of its items or users."""
        if EVENT_TIME.name not in rows.columns:
            return profile(rows, group)
        return dated_profile(rows.where(F.col(EVENT_TIME.name) < F.lit(self.cutoff)), self.known, group)

    @property
    def items_with_terms(self) -> DataFrame:
        """What is known of items before the cutoff; an attribute that has terms is a list, of one if categorical."""
        lists = {
            attribute.name: F.array(F.col(attribute.name))
            for attribute in self.schema.item_attributes
            if attribute.kind is Kind.CATEGORICAL
        }
        is_dated = EVENT_TIME.name in self.items.columns
        items = self.items.where(F.col(EVENT_TIME.name) < F.lit(self.cutoff)) if is_dated else self.items
        return items.withColumns(lists)

    @property
    def terms(self) -> dict[str, list[str]]:
        """For each attribute of items that has terms: those that are counted, sorted by name."""
        return {
            attribute.name: first_terms(self.items_with_terms, attribute.name)
            if attribute.reduction
            else self._most_common(attribute.name)
            for attribute in self.schema.item_attributes
            if attribute.is_term
        }

    def _most_common(self, attribute: str) -> list[str]:
        """Return what most items have, however often one names it: no more of it than users' counts are kept for."""
        counts = (
            self.items_with_terms.select(F.explode(F.array_distinct(attribute)).alias("term"))
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
        with_items(inputs.counted, inputs.items_with_terms), inputs.schema, inputs.terms
    ),
    "user_session": lambda _, inputs: user_session(inputs.counted),
    "user_windows": lambda group, inputs: user_windows(inputs.recent(group), inputs.schema, inputs.cutoff),
    "user_profile": lambda group, inputs: inputs.profile(group, inputs.users),
    "user_relations": lambda _, inputs: user_relations(inputs.following, inputs.known),
    "item_activity": lambda _, inputs: item_activity(inputs.counted, inputs.schema),
    "item_windows": lambda group, inputs: item_windows(inputs.recent(group), inputs.schema, inputs.cutoff),
    "item_profile": lambda group, inputs: inputs.profile(group, inputs.items),
    "user_sequence": lambda group, inputs: user_sequence(group, inputs.counted),
    "user_history": lambda _, inputs: user_history(inputs.known, inputs.cutoff),
    "user_liked_items": lambda _, inputs: user_liked_items(inputs.known, inputs.liked, inputs.cutoff),
    "user_circle": lambda _, inputs: user_circle(inputs.following, inputs.known, inputs.schema.positive, inputs.cutoff),
    "user_state": lambda _, inputs: user_state(
        with_items(inputs.known, inputs.items_with_terms), inputs.liked, inputs.schema, inputs.terms, inputs.cutoff
    ),
}


def compute(group: FeatureGroup, inputs: Inputs) -> DataFrame:
    """Return a group's rows with the columns of its dataset, in their order."""
    return TRANSFORMS[group.name](group, inputs).select(*feature_dataset(group).column_names)


if undefined := {group.name for group in declared(replace(MOVIELENS, has_relations=True)).groups} ^ TRANSFORMS.keys():
    message = f"feature groups and transforms differ: {sorted(undefined)}; declare both or neither"
    raise LookupError(message)
