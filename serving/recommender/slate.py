"""The answer's order: by score where there are scores, else as recalled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from serving.recommender.recall.channel import best

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from serving.recommender.recall.blending import Candidates


def order_slate(candidates: Candidates, scores: NDArray[np.float32] | None, k: int) -> NDArray[np.intp]:
    """Return the rows of the `k` candidates to show, best first; ties stay in recall order."""
    if scores is None:
        return np.arange(min(k, len(candidates)))
    return best(scores, k)
