"""The answer's order: by what orders it where there is that, else as recalled; titles that are alike come once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from serving.recommender.recall.channel import best

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from serving.recommender.catalogue import Catalogue


def order_slate(
    catalogue: Catalogue, positions: NDArray[np.intp], values: NDArray[np.floating] | None, k: int
) -> NDArray[np.intp]:
    """Return the rows of the `k` candidates to show, best first; ties stay in recall order.

    Of items with one title the best is shown. The others come after all other candidates, where the list would be too
    short without them.

    Args:
        catalogue: Of which the candidates are.
        positions: `[candidates]`, in recall order.
        values: `[candidates]`, the greatest first; None leaves recall order.
        k: How many are shown.
    """
    order = np.arange(len(positions)) if values is None else best(values, len(positions))
    _, first = np.unique(catalogue.namesakes[positions[order]], return_index=True)
    is_namesake = np.ones(len(order), dtype=np.bool_)
    is_namesake[first] = False
    return np.concatenate([order[~is_namesake], order[is_namesake]])[:k]
