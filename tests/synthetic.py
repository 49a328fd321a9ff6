"""A small made-up data set in the layout of MovieLens 100K, so that tests need no download.

It imitates what makes the real one hard: popularity falls off as Zipf's law says, users rate in bursts (several ratings
in one second), most users have one session only. Ratings follow a taste for genres on top of user and item means, so
that a model which crosses the user's genres with the item's can beat those means.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_OCCUPATIONS = ("administrator", "artist", "educator", "engineer", "librarian", "programmer", "student", "writer")
_FIRST = int(datetime(1997, 9, 20, tzinfo=UTC).timestamp())
_LAST = int(datetime(1998, 4, 22, tzinfo=UTC).timestamp())
_TASTE, _NOISE = 1.3, 0.6
_LONGEST_AWAY_DAYS, _CHOOSY = 25, 1.0


def write_movielens_100k(
    folder: Path, *, users: int = 120, items: int = 200, events: int = 6000, seed: int = 7, visits: int = 0
) -> Path:
    """Write `u.data`, `u.item` and `u.user` to `folder` and return it. The same arguments give the same bytes.

    With `visits` every user comes back so often, some days or weeks later each time, so that many can be asked at a
    moment of the past; and users choose by their taste, so that lists for one user beat those for everybody.

    Raises:
        ValueError: more events than there are pairs of a user and an item (at most half of them are filled).
    """
    if events > users * items // 2:
        msg = f"events: expected at most half of users * items = {users * items // 2}, received {events}"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    flags = _genre_flags(rng, items)
    taste = rng.normal(0.0, 1.0, (users, len(GENRES)))
    quality = rng.normal(0.0, 0.4, items)
    popularity = 1.0 / np.arange(1, items + 1) ** 0.8
    popularity = popularity[rng.permutation(items)] * np.exp(quality)
    rows: list[tuple[int, ...]] = []
    for user, count in enumerate(_events_per_user(rng, users, items, events)):
        match = flags @ taste[user] / np.sqrt(flags.sum(axis=1))
        weights = popularity * np.exp((_CHOOSY if visits else 0.3) * match)
        chosen = rng.choice(items, size=count, replace=False, p=weights / weights.sum())
        score = 3.5 + rng.normal(0.0, 0.3) + quality[chosen] + _TASTE * match[chosen] * 0.8
        stars = np.clip(np.rint(score + rng.normal(0.0, _NOISE, count)), 1, 5).astype(int)
        times = _visit_times(rng, count, visits) if visits else _burst_times(rng, count)
        rows.extend(zip(np.full(count, user + 1), chosen + 1, stars, times, strict=True))
    order = rng.permutation(len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    lines = ("\t".join(map(str, rows[index])) for index in order)
    (folder / "u.data").write_text("".join(f"{line}\n" for line in lines), encoding="latin-1")
    _write_items(folder, rng, flags)
    _write_users(folder, rng, users)
    return folder


def _genre_flags(rng: np.random.Generator, items: int) -> np.ndarray:
    """Give every item one to three genres other than 'unknown'; returns flags, [items, genres]."""
    flags = np.zeros((items, len(GENRES)), dtype=int)
    for item in range(items):
        flags[item, 1 + rng.choice(len(GENRES) - 1, size=rng.integers(1, 4), replace=False)] = 1
    return flags


def _events_per_user(rng: np.random.Generator, users: int, items: int, events: int) -> np.ndarray:
    """Share `events` out among users, a few of them very busy, none beyond the number of items."""
    weights = rng.lognormal(0.0, 0.8, users)
    counts = np.minimum((events * weights / weights.sum()).astype(int), items * 3 // 4)
    while (rest := events - counts.sum()) > 0:
        free = np.flatnonzero(counts < items * 3 // 4)
        counts[rng.choice(free, size=min(rest, len(free)), replace=False)] += 1
    return np.asarray(counts)


def _burst_times(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return the seconds of one user's ratings: one or two sessions, several ratings in one second, a pause, again."""
    start = rng.integers(_FIRST, _LAST - 14 * 86_400)
    new_second = rng.random(count) < 0.4
    pauses = np.where(new_second, rng.integers(1, 60, count), 0)
    later = np.zeros(count, dtype=int)
    if rng.random() < 0.4 and count > 1:
        later[rng.integers(1, count)] = rng.integers(1, 13) * 86_400
    return np.asarray(start + np.cumsum(pauses) + np.cumsum(later))


def _visit_times(rng: np.random.Generator, count: int, visits: int) -> np.ndarray:
    """Return the seconds of one user's ratings in several sessions, days or weeks apart."""
    start = rng.integers(_FIRST, _LAST - visits * _LONGEST_AWAY_DAYS * 86_400)
    later = np.zeros(count, dtype=int)
    begins = rng.choice(np.arange(1, count), size=min(visits - 1, count - 1), replace=False) if count > 1 else []
    later[begins] = rng.integers(3, _LONGEST_AWAY_DAYS, len(begins)) * 86_400
    return np.asarray(start + np.cumsum(rng.integers(1, 60, count)) + np.cumsum(later))


def _write_items(folder: Path, rng: np.random.Generator, flags: np.ndarray) -> None:
    lines = []
    for item, row in enumerate(flags):
        year = int(rng.integers(1935, 1998))
        title = f"Film {item + 1} é ({year})"
        lines.append(f"{item + 1}|{title}|01-Jan-{year}||http://example.invalid/{item + 1}|{'|'.join(map(str, row))}\n")
    (folder / "u.item").write_text("".join(lines), encoding="latin-1")


def _write_users(folder: Path, rng: np.random.Generator, users: int) -> None:
    ages, genders = rng.integers(14, 70, users), rng.choice(["M", "F"], users)
    occupations, zip_codes = rng.choice(_OCCUPATIONS, users), rng.integers(10000, 99999, users)
    people = zip(range(1, users + 1), ages, genders, occupations, zip_codes, strict=True)
    lines = ["|".join(map(str, person)) + "\n" for person in people]
    (folder / "u.user").write_text("".join(lines), encoding="latin-1")
