"""What may be recommended to a user: nothing the user has an event with, ever."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from serving.recommender.catalogue import Catalogue


def unseen_items(catalogue: Catalogue, seen: Iterable[str]) -> NDArray[np.bool_]:
    """Return `[items]`: for each item of the catalogue, whether the user has not seen it."""
    allowed = np.ones(len(catalogue), dtype=np.bool_)
    allowed[catalogue.find(seen)] = False
    return allowed


class SeenMemory:
    """What the users of late have seen, for the time that Redis is away; the least recent user is forgotten first."""

    def __init__(self, users: int) -> None:
        self._users = users
        self._seen: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def keep(self, user_id: str, seen: tuple[str, ...]) -> None:
        """Remember what a user has seen."""
        self._seen[user_id] = seen
        self._seen.move_to_end(user_id)
        while len(self._seen) > self._users:
            self._seen.popitem(last=False)

    def recall(self, user_id: str) -> tuple[str, ...]:
        """Return what a user had seen when last asked; nothing if it is not remembered."""
        return self._seen.get(user_id, ())
