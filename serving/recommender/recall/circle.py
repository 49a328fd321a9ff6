"""The channel of user relations: what others whom the user follows liked last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.contracts.channels import CIRCLE
from serving.recommender.recall.channel import Recalled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def recall_circle(liked_by_others: NDArray[np.intp], allowed: NDArray[np.bool_], n: int) -> Recalled:
    """Return up to `n` allowed items of those that the user's circle liked, latest first.

    Args:
        liked_by_others: Positions, each once, latest first.
        allowed: `[items]`
        n: How many at most.
    """
    return Recalled(CIRCLE, liked_by_others[allowed[liked_by_others]][:n])
