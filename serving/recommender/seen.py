"""What may be recommended to a user: nothing the user has an event with, ever."""

from __future__ import annotations

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
