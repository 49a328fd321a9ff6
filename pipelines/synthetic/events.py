"""Who did what when: the events of a log, a block of users at a time, whole columns at a time.

Every block has random numbers of its own, drawn from the seed and the block's number, and is made alone: memory is that
of one block, whatever the size of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import JobError
from pipelines.synthetic.catalogue import GENRES, GENRES_PER_ITEM, Catalogue, make_catalogue
from pipelines.synthetic.people import People, make_people
from pipelines.synthetic.seasons import Seasons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipelines.synthetic.scale import LogScale

_BLOCK_EVENTS = 1_000_000
_BLOCK_USERS = 1 << 16
_KEY_BITS = 63
_WORLD, _BLOCKS = 0, 1
"""Which stream of random numbers: of items and users, of a block's events."""
_LAST_START_S = 6 * 3600
"""No session begins later than this before the log's end."""
_SECOND_THOUGHTS = 1
"""How often an item that the user has met before is drawn anew. Some are met again all the same, as in real logs."""
_MEAN_STARS, _USER_STD, _MATCH_STARS = 3.3, 0.4, 0.6
_PAUSE_MEDIAN_S, _PAUSE_SIGMA, _LONGEST_PAUSE_S = 25.0, 1.2, 1500.0
"""Between two events of a session that are not in the same second. Sessions are parted by more than half an hour."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some users' events, in the order of user, second and item, none twice."""

    users: NDArray[np.int64]
    """Numbers of users, from 0."""
    items: NDArray[np.int64]
    """Numbers of items, from 0."""
    half_stars: NDArray[np.int64]
    """The value in half stars, 1 to 10."""
    seconds: NDArray[np.int64]
    """Since 1970."""


@dataclass(frozen=True, slots=True)
class Log:
    """A made-up log: its items and users, and its events by blocks."""

    scale: LogScale
    seasons: Seasons
    catalogue: Catalogue
    people: People

    def blocks(self) -> Iterator[Block]:
        """Make the events, in the order of the users."""
        for number, users in enumerate(_user_blocks(self.people.events)):
            yield self._block(users, _random(self.scale, _BLOCKS, number))

    def _block(self, users: slice, rng: np.random.Generator) -> Block:
        counts = self.people.events[users]
        taste = self.people.taste(users, rng)
        user = np.repeat(np.arange(len(counts)), counts)
        second = self._seconds(user, counts, rng)
        item = self._items(user, second, taste, rng)
        user, second, item = self._in_order(user, second, item)
        half_stars = self._half_stars(user, item, taste, rng)
        return Block(user + users.start, item, half_stars, second + self.scale.first_second)

    def _seconds(
        self, user: NDArray[np.int64], counts: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Lay the events of each user out in sessions; return seconds from the log's beginning."""
        begins = rng.random(len(user)) < 1 / self.scale.session_events
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])[counts > 0]
        begins[first] = True
        session = np.cumsum(begins) - 1
        joined = rng.random(len(counts))
        stay = np.minimum(rng.exponential(0.25, len(counts)), 1 - joined)
        owner = user[begins]
        share = joined[owner] + stay[owner] * rng.random(len(owner))
        start = np.minimum(self.seasons.seconds(share), self.scale.seconds - _LAST_START_S)
        pause = np.minimum(_PAUSE_MEDIAN_S * np.exp(_PAUSE_SIGMA * rng.standard_normal(len(user))), _LONGEST_PAUSE_S)
        pause[begins | (rng.random(len(user)) < self.scale.burst)] = 0
        elapsed = np.cumsum(np.ceil(pause).astype(np.int64))
        second = start[session] + elapsed - elapsed[begins][session]
        return np.asarray(np.minimum(second, self.scale.seconds - _LAST_START_S // 2), dtype=np.int64)

    def _items(
        self, user: NDArray[np.int64], second: NDArray[np.int64], taste: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw the item of each event: a genre by the user's taste, then an item of it by the time's popularity."""
        weights = self.catalogue.genre_shares * np.exp(self.scale.taste * taste)
        cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
        cumulative[:, -1] = 1.0
        places = (np.arange(len(taste))[:, None] + cumulative).ravel()
        genre = np.searchsorted(places, user + rng.random(len(user)), side="right") - user * len(GENRES)
        genre = np.clip(genre, 0, len(GENRES) - 1)
        epoch = self.catalogue.epoch_of_day[second // 86_400]
        item = self.catalogue.draw(epoch, genre, rng.random(len(user)))
        for _ in range(_SECOND_THOUGHTS):
            known = _met_before(user, item)
            item[known] = self.catalogue.draw(epoch[known], genre[known], rng.random(len(known)))
        return item

    def _in_order(
        self, user: NDArray[np.int64], second: NDArray[np.int64], item: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], ...]:
        """Sort the events and take those that happen twice to the next free second."""
        item_bits, second_bits = int(self.catalogue.items).bit_length(), self.scale.seconds.bit_length()
        if (int(user.max()).bit_length() if len(user) else 0) + second_bits + item_bits > _KEY_BITS:
            msg = (
                f"generated log: expected items and days that fit 63 bits with {_BLOCK_USERS:,} users, received "
                f"{self.catalogue.items:,} items and {self.scale.days:,} days; take fewer of either"
            )
            raise JobError(msg)
        key = np.sort(((user << second_bits | second) << item_bits) | item)
        while (again := np.flatnonzero(key[1:] == key[:-1])).size:
            key[again + 1] += 1 << item_bits
            key.sort()
        low = (1 << item_bits) - 1
        return key >> (item_bits + second_bits), (key >> item_bits) & ((1 << second_bits) - 1), key & low

    def _half_stars(
        self, user: NDArray[np.int64], item: NDArray[np.int64], taste: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Rate each event: the item's quality, the user's mood and taste for the item's genres, and chance."""
        genres = self.catalogue.genres[item]
        padded = np.concatenate([taste, np.zeros((len(taste), 1), np.float32)], axis=1).ravel()
        width = len(GENRES) + 1
        match = np.zeros(len(user), np.float32)
        for place in range(GENRES_PER_ITEM):
            match += padded[user * width + np.where(genres[:, place] < 0, len(GENRES), genres[:, place])]
        match /= np.sqrt((genres >= 0).sum(axis=1))
        mood = rng.normal(_MEAN_STARS, _USER_STD, len(taste)).astype(np.float32)
        stars = mood[user] + self.catalogue.quality[item] + _MATCH_STARS * self.scale.taste * match
        stars += self.scale.noise * rng.standard_normal(len(user), dtype=np.float32)
        return np.asarray(np.clip(np.rint(2 * stars), 1, 10), dtype=np.int64)


def _met_before(user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the events whose user has one with the same item further up."""
    pair = user * (int(item.max(initial=0)) + 1) + item
    order = np.argsort(pair, kind="stable")
    ordered = pair[order]
    return np.sort(order[1:][ordered[1:] == ordered[:-1]])


def make_log(scale: LogScale) -> Log:
    """Draw items and users; the events are made when they are asked for."""
    rng = _random(scale, _WORLD, 0)
    seasons = Seasons(scale)
    return Log(scale, seasons, make_catalogue(scale, seasons, rng), make_people(scale, rng))


def _random(scale: LogScale, stream: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(scale.seed, spawn_key=(stream, number))))


def _user_blocks(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Cut the users into runs of about `_BLOCK_EVENTS` events."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, done + _BLOCK_EVENTS, side="right"))
        stop = min(max(stop, start + 1), start + _BLOCK_USERS)
        yield slice(start, stop)
        start = stop
