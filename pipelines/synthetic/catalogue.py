"""Items with genres, and how popular each is when.

Popularity over the whole log follows Zipf's law in Mandelbrot's form. Within it, part of every item's popularity comes
and goes: it rises to a day of its own and falls off on both sides; an item released within the log has none before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.synthetic.scale import LogScale
    from pipelines.synthetic.seasons import Seasons

GENRES = (
    "Drama",
    "Comedy",
    "Thriller",
    "Romance",
    "Action",
    "Horror",
    "Documentary",
    "Crime",
    "Sci-Fi",
    "Adventure",
    "Children's",
    "Animation",
    "Mystery",
    "Fantasy",
    "War",
    "Musical",
    "Western",
    "Film-Noir",
)
_GENRE_SHARES = np.array([14, 12, 9, 8, 8, 6, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 2, 1], dtype=np.float64) / 100
GENRES_PER_ITEM = 3
"""At most."""
_ONE, _TWO = 0.35, 0.40
"""Shares of the items with one and with two genres."""
_OFFSET = 20
"""Mandelbrot's q: it keeps the most popular item below one per cent of the events."""
EPOCH_DAYS = 28
"""Popularity changes from one epoch to the next."""
_PEAK_DAYS = 90.0
_NEW_SHARE = 0.2
"""Share of the items that are released within the log."""
_OLDEST_YEAR = 1950


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items by number; number i has the id i + 1. They stand in the order of their first genre."""

    genres: NDArray[np.int64]
    """Of each item, [items, 3]; -1 where it has fewer."""
    years: NDArray[np.int64]
    """Year of release."""
    released: NDArray[np.int64]
    """About which day of the log each appears, to half an epoch; 0 for what was there before."""
    quality: NDArray[np.float32]
    """By how many stars an item is rated above the mean."""
    genre_shares: NDArray[np.float64]
    """Share of all events that goes to items of each first genre, [genres]."""
    epoch_of_day: NDArray[np.int64]
    """Which epoch a day of the log belongs to, [days]."""
    cumulative: NDArray[np.float64]
    """Epoch e, item i: e + the share of the epoch's events that goes to the items up to i, [epochs * items]."""
    genre_starts: NDArray[np.float64]
    """Where the items of a first genre begin in that share, [epochs, genres + 1]."""

    @property
    def items(self) -> int:
        """How many there are."""
        return len(self.years)

    def draw(
        self, epoch: NDArray[np.int64], genre: NDArray[np.int64], chance: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the items that are met in epochs, among those of first genres, by chances of [0, 1)."""
        start, end = self.genre_starts[epoch, genre], self.genre_starts[epoch, genre + 1]
        found = np.searchsorted(self.cumulative, epoch + start + chance * (end - start), side="right")
        return np.asarray(np.clip(found - epoch * self.items, 0, self.items - 1), dtype=np.int64)


def make_catalogue(scale: LogScale, seasons: Seasons, rng: np.random.Generator) -> Catalogue:
    """Draw the items of a log."""
    genres = _genres(rng, scale.items)
    quality = rng.normal(0.0, 0.35, scale.items)
    base = zipf_weights(scale.items, scale.popularity_exponent, _OFFSET)
    base = base[rng.permutation(scale.items)]
    released = _release_days(rng, scale)
    epochs = -(-scale.days // EPOCH_DAYS)
    weights = base * _drift(rng, scale, seasons, released, epochs)
    weights /= weights.sum(axis=1, keepdims=True)
    starts = np.searchsorted(genres[:, 0], np.arange(len(GENRES) + 1))
    shares = np.concatenate([np.zeros((epochs, 1)), np.cumsum(weights, axis=1)], axis=1)
    shares /= shares[:, -1:]
    first_year = scale.first_day.year
    age = np.minimum(rng.exponential(12.0, scale.items), first_year - 1 - _OLDEST_YEAR)
    years = np.where(released > 0, first_year + released // 365, first_year - 1 - age).astype(np.int64)
    return Catalogue(
        genres=genres,
        years=years,
        released=released,
        quality=quality.astype(np.float32),
        genre_shares=np.bincount(genres[:, 0], weights=base, minlength=len(GENRES)) / base.sum(),
        epoch_of_day=np.arange(scale.days) // EPOCH_DAYS,
        cumulative=(np.arange(epochs)[:, None] + shares[:, 1:]).ravel(),
        genre_starts=shares[:, starts],
    )


def zipf_weights(count: int, exponent: float, offset: float) -> NDArray[np.float64]:
    """Return (rank + offset) ** -exponent for the ranks 1 to `count`, as shares of their sum."""
    weights = (np.arange(1, count + 1) + offset) ** -exponent
    return np.asarray(weights / weights.sum())


def _genres(rng: np.random.Generator, items: int) -> NDArray[np.int64]:
    """Give every item one to three different genres, the items in the order of the first."""
    cumulative = np.cumsum(_GENRE_SHARES / _GENRE_SHARES.sum())
    drawn = np.minimum(np.searchsorted(cumulative, rng.random((items, GENRES_PER_ITEM)), side="right"), len(GENRES) - 1)
    drawn = drawn[np.argsort(drawn[:, 0], kind="stable")]
    number = rng.random(items)
    drawn[(number < _ONE) | (drawn[:, 1] == drawn[:, 0]), 1] = -1
    repeated = (drawn[:, 2] == drawn[:, 0]) | (drawn[:, 2] == drawn[:, 1])
    drawn[(number < _ONE + _TWO) | repeated | (drawn[:, 1] < 0), 2] = -1
    return drawn


def _release_days(rng: np.random.Generator, scale: LogScale) -> NDArray[np.int64]:
    """Return the day of the log on which each item appears; 0 for what was there before."""
    days = rng.integers(1, max(scale.days - EPOCH_DAYS, 2), scale.items)
    return np.where(rng.random(scale.items) < _NEW_SHARE * (scale.drift > 0), days, 0)


def _drift(
    rng: np.random.Generator, scale: LogScale, seasons: Seasons, released: NDArray[np.int64], epochs: int
) -> NDArray[np.float64]:
    """Return by what an item's popularity is multiplied in each epoch, [epochs, items]; its mean over events is 1."""
    borders = np.minimum(np.arange(epochs + 1) * EPOCH_DAYS, scale.days) * 86_400.0
    events = np.diff(seasons.share(borders))
    middle = (np.arange(epochs) + 0.5) * EPOCH_DAYS
    peak = np.where(released > 0, released + _PEAK_DAYS / 3, rng.uniform(0, scale.days, scale.items))
    bump = np.exp(-np.abs(middle[:, None] - peak) / _PEAK_DAYS)
    bump /= events @ bump
    factor = 1 - scale.drift + scale.drift * bump
    factor[middle[:, None] < released] = 0.0
    return np.asarray(factor / (events @ factor))
