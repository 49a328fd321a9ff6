"""The answer's order: by score where there are scores, else as recalled; titles that are alike come once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from serving.recommender.recall.channel import best

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from serving.recommender.catalogue import Catalogue
    from serving.recommender.recall.blending import Candidates


def order_slate(
    catalogue: Catalogue, candidates: Candidates, scores: NDArray[np.float32] | None, k: int
) -> NDArray[np.intp]:
    """Return the rows of the `k` candidates to show, best first; ties stay in recall order.

    Of items with one title the best is shown. The others come after all other candidates, where the list would be too
    short without them.
    """
    order = np.arange(len(candidates)) if scores is None else best(scores, len(candidates))
    _, first = np.unique(catalogue.namesakes[candidates.positions[order]], return_index=True)
    is_namesake = np.ones(len(order), dtype=np.bool_)
    is_namesake[first] = False
    return np.concatenate([order[~is_namesake], order[is_namesake]])[:k]
