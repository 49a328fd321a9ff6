"""The channels of recall, and what each says of a user and an item: a score, a place, both of them pair features.

A channel that learns is fitted at a moment, and whatever it says is knowledge of that moment: a feature of later rows
alone. Its definition has a hash, as a feature view has: a model never meets scores of another definition than those it
was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from feature_repo.contracts.columns import Column, Curve, Dtype, Encoding, Scalar, definition_hash
from feature_repo.contracts.embeddings import EMBEDDINGS
from feature_repo.contracts.features import declared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_repo.contracts.schemas import Schema

POPULAR, CIRCLE = "popular", "circle"

MISSING_SCORE = -1e9
"""The score of an item that a channel did not find: a number that no channel gives, and that FLOAT32 holds exactly."""
MISSING_RANK = 0


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
        Channel(
            POPULAR,
            "What most people have to do with",
            parameters=MappingProxyType({"view": declaration.item_activity.view_name}),
        )
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
