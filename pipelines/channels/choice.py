"""Which variant of a channel is fitted: what did best, as a list, on validation before the fit's own cutoff."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.contracts.datasets import ITEM_ID, USER_ID
from feature_repo.contracts.intervals import format_cutoff
from feature_repo.contracts.questions import HISTORY, UNTUNED, Audience, SimpleList
from feature_repo.list_metrics import DECIDING, LIST_METRICS, best_variant, have_long_history, hits, judged
from pipelines.channels.fits import VARIANTS
from pipelines.channels.likes import item_positions, like_matrix
from pipelines.channels.lists import first_items
from pipelines.questions.asked import ask, likes_before, seen_before, span_before
from pipelines.questions.origins import validation_origins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import duckdb
    from numpy.typing import NDArray

    from feature_repo.contracts.channels import Channel
    from feature_repo.contracts.schemas import Positive
    from pipelines.channels.fits import Variant
    from pipelines.channels.likes import LikeMatrix
    from pipelines.questions.asked import AskedUsers
    from pipelines.questions.origins import Origin
    from pipelines.settings import Settings

_LOG = logging.getLogger(__name__)
_JUDGES = 500
"""Users of an origin whose answers choose, at most: every variant makes a list for each."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How the first items of every variant's lists did with the users who were asked."""

    history: NDArray[np.int64]
    """`[users]`, how many events each had before."""
    figures: Mapping[Variant, NDArray[np.float64]]
    """Variant → `[users]`, the deciding metric; nothing where nobody was asked."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A channel's variant, and how it did where it was chosen."""

    variant: Variant
    tried: int
    """How many variants it was chosen of."""
    validation: Mapping[str, float]
    """Value of `Audience` → mean of the deciding metric, of those that have a question."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Judges every variant before any cutoff, each origin once."""

    connection: duckdb.DuckDBPyConnection
    """With the view `events`."""
    positive: Positive
    settings: Settings
    done: dict[tuple[datetime, datetime], Judged] = field(default_factory=dict)
    """First and last moment of the answers → what was found."""

    def before(self, cutoff: datetime) -> Judged:
        """Return how variants did at the origins whose answers end at or before `cutoff`, their users in one row.

        Nothing after the cutoff is read.
        """
        span = span_before(self.connection, cutoff)
        origins = validation_origins(*span, cutoff, self.settings.question_days) if span else []
        found = [self._at(origin, f"{place} of {len(origins)}") for place, origin in enumerate(origins, 1)]
        asked = [each for each in found if len(each.history)]
        if not asked:
            return Judged(np.empty(0, dtype=np.int64), {})
        figures = {variant: np.concatenate([each.figures[variant] for each in asked]) for variant in VARIANTS}
        return Judged(np.concatenate([each.history for each in asked]), figures)

    def _at(self, origin: Origin, place: str) -> Judged:
        key = (origin.moment, origin.end)
        if key not in self.done:
            began = time.monotonic()
            self.done[key] = self._judge(origin)
            _LOG.info(
                "origin %s, %s: %d variants judged by %d users' answers until %s, %.1f s",
                *(format_cutoff(origin.moment), place, len(VARIANTS), len(self.done[key].history)),
                *(format_cutoff(origin.end), time.monotonic() - began),
            )
        return self.done[key]

    def _judge(self, origin: Origin) -> Judged:
        asked = ask(self.connection, origin, self.positive, min(_JUDGES, self.settings.question_users))
        users = asked.users.to_pylist()
        history = asked.questions.column(HISTORY.name).slice(0, len(users)).to_numpy()
        if not users:
            return Judged(history, {})
        matrix = like_matrix(likes_before(self.connection, origin.moment, self.positive))
        seen = seen_before(self.connection, origin.moment, asked.users)
        owners, answers = _answers(asked, users, matrix)
        counts = np.bincount(owners, minlength=len(users))
        metric, k = LIST_METRICS[DECIDING]
        lists = first_items(matrix, users, seen, self.settings.question_ease_items, k, roughly=True)
        return Judged(
            history,
            {variant: metric(hits(found, owners, answers, len(matrix.items)), counts, k) for variant, found in lists},
        )


def _answers(asked: AskedUsers, users: Sequence[str], matrix: LikeMatrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return for each answer its user's row and its item's column, -1 for an item that nobody liked before."""
    ids = asked.answers.column(USER_ID.name).to_numpy().astype(np.str_)
    owners = np.searchsorted(np.array(users, dtype=np.str_), ids)
    return owners, item_positions(matrix, asked.answers.column(ITEM_ID.name).to_numpy().astype(np.str_))


def variants_of(channel: Channel) -> list[Variant]:
    """Return the variants of the simple list that a channel is, aged or not as it is declared."""
    return [
        variant
        for variant in VARIANTS
        if variant.method is channel.simple_list and channel.is_aged in {None, variant.half_life > 0}
    ]


def choose(channel: Channel, found: Judged) -> Choice:
    """Return the variant with the highest mean over the judged users, ties by name; the untuned one where are none."""
    variants = {variant.parameters: variant for variant in variants_of(channel)}
    if not found.figures:
        return Choice(variants[_untuned(channel)], len(variants), {})
    deciding = judged(found.history)
    means = {name: float(found.figures[variant][deciding].mean()) for name, variant in variants.items()}
    best = variants[best_variant(means)]
    long = have_long_history(found.history)
    audiences = {Audience.KNOWN: long, Audience.NEW: ~long}
    figures = {
        audience.value: float(found.figures[best][those].mean()) for audience, those in audiences.items() if those.any()
    }
    return Choice(best, len(variants), figures)


def _untuned(channel: Channel) -> str:
    """Return the parameters that count without validation: the simple list's, by age where the channel says so."""
    name = UNTUNED.get(channel.simple_list, "") if channel.simple_list else ""
    return f"{name}, {UNTUNED[SimpleList.RECENCY]}" if channel.is_aged else name
