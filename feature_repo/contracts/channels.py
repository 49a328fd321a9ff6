"""The channels of recall, and what each says of a user and an item: a score, a place, both of them pair features.

A channel that learns is fitted at a moment, and whatever it says is knowledge of that moment: a feature of later rows
alone. Its definition has a hash, as a feature view has: a model never meets scores of another definition than those it
was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding, Scalar, definition_hash
from feature_repo.contracts.datasets import ITEM_ID, Dataset
from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.features import declared
from feature_repo.contracts.questions import SimpleList
from feature_repo.contracts.schemas import MOVIELENS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.features import Declared
    from feature_repo.contracts.schemas import Schema

POPULAR, CIRCLE, LIKED = "popular", "circle", "liked"
TREND, NEW, TASTE = "trend", "new", "taste"
NEW_DAYS = 30
"""So long an item counts as new after its first event."""
FIT_REVISION = 3
"""Raised by whoever changes how channels are fitted, or how their variants are chosen."""

MISSING_SCORE = -1e9
"""The score of an item that a channel did not find: a number that no channel gives, and that FLOAT32 holds exactly."""
MISSING_RANK = 0


class Table(StrEnum):
    """How a fitted channel comes by its scores: which of two tables it has."""

    NEIGHBOURS = "neighbours"
    """NEIGHBOURS: a user's score of an item is the sum of what each liked item gives it, by the like's age."""
    SCORES = "scores"
    """SCORES: an item has one score for everybody."""


NEIGHBOURS = Dataset(
    name="channel_neighbours",
    columns=(
        ITEM_ID,
        Column("neighbours", Dtype.INT64, "What a like of the item tells of: rows of this table, from 0", length=-1),
        Column("weights", Dtype.FLOAT32, "How much, in the same order", length=-1),
    ),
    key=(ITEM_ID.name,),
    sort=(ITEM_ID.name,),
    partitioned_by_event_date=False,
    meaning="Item by item what a like of it adds to the scores of others; the greatest weights, by their size, first",
)
SCORES = Dataset(
    name="channel_scores",
    columns=(ITEM_ID, Column("score", Dtype.FLOAT32, "The same for every user: the greater, the better")),
    key=(ITEM_ID.name,),
    sort=(ITEM_ID.name,),
    partitioned_by_event_date=False,
    meaning="Items in an order that is the same for everybody",
)
TABLES = {Table.NEIGHBOURS: NEIGHBOURS, Table.SCORES: SCORES}


class Figure(StrEnum):
    """What a channel says of an item that it found for a user."""

    SCORE = "score"
    """Its own measure: the greater, the better."""
    RANK = "rank"
    """The item's place among those that it found and the user has not had: 1 is the best."""


@dataclass(frozen=True, slots=True)
class PairFeature:
    """One figure of one channel, as a model takes it: FLOAT32 of a score, INT64 of a rank."""

    channel: str
    figure: Figure
    definition: str
    """Hash of the channel's definition, which the figures that are online must have."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as it is declared: one that has no score finds items in an order and says no more."""

    name: str
    meaning: str
    """What it finds."""
    score: str = ""
    """What its score is; empty where it has none."""
    parameters: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))
    """Whatever, if changed, changes what it says of the same events."""
    table: Table | None = None
    """Of a channel that is fitted on likes; None for one that reads vectors, the catalogue or the user's own features.
    """
    simple_list: SimpleList | None = None
    """The list that it is when shown as it is; None for one that no simple list is like."""
    is_aged: bool | None = None
    """Whether likes count by their age: True and False limit the variants that are tried to such, None does not."""
    quota: int = 10
    """Its share of the candidates, in proportion to the others'."""

    @property
    def definition(self) -> str:
        """The hash of what decides its figures."""
        return definition_hash({"channel": self.name, "parameters": dict(self.parameters)})

    @property
    def features(self) -> tuple[tuple[PairFeature, Column], ...]:
        """What a model can read of it, each with the column that it is."""
        figures = (Figure.SCORE, Figure.RANK) if self.score else (Figure.RANK,)
        return tuple((PairFeature(self.name, figure, self.definition), self._column(figure)) for figure in figures)

    def _column(self, figure: Figure) -> Column:
        name = f"pair_{self.name}_{figure}"
        if figure is Figure.SCORE:
            meaning = f"{self.score}, where the channel {self.name} found the item for the user"
            return Column(name, Dtype.FLOAT32, meaning, missing=MISSING_SCORE, encoding=Encoding.STANDARD)
        meaning = f"Place of the item among those that the channel {self.name} found for the user, from 1"
        return Column(name, Dtype.INT64, meaning, missing=MISSING_RANK, encoding=Encoding.STANDARD, curve=Curve.LOG)


def fit_date(channel: str) -> Column:
    """Return the column of training rows that says what a channel's figures know: events before that moment alone."""
    return Column(f"pair_{channel}_fitted_at", Dtype.TIMESTAMP, f"Cutoff of the fit of {channel}", nullable=True)


@cache
def channels(schema: Schema) -> Mapping[str, Channel]:
    """Return name → channel that a data set of this schema can have; which of them is online, its snapshot says."""
    declaration = declared(schema)
    known = [
        *_fitted(declaration),
        *_of_the_catalogue(declaration),
    ]
    for kind in EMBEDDINGS.values():
        # The view of the users' vectors says how items and users come by theirs; the other, what a user liked lately.
        views = {"view": kind.user_group.view_name, "liked": declaration.user_activity.view_name}
        known.append(
            Channel(
                kind.name,
                f"What is near the items liked lately: {kind.meaning}",
                f"Cosine of the item's {kind.name} vector and the user's",
                MappingProxyType(views),
            )
        )
    if declaration.user_circle is not None:
        view = declaration.user_circle.view_name
        known.append(
            Channel(CIRCLE, "What others whom the user follows liked last", parameters=MappingProxyType({"view": view}))
        )
    return MappingProxyType({channel.name: channel for channel in known})


_SHARE = "Share of the users, of those who liked anything then, who liked the item"
_SUM = "Sum over what the user likes of"


def _of_the_catalogue(declaration: Declared) -> tuple[Channel, ...]:
    """Return the channels that the recommender makes of the catalogue, and of what it knows of the user."""
    activity, windows = declaration.item_activity.view_name, declaration.item_windows.view_name
    known = (
        Channel(POPULAR, "What most people have to do with", parameters=MappingProxyType({"view": activity})),
        Channel(
            TREND,
            "What more people have to do with than before, the greatest rise first",
            "Trend of the item's events",
            MappingProxyType({"view": windows}),
        ),
        Channel(
            NEW,
            f"What began in the last {NEW_DAYS} days, the most met first, then what nobody has met",
            parameters=MappingProxyType({"view": activity, "days": NEW_DAYS}),
            quota=5,
        ),
    )
    if declaration.item_profile is None or not any(each.is_term for each in declaration.schema.item_attributes):
        return known
    views = {"view": declaration.item_profile.view_name, "liked": declaration.user_activity.view_name}
    taste = Channel(
        TASTE,
        "What has the terms that the user likes most often, the popular first",
        "The item's share of these terms, each less than the one before, times the logarithm of its events",
        MappingProxyType(views),
    )
    return (*known, taste)


def _fitted(declaration: Declared) -> tuple[Channel, ...]:
    """Return the channels that `python -m pipelines channels` fits on what users liked, the best first.

    Their variants (penalty, shrinkage, half-life) are chosen on validation with each fit. So the way of choosing is
    part of a definition, and the variant is not: figures are of one kind whichever was chosen.
    """
    schema = declaration.schema
    liking: dict[str, Scalar] = {
        "liked_types": ",".join(schema.positive.event_types),
        "liked_value": schema.positive.threshold,
        "revision": FIT_REVISION,
    }

    def told_by_likes(
        name: str, meaning: str, score: str, of: SimpleList, quota: int, *, is_aged: bool | None = None
    ) -> Channel:
        parameters = {**liking, "view": declaration.user_liked_items.view_name, "is_aged": str(is_aged)}
        return Channel(
            name, meaning, f"{_SUM} {score}", MappingProxyType(parameters), Table.NEIGHBOURS, of, is_aged, quota
        )

    def for_everybody(name: str, meaning: str, of: SimpleList, quota: int) -> Channel:
        parameters = MappingProxyType({**liking, "list": of.value})
        return Channel(name, meaning, _SHARE, parameters, Table.SCORES, of, None, quota)

    ease, weight = SimpleList.EASE, "its weight in EASE, a linear autoencoder"
    aged = f"{weight}, by the like's age"
    return (
        told_by_likes("ease", "What a linear model expects of the user's likes", weight, ease, 120, is_aged=False),
        told_by_likes("ease_aged", "The same, where older likes count less", aged, ease, 60, is_aged=True),
        told_by_likes("itemcf", "What those liked who like what the user likes", "its cosine", SimpleList.ITEM_CF, 60),
        for_everybody("liked_7d", "What most users liked in the last 7 days", SimpleList.MOST_LIKED_7, 40),
        for_everybody("liked_30d", "What most users liked in the last 30 days", SimpleList.MOST_LIKED_30, 60),
        for_everybody("liked_lately", "What most users like, by the likes' age", SimpleList.RECENCY, 20),
        for_everybody(LIKED, "What most users like, of all time", SimpleList.MOST_LIKED, 20),
    )


KNOWN_CHANNELS = channels(replace(MOVIELENS, has_relations=True))
"""Name → channel, of all that some data set can have; definitions are those of one."""
PERSONAL_CHANNELS = tuple(name for name, channel in KNOWN_CHANNELS.items() if channel.table is Table.NEIGHBOURS)
"""Of these, the fitted ones that tell users apart."""
