"""Users with attributes, tastes and activity. A user's taste comes from occupation and gender, and from chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.synthetic.catalogue import GENRES, zipf_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.synthetic.scale import LogScale

OCCUPATIONS = ("administrator", "artist", "educator", "engineer", "librarian", "programmer", "student", "writer")
GENDERS = ("F", "M")
_OFFSET_SHARE = 0.02
"""Mandelbrot's q over the number of users: the busiest of 200,000 has about a thousand times the mean of the rest."""
_YOUNGEST, _OLDEST = 14, 80
_OWN_SHARE = 0.6
"""How much of the variance of a taste is the user's own; the rest is that of people alike."""


@dataclass(frozen=True, slots=True)
class People:
    """Users by number; number i has the id i + 1."""

    events: NDArray[np.int64]
    """How many events each has; they add up to the log's."""
    ages: NDArray[np.int64]
    genders: NDArray[np.int64]
    occupations: NDArray[np.int64]
    group_taste: NDArray[np.float64]
    """What people of an occupation and a gender like in common, in standard deviations, [occupations, genders, genres].
    """

    def taste(self, users: slice, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw the tastes of some users: how much each likes each genre, in standard deviations, [users, genres]."""
        group = self.group_taste[self.occupations[users], self.genders[users]]
        own = rng.standard_normal(group.shape)
        return np.asarray(_OWN_SHARE**0.5 * own + (1 - _OWN_SHARE) ** 0.5 * group, dtype=np.float32)


def make_people(scale: LogScale, rng: np.random.Generator) -> People:
    """Draw the users of a log."""
    shape = (len(OCCUPATIONS), len(GENDERS), len(GENRES))
    return People(
        events=_activity(scale, rng),
        ages=np.clip(rng.normal(36, 14, scale.users), _YOUNGEST, _OLDEST).astype(np.int64),
        genders=rng.integers(0, len(GENDERS), scale.users),
        occupations=rng.integers(0, len(OCCUPATIONS), scale.users),
        group_taste=rng.standard_normal(shape),
    )


def _activity(scale: LogScale, rng: np.random.Generator) -> NDArray[np.int64]:
    """Share the events out among the users by Zipf's law: one to each while there are enough, to the exact sum."""
    at_least = min(1, scale.events // scale.users)
    weights = zipf_weights(scale.users, scale.activity_exponent, _OFFSET_SHARE * scale.users)
    shares = weights * (scale.events - at_least * scale.users)
    counts = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(-(shares - counts), kind="stable")
    counts[by_remainder[: scale.events - at_least * scale.users - counts.sum()]] += 1
    return np.asarray((counts + at_least)[rng.permutation(scale.users)])
